"""The model card of the embedded portraits: what is measured, kept and written."""
