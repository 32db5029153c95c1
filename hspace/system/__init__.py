"""The machine: files, shards, the cache, processes and signals; this room does not know diffusion."""
