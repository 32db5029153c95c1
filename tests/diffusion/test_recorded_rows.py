"""Rows of h go to their place on disk, and rows of another size are refused instead of being spread over others."""

from pathlib import Path

import numpy as np
import pytest

from hspace.system.shards import row_writer
from hspace.types import InputError


@pytest.mark.parametrize("shape", [(2, 2, 3), (2, 2, 5), (2, 1, 4), (2, 3, 4)])
def test_rows_of_another_size_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    h = np.ones(shape, dtype=np.float32)
    with pytest.raises(InputError, match=r"h must have 2 steps of 4 numbers, got shape \(2, "):
        with row_writer(tmp_path / "h.npy", (2, 8, 4), None) as writer:
            writer.write(0, h)
    assert not list(tmp_path.iterdir())
