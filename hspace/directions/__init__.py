"""Editing directions: the record and its file, and the methods that find them."""
