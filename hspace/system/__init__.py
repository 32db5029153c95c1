"""The machine: files, shards, the cache, processes and signals; knows nothing of diffusion."""
