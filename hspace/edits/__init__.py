"""Applying directions: sums, step windows, swaps and interpolations."""
