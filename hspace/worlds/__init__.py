"""Small drawn worlds whose every image has exact labels, so that edits can be measured and not only looked at."""
