"""Numbers from scores and images; knows no model."""
