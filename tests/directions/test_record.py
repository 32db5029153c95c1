import json
import os
import struct
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.directions.record import Directions, DirectionsMeta
from hspace.types import InputError

K = 2


@pytest.fixture
def directions(tiny_model: DiffusionModel) -> Directions:
    """Two directions that fit the tiny model, with every optional tensor."""
    schedule, generator = tiny_model.process, torch.Generator().manual_seed(0)
    steps = len(schedule.timesteps)
    meta = DirectionsMeta(
        space="h",
        tap="after",
        timesteps=schedule.timesteps,
        eta=(1.0,) * steps,
        injection="symmetric",
        prediction_type=schedule.prediction_type,
        model_id=tiny_model.model_id,
        model_sha256=tiny_model.model_sha256,
        method="pca",
        names=("component 0", "component 1: bärtig"),
        unit="std",
        seeds=(0, 1, 2**62),
        calibration={"strength": 1.5, "attributes": ["yaw"]},
    )
    shape = (steps, *tiny_model.h_shape)
    return Directions(
        torch.randn(K, *shape, generator=generator),
        meta,
        mean=torch.randn(shape, generator=generator),
        explained_variance=torch.rand(K, steps, generator=generator),
        singular_values=torch.rand(K, generator=generator),
        residuals=torch.rand(K, steps, generator=generator),
        correlation=torch.rand(K, steps - 1, generator=generator),
    )


@pytest.fixture
def rewrite(directions: Directions, tmp_path: Path) -> Callable[..., Path]:
    """Writes the directions' file again with some metadata or tensors replaced; None leaves one out."""
    directions.save(tmp_path / "good.safetensors")

    def write(meta: dict[str, Any] | str = {}, **tensors: torch.Tensor | None) -> Path:  # noqa: B006
        path = tmp_path / "bad.safetensors"
        kept = {k: v for k, v in (load_file(tmp_path / "good.safetensors") | tensors).items() if v is not None}
        text = meta if isinstance(meta, str) else json.dumps(json.loads(directions.meta.to_json()) | meta)
        save_file(kept, path, metadata={"hspace": text})
        return path

    return write


def test_file_holds_everything_and_loads_again(directions: Directions, tmp_path: Path) -> None:
    path = tmp_path / "new" / "d.safetensors"
    directions.save(path)
    loaded = Directions.load(path)
    assert loaded.meta == directions.meta
    for field in fields(Directions):
        if field.name != "meta":
            assert torch.equal(getattr(loaded, field.name), getattr(directions, field.name))
    assert [file.name for file in path.parent.iterdir()] == ["d.safetensors"]


def test_metadata_has_exactly_the_agreed_keys(directions: Directions) -> None:
    agreed = (
        "format space tap timesteps eta injection prediction_type model_id model_sha256 method config_sha256 names "
        "unit seeds calibration"
    )
    assert set(json.loads(directions.meta.to_json())) == set(agreed.split())


def test_x_T_directions_and_one_step_are_valid(directions: Directions, tmp_path: Path) -> None:
    x_T = Directions(torch.ones(K, 3, 16, 16), replace(directions.meta, space="x_T"), mean=torch.ones(3, 16, 16))
    one_step = Directions(
        directions.directions[:, :1].clone(),
        replace(directions.meta, timesteps=(0,), eta=(1.0,)),
        correlation=torch.ones(K, 0),
    )
    for example in (x_T, one_step):
        example.save(tmp_path / "d.safetensors")
        assert torch.equal(Directions.load(tmp_path / "d.safetensors").directions, example.directions)
    assert x_T.norms().tolist() == pytest.approx([(3 * 16 * 16) ** 0.5] * K)


def test_check_names_what_does_not_fit(
    directions: Directions, tiny_model: DiffusionModel, tiny_pipeline_dir: Path
) -> None:
    directions.check(tiny_model)
    for num_steps, tap, message in ((4, "after", "timesteps is"), (3, "before", "tap is after in the directions")):
        other = load_model(str(tiny_pipeline_dir), num_steps=num_steps, tap=tap, device="cpu")
        with pytest.raises(InputError, match=message):
            directions.check(other)
    for change in ({"model_sha256": "0" * 64}, {"prediction_type": "sample"}):
        with pytest.raises(InputError, match=next(iter(change.values()))):
            replace(directions, meta=replace(directions.meta, **change)).check(tiny_model)
    smaller = replace(directions, directions=directions.directions[..., :2].clone(), mean=None)
    with pytest.raises(InputError, match=r"shape is \(16, 8, 2\) in the directions, \(16, 8, 8\) here"):
        smaller.check(tiny_model)


def test_select_keeps_order_and_everything_of_a_direction(directions: Directions) -> None:
    chosen = directions.select([1, 0])
    assert chosen.meta.names == directions.meta.names[::-1]
    assert torch.equal(chosen.directions, directions.directions.flip(0))
    assert torch.equal(chosen.correlation, directions.correlation.flip(0))  # type: ignore[union-attr,arg-type]
    assert torch.equal(chosen.mean, directions.mean)  # type: ignore[arg-type]
    for wrong in ([2], [-1], []):
        with pytest.raises(InputError, match="indices from 0 to 1"):
            directions.select(wrong)


def test_norms_are_per_step(directions: Directions) -> None:
    expected = torch.linalg.vector_norm(directions.directions, dim=(2, 3, 4))
    assert (directions.norms() - expected).abs().max() < 1e-5


BAD_META: list[tuple[dict[str, Any] | str, str]] = [
    ("{", "must be JSON"),
    ("[1]", "exactly the keys"),
    ("[" * 100_000, "must be JSON"),
    ({"extra": 1}, "exactly the keys of format 1, wrong here: .*extra"),
    ({"format": 2}, "format must be 1, got 2"),
    ({"format": True}, "format must be 1"),
    ({"space": "z"}, "space must be h or x_T, got 'z'"),
    ({"space": "x_T"}, r"directions must be \(2, C, H, W\)"),
    ({"tap": ["after"]}, "tap must be"),
    ({"prediction_type": None}, "prediction_type must be"),
    ({"timesteps": []}, "timesteps must be integers >= 0, descending, at least one"),
    ({"timesteps": [0, 333, 666]}, "timesteps must be integers >= 0, descending"),
    ({"timesteps": [2, 1.5, 0]}, "timesteps must be integers"),
    ({"timesteps": [3, 0]}, "eta must be one number per step"),
    ({"eta": [1.0, 1.0, 1.5]}, "eta must be numbers in"),
    ({"eta": [float("nan")] * 3}, "finite numbers"),
    ({"calibration": {"strength": float("inf")}}, "finite numbers"),
    ({"calibration": [1]}, "calibration must be a JSON object"),
    ({"model_sha256": "0" * 63 + "g"}, "model_sha256 must be 64 hexadecimal digits"),
    ({"config_sha256": 7}, "config_sha256 must be"),
    ({"names": ["a"]}, r"directions must be \(1, 3, C, H, W\)"),
    ({"names": "ab"}, "names must be strings"),
    ({"names": ["a", "b\x1b[31m"]}, "names must be strings"),
    ({"unit": "x" * 201}, "unit must be 1 to 200"),
    ({"seeds": [-1]}, "seeds must be integers >= 0"),
    ({"model_id": ""}, "model_id must be"),
]


@pytest.mark.parametrize(("meta", "message"), BAD_META)
def test_bad_metadata_of_a_stranger_is_one_clear_line(
    rewrite: Callable[..., Path], meta: dict[str, Any] | str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        Directions.load(rewrite(meta))
    assert str(error.value).isprintable() and len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"directions": None}, "must hold the tensor 'directions'"),
        ({"weights": torch.ones(1)}, "at most mean"),
        ({"directions": torch.ones(2, 3, 16, 8, 8, dtype=torch.float16)}, "must be float32, got float16"),
        ({"directions": torch.full((2, 3, 16, 8, 8), torch.nan)}, "directions must be finite"),
        ({"directions": torch.ones(2, 4, 16, 8, 8)}, r"got \(2, 4, 16, 8, 8\)"),
        ({"directions": torch.ones(2, 3, 0, 8, 8)}, r"got \(2, 3, 0, 8, 8\)"),
        ({"mean": torch.ones(3, 16, 8, 7)}, r"mean must be \(3, 16, 8, 8\), got"),
        ({"explained_variance": torch.ones(3)}, r"explained_variance must be \(2,\) or \(2, 3\), got \(3,\)"),
        ({"correlation": torch.ones(2, 3)}, r"correlation must be \(2, 2\), got"),
    ],
)
def test_bad_tensors_of_a_stranger_are_one_clear_line(
    rewrite: Callable[..., Path], tensors: dict[str, torch.Tensor | None], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Directions.load(rewrite(**tensors))


def test_files_that_are_no_directions(directions: Directions, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    directions.save(good)
    with pytest.raises(InputError, match="not found"):
        Directions.load(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="not found"):
        Directions.load(tmp_path)
    save_file({"directions": torch.ones(1)}, bad)
    with pytest.raises(InputError, match="not written by hspace"):
        Directions.load(bad)
    contents = (b"", b"\x80\x04junk", good.read_bytes()[:-8], struct.pack("<Q", 2**60) + b"{}")
    for content in contents:
        bad.write_bytes(content)
        with pytest.raises(InputError, match="no readable safetensors file"):
            Directions.load(bad)


def test_a_failed_write_leaves_the_old_file(directions: Directions, tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    path.write_bytes(b"old")
    broken = replace(directions, meta=replace(directions.meta, calibration={"strength": float("nan")}))
    with pytest.raises(ValueError, match="not JSON compliant"):
        broken.save(path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["d.safetensors"]
