"""Figures, tables and reports, drawn from saved records only."""
