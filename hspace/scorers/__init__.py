"""Scorers read attributes off images; embedders map images to features."""
