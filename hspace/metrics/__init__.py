"""Numbers from scores and images; this room does not know models."""
