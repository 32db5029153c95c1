"""The drawn world of bedrooms, whose every image has exact labels."""
