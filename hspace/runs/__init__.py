"""A configured run: its configuration, keys, stages, records and tracking."""
