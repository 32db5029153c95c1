"""Data sets: the procedural portraits, whose every image has exact labels."""
