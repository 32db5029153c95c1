"""Hashes of what results depend on."""

import hashlib

import torch


def weights_sha256(network: torch.nn.Module) -> str:
    """SHA-256 over a network's tensors in sorted name order: name, shape, float32 bytes (little-endian)."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().astype("<f4", copy=False).data)
    return digest.hexdigest()
