import json
import logging
import os
import struct
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.identity import WEIGHTS, Identity
from hspace.directions.metadata import DirectionsMeta, annotated_by
from hspace.directions.record import Directions
from hspace.types import InputError

K = 2


@pytest.fixture
def directions(tiny_model: DiffusionModel) -> Directions:
    """Two directions that fit the tiny model, with every optional tensor."""
    generator = torch.Generator().manual_seed(0)
    schedule = tiny_model.process
    steps = len(schedule.timesteps)
    meta = DirectionsMeta(
        space="h",
        provenance=tiny_model.provenance(eta=1.0, injection="symmetric"),
        model_id=tiny_model.model_id,
        method="pca",
        names=("component 0", "component 1: bärtig"),
        unit="std",
        seeds=(0, 1, 2**62),
        calibration={"strength": 1.5, "attributes": ["yaw"]},
        settings={"k": 2, "steps": [1, 2]},
        effects={"yaw": [0.5, 0.4, 0.6]},
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
        range=torch.tensor([[-2.0, 2.0], [-1.0, 3.0]]),
    )


@pytest.fixture
def rewrite(directions: Directions, tmp_path: Path) -> Callable[..., Path]:
    """Writes the directions' file again with some metadata or tensors replaced; None leaves one out.

    Keys of the metadata may be dotted.
    """
    directions.save(tmp_path / "good.safetensors")

    def write(meta: dict[str, Any] | str = {}, **tensors: torch.Tensor | None) -> Path:  # noqa: B006
        path = tmp_path / "bad.safetensors"
        kept = {k: v for k, v in (load_file(tmp_path / "good.safetensors") | tensors).items() if v is not None}
        text = meta if isinstance(meta, str) else json.dumps(changed(directions.meta.to_dict(), meta))
        save_file(kept, path, metadata={"hspace": text})
        return path

    return write


def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    for key, value in changes.items():
        *sections, name = key.split(".")
        section = values
        for each in sections:
            section = section[each]
        section[name] = value
    return values


def test_file_holds_everything_and_loads_again(directions: Directions, tmp_path: Path) -> None:
    path = tmp_path / "new" / "d.safetensors"
    directions.save(path)
    loaded = Directions.load(path)
    assert loaded.meta == directions.meta
    for field in fields(Directions):
        if field.name != "meta":
            assert torch.equal(getattr(loaded, field.name), getattr(directions, field.name))
    assert [file.name for file in path.parent.iterdir()] == ["d.safetensors"]


def test_metadata_has_exactly_the_agreed_keys(directions: Directions, tmp_path: Path) -> None:
    directions.save(tmp_path / "d.safetensors")
    with safe_open(tmp_path / "d.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert list(metadata) == ["hspace"]
    agreed = (
        "format space provenance model_id method settings names unit seeds config_sha256 calibration effects "
        "differences report"
    )
    assert set(json.loads(metadata["hspace"])) == set(agreed.split())


def old_file(directions: Directions, path: Path, **changes: Any) -> Path:
    """What format 1 wrote of the same directions."""
    meta, origin = directions.meta, directions.meta.provenance
    facts = {
        "space": "h", "tap": "after", "timesteps": origin.process.timesteps, "eta": origin.eta,
        "injection": "symmetric", "prediction_type": "epsilon", "model_id": "tiny",
        "model_sha256": origin.model[WEIGHTS], "method": "supervised, annotated by portraits-annotator",
        "names": meta.names, "unit": "std", "seeds": meta.seeds, "config_sha256": "", "calibration": None, "format": 1,
    }  # fmt: skip
    save_file({"directions": directions.directions}, path, metadata={"hspace": json.dumps(facts | changes)})
    return path


def test_format_1_is_read_with_a_warning_and_knows_the_networks_tensors(
    directions: Directions, tiny_model: DiffusionModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = Directions.load(old_file(directions, tmp_path / "old.safetensors"))
    assert "file format 1" in caplog.text
    assert torch.equal(old.directions, directions.directions)
    assert old.meta.provenance.model == {WEIGHTS: tiny_model.identity.parts[WEIGHTS]}
    old.check(tiny_model, eta=1.0)
    assert annotated_by(old.meta, {"id": "portraits-annotator", "sha256": "1" * 64})
    assert not annotated_by(old.meta, {"id": "portraits-judge", "sha256": "1" * 64})
    # Weaker: another configuration goes by unseen, other tensors and another eta do not.
    parts = tiny_model.identity.parts
    old.check(replace(tiny_model, identity=Identity(parts | {"network.config": "0" * 64})))
    with pytest.raises(InputError, match=r"model is network.tensors"):
        old.check(replace(tiny_model, identity=Identity(parts | {WEIGHTS: "0" * 64})))
    with pytest.raises(InputError, match=r"eta is 1 in the directions, 0 here; allow=eta"):
        old.check(tiny_model, eta=0.0)
    with pytest.raises(InputError, match=r"keys of format 1, wrong here: .*extra"):
        Directions.load(old_file(directions, tmp_path / "bad.safetensors", extra=1))
    # The new format writes what is known of them, and reads it again without a word.
    caplog.clear()
    old.save(tmp_path / "new.safetensors")
    assert Directions.load(tmp_path / "new.safetensors").meta == old.meta and not caplog.text


def test_x_T_directions_tokens_and_one_step_are_valid(
    directions: Directions, tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    x_T = Directions(torch.ones(K, 3, 16, 16), replace(directions.meta, space="x_T"), mean=torch.ones(3, 16, 16))
    tokens = Directions(torch.ones(K, 3, 7, 5), directions.meta, mean=torch.ones(3, 7, 5))
    vectors = Directions(torch.ones(K, 3, 5), directions.meta)
    one = load_model(str(tiny_pipeline_dir), num_steps=1, device="cpu").provenance(eta=1.0)
    one_step = Directions(
        directions.directions[:, :1].clone(),
        replace(directions.meta, provenance=one),
        correlation=torch.ones(K, 0),
    )
    for example in (x_T, tokens, vectors, one_step):
        example.save(tmp_path / "d.safetensors")
        assert torch.equal(Directions.load(tmp_path / "d.safetensors").directions, example.directions)
    assert x_T.norms().tolist() == pytest.approx([(3 * 16 * 16) ** 0.5] * K)
    assert tokens.norms().shape == (K, 3) and float(tokens.norms()[0, 0]) == pytest.approx(35**0.5)


def test_check_names_what_does_not_fit(
    directions: Directions, tiny_model: DiffusionModel, tiny_pipeline_dir: Path
) -> None:
    directions.check(tiny_model, eta=1.0)
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        (
            {"num_steps": 4},
            r"process is timesteps \[666, 333, 0\] in the directions, timesteps \[750, 500, 250, 0\] here",
        ),
        ({"num_steps": 3, "tap": "before"}, "tap is after in the directions, before here; allow=tap"),
        ({"num_steps": 3, "spacing": "trailing"}, "process is timesteps"),
    )
    for options, message in cases:
        with pytest.raises(InputError, match=message):
            directions.check(load_model(str(tiny_pipeline_dir), device="cpu", **options))
    parts = tiny_model.identity.parts
    other = replace(tiny_model, identity=Identity(parts | {"network.config": "0" * 64}))
    with pytest.raises(
        InputError, match=r"model is network.config [0-9a-f]{12} in the directions, network.config 0{12}"
    ):
        directions.check(other)
    smaller = replace(directions, directions=directions.directions[..., :2].clone(), mean=None)
    with pytest.raises(InputError, match=r"shape is \(3, 16, 8, 2\) in the directions, \(3, 16, 8, 8\) here"):
        smaller.check(tiny_model)


def test_an_allowed_difference_is_logged_and_recorded(
    directions: Directions, tiny_model: DiffusionModel, tiny_pipeline_dir: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    assert directions.fit(tiny_model, eta=1.0, allow=["eta"]) is directions
    with pytest.raises(InputError, match=r"allow must name some of model, process, .*, got 'steps'"):
        directions.fit(tiny_model, allow=["steps"])
    with caplog.at_level(logging.WARNING):
        fitted = directions.fit(tiny_model, eta=0.5, allow=["eta"])
    assert caplog.messages == ["eta is 1 in the directions, 0.5 here, as allowed"]
    assert fitted.meta.differences == ("eta is 1 in the directions, 0.5 here",)
    assert torch.equal(fitted.directions, directions.directions)
    fitted.check(tiny_model, eta=0.5)
    fitted.save(tmp_path / "d.safetensors")
    assert Directions.load(tmp_path / "d.safetensors").meta == fitted.meta
    # Of other steps none can be applied, whatever is allowed.
    longer = load_model(str(tiny_pipeline_dir), num_steps=4, device="cpu")
    with pytest.raises(InputError, match="shape is"):
        directions.fit(longer, eta=1.0, allow=["process", "eta"])


def test_directions_of_any_tensor(tiny_model: DiffusionModel) -> None:
    vectors = torch.randn(2, *tiny_model.h_shape)
    ours = Directions.of(tiny_model, vectors, names=["a", "b"], unit="std", method="my own", seeds=(3,), eta=0.5)
    assert ours.directions.shape == (2, 3, *tiny_model.h_shape)
    assert all(torch.equal(ours.directions[:, step], vectors) for step in range(3))
    assert (ours.meta.names, ours.meta.unit, ours.meta.method, ours.meta.seeds) == (("a", "b"), "std", "my own", (3,))
    ours.check(tiny_model, eta=0.5)
    assert Directions.of(tiny_model, vectors[:, None].repeat(1, 3, 1, 1, 1)).meta.names == (
        "direction 0",
        "direction 1",
    )
    assert Directions.of(tiny_model, torch.ones(1, 3, 16, 16), space="x_T").meta.space == "x_T"
    with pytest.raises(InputError, match="shape is"):
        Directions.of(tiny_model, torch.ones(1, 3, 4, 4, 4))
    with pytest.raises(InputError, match="for 1 names"):
        Directions.of(tiny_model, vectors, names=["a"])


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
    ("[1]", "must be a JSON object, got list"),
    ("[" * 100_000, "must be JSON"),
    ({"extra": 1}, "exactly the keys of format 2, wrong here: .*extra"),
    ({"format": 3}, "format must be 1 or 2, got 3"),
    ({"format": True}, "format must be 1 or 2"),
    ({"format": 1}, "exactly the keys of format 1"),
    ({"space": "z"}, "space must be h or x_T, got 'z'"),
    ({"space": ["h"]}, "space must be h or x_T"),
    ({"provenance": 1}, "provenance must be an object with a process"),
    ({"provenance.extra": 1}, "keys of a provenance, wrong here: .*extra"),
    ({"provenance.process.extra": 1}, "keys of a process, wrong here: .*extra"),
    ({"provenance.tap": "after"}, "tap must be names"),
    ({"provenance.process.prediction_type": None}, "prediction_type must be"),
    ({"provenance.process.timesteps": []}, "timesteps must be numbers >= 0, descending, at least one"),
    ({"provenance.process.timesteps": [0, 333, 666]}, "timesteps must be numbers >= 0, descending"),
    ({"provenance.process.timesteps": [2, True, 0]}, "timesteps must be numbers"),
    ({"provenance.process.timesteps": [3, 0]}, "levels must be one per step"),
    ({"provenance.process.levels": [[1.0]]}, "levels must be pairs of finite numbers"),
    ({"provenance.eta": [1.0]}, "eta must be one number per step"),
    ({"provenance.eta": [1.0, 1.0, 1.5]}, "eta must be numbers in"),
    ({"provenance.eta": [float("nan")] * 3}, "finite numbers"),
    ({"provenance.injection": "late"}, "injection must be symmetric or asyrp, or null"),
    ({"provenance.conditioning": {"words": "a"}}, "conditioning must be"),
    ({"provenance.annotator": {"id": "a"}}, "annotator must be an object of id and sha256"),
    ({"provenance.model": {}}, "model must be an object of SHA-256 sums, network.tensors among them"),
    ({"provenance.model": {"network.tensors": "0" * 63 + "g"}}, "model must be an object of SHA-256 sums"),
    ({"calibration": {"strength": float("inf")}}, "finite numbers"),
    ({"calibration": [1]}, "calibration must be a JSON object"),
    ({"effects": 1}, "effects must be a JSON object"),
    ({"settings": None}, "settings must be a JSON object"),
    ({"config_sha256": 7}, "config_sha256 must be"),
    ({"names": ["a"]}, r"directions must be \(1, 3, …\)"),
    ({"names": "ab"}, "names must be strings"),
    ({"names": ["a", "b\x1b[31m"]}, "names must be strings"),
    ({"differences": [1]}, "differences must be strings"),
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
        ({"directions": None}, "must hold the tensors 'directions'"),
        ({"weights": torch.ones(1)}, "at most correlation, explained_variance, mean"),
        ({"directions": torch.ones(2, 3, 16, 8, 8, dtype=torch.float16)}, "must be float32, got float16"),
        ({"directions": torch.full((2, 3, 16, 8, 8), torch.nan)}, "directions must be finite"),
        ({"directions": torch.ones(2, 4, 16, 8, 8)}, r"got \(2, 4, 16, 8, 8\)"),
        ({"directions": torch.ones(2, 3, 0, 8, 8)}, r"got \(2, 3, 0, 8, 8\)"),
        ({"mean": torch.ones(3, 16, 8, 7)}, r"mean must be \(3, 16, 8, 8\), got"),
        ({"explained_variance": torch.ones(3)}, r"explained_variance must be \(2,\) or \(2, 3\), got \(3,\)"),
        ({"correlation": torch.ones(2, 3)}, r"correlation must be \(2, 2\), got"),
        ({"range": torch.ones(2)}, r"range must be \(2, 2\), got"),
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
        with pytest.raises(InputError, match="not a readable safetensors file"):
            Directions.load(bad)


def test_a_failed_write_leaves_the_old_file(directions: Directions, tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    path.write_bytes(b"old")
    broken = replace(directions, meta=replace(directions.meta, calibration={"strength": float("nan")}))
    with pytest.raises(ValueError, match="not JSON compliant"):
        broken.save(path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["d.safetensors"]
