"""The configuration files, here so that other projects can name `pkg://hspace.conf` in their search path."""
