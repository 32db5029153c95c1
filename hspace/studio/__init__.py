"""From a photograph to a slider: alignment, inversion, pasting back, and the local page."""
