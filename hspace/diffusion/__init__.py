"""A checkpoint and the process that runs it: loading, sampling, inversion, and the tap."""
