import math

import pytest
import torch
from torch import Tensor

from hspace.metrics.angles import principal_angles
from hspace.types import InputError


def _random(seed: int) -> Tensor:
    return torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(seed))


def test_angles_known_in_closed_form() -> None:
    e = torch.eye(5, dtype=torch.float64)
    tilted = torch.stack([math.cos(1e-9) * e[0] + math.sin(1e-9) * e[3], math.cos(0.7) * e[1] + math.sin(0.7) * e[4]])
    angles = principal_angles(e[:2], tilted)
    assert float(angles[0].deg2rad()) == pytest.approx(1e-9, rel=1e-6)  # a cosine would say 0
    assert float(angles[1].deg2rad()) == pytest.approx(0.7, abs=1e-12)
    assert principal_angles(e[:2], e[2:]).tolist() == pytest.approx([90, 90])
    assert principal_angles(e[:3], e[2:3]).tolist() == pytest.approx([0])


def test_scale_sign_order_and_mixing_do_not_matter() -> None:
    vectors = _random(0)
    mixed = torch.einsum("ij,j...->i...", torch.tensor([[0.0, -1e-4], [30.0, 2.0]]), vectors)
    assert principal_angles(vectors, mixed).max() < 1e-3
    with pytest.raises(InputError, match="linearly dependent"):
        principal_angles(vectors, torch.cat([vectors, 2 * vectors[:1]]))
