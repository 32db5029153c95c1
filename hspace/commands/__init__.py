"""What can be said to `hspace`."""
