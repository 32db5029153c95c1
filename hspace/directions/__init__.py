"""Finding directions: the record and its file, and one module per method."""
