"""The rendered world of faces, whose every image has exact labels."""
