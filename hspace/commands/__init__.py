"""The commands of `hspace`."""
