"""The model card of an embedded world: what is measured, kept and written."""
