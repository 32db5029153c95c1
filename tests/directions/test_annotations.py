"""Samples are scored as they are generated, and examples are chosen by score, visibility and likeness."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.identity import WEIGHTS, Identity
from hspace.diffusion.inversion import edit_friendly_inversion
from hspace.diffusion.provenance import ProcessFacts, Provenance
from hspace.diffusion.recording import collect
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.annotations import Annotations, annotate, extremes
from hspace.directions.random import random
from hspace.directions.record import Directions
from hspace.directions.supervised import from_pairs
from hspace.evaluation.effects import edit_samples
from hspace.types import InputError


class ColorScorer:
    """Reads colours off images: `red` is the chance that there is more red than blue, `light` the mean."""

    id = "colors"
    attributes: tuple[str, ...] = ("red", "light", "contrast")
    binary: tuple[bool, ...] = (True, False, False)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        red, _, blue = images.mean(dim=(2, 3)).unbind(1)
        return torch.stack([(5 * (red - blue)).sigmoid(), images.mean(dim=(1, 2, 3)), images.std(dim=(1, 2, 3))], 1)

    def visible(self, scores: torch.Tensor) -> torch.Tensor:
        return torch.stack([scores[:, 1] > -0.5, *torch.ones_like(scores[:, 1:], dtype=torch.bool).unbind(1)], 1)


@pytest.fixture(scope="module")
def annotations() -> Annotations:
    """Forty samples: `hat` goes with `gender`, `yaw` with `age`; the last five hide everything but `gender`."""
    generator = torch.Generator().manual_seed(0)
    gender = (torch.rand(40, generator=generator) < 0.5).float()
    hat = torch.where(torch.rand(40, generator=generator) < 0.7, gender, 1 - gender)
    age = torch.rand(40, generator=generator)
    yaw = age + 0.3 * torch.rand(40, generator=generator)
    noise = 0.4 * torch.rand(2, 40, generator=generator)
    scores = torch.stack([(gender - noise[0]).abs(), (hat - noise[1]).abs(), age, yaw], dim=1)
    visible = torch.ones(40, 4, dtype=torch.bool)
    visible[35:, 1:] = False
    names = ("gender", "hat", "age", "yaw")
    annotator = {"id": "t", "sha256": "0" * 64}
    process = ProcessFacts((2, 1), (), "epsilon")
    origin = Provenance({WEIGHTS: "0" * 64}, process, eta=(1.0, 1.0), annotator=annotator)
    return Annotations(tuple(range(100, 140)), names, (True, True, False, False), scores, visible, origin)


def scores_of(annotations: Annotations, seeds: tuple[int, ...], attribute: str) -> torch.Tensor:
    return annotations.scores[[seed - 100 for seed in seeds], annotations.column(attribute)]


def test_samples_are_scored_as_generated(tiny_model: DiffusionModel) -> None:
    seeds = (3, 9, 1, 4, 7)
    ours = annotate(tiny_model, seeds, ColorScorer(), sampler=Sampler(eta=0.5, batch_size=2))
    expected = ColorScorer()(sample(tiny_model, tiny_model.latents(seeds), sampler=Sampler(eta=0.5)).x_0)
    assert (ours.scores - expected).abs().max() < 1e-4
    assert torch.equal(ours.visible, ColorScorer().visible(ours.scores)) and ours.logits is None
    assert (ours.seeds, ours.eta, ours.provenance.process.timesteps) == (
        seeds,
        (0.5, 0.5, 0.5),
        tiny_model.process.timesteps,
    )
    ours.check(tiny_model)
    with pytest.raises(InputError, match=r"the annotations do not fit: model is"):
        ours.check(replace(tiny_model, identity=Identity({WEIGHTS: "f" * 64})))


def test_whatever_takes_seeds_takes_those_of_numpy(tiny_model: DiffusionModel, tmp_path: Path) -> None:
    """And keeps Python's own, which files hold."""
    plain, seeds = (3, 9, 1), tuple(np.array([3, 9, 1]))
    images = sample(tiny_model, tiny_model.latents(plain)).x_0
    recorded = collect(tiny_model, seeds, tmp_path / "h.npy")
    annotate(tiny_model, seeds, ColorScorer()).save(tmp_path / "scores.safetensors")
    vector, h = torch.ones(1, *tiny_model.h_shape), torch.ones(3, *tiny_model.h_shape)
    control = random(Directions.of(tiny_model, vector, seeds=seeds), seed=np.int64(4))
    control.save(tmp_path / "random.safetensors")
    found = (
        recorded.seeds,
        Annotations.load(tmp_path / "scores.safetensors").seeds,
        Directions.of(tiny_model, vector, seeds=seeds).meta.seeds,
        from_pairs(tiny_model, {"a": h}, {"a": -h}, name="x", eta=0.0, seeds=seeds).meta.seeds,
        edit_friendly_inversion(tiny_model, images, seeds=seeds).latents.seeds,
        edit_samples(tiny_model, control, seeds, strengths=[1.0], reference_seeds=tuple(np.array([5]))).seeds,
    )
    assert found == (plain,) * len(found)
    assert {type(seed) for each in found for seed in each} == {int}
    assert control.meta.names == ("random 0, seed 4",)


def test_file_holds_everything(annotations: Annotations, tmp_path: Path) -> None:
    annotations = replace(annotations, logits=annotations.scores * 3)
    annotations.save(tmp_path / "scores.safetensors")
    loaded = Annotations.load(tmp_path / "scores.safetensors")
    for name, value in vars(annotations).items():
        same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
        assert same(getattr(loaded, name), value), name


def test_files_that_are_no_annotations(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no tensors")
    for name, fault in (("text", "is not a readable safetensors file"), ("nothing", "annotations file not found")):
        with pytest.raises(InputError, match=fault):
            Annotations.load(tmp_path / name)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"seeds": [0, -1]}, "seeds must be integers >= 0"),
        ({"binary": ["yes"]}, "binary must be booleans"),
        ({"attributes": 3}, "attributes must be names"),
        ({"provenance": None}, "provenance must be an object"),
        ({"extra": 1}, "exactly the keys of annotations, wrong here: .*extra"),
        ({"seeds": [1, 2]}, "scores and visible must be"),
    ],
)
def test_a_strangers_annotations_are_one_clear_line(
    annotations: Annotations, tmp_path: Path, changes: dict[str, Any], fault: str
) -> None:
    path = tmp_path / "scores.safetensors"
    annotations.save(path)
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["hspace"])
    save_file(load_file(path), path, metadata={"hspace": json.dumps(facts | changes)})
    with pytest.raises(InputError, match=fault) as error:
        Annotations.load(path)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("attribute", ["hat", "yaw"])
def test_extremes_are_the_highest_and_lowest_that_show_it(annotations: Annotations, attribute: str) -> None:
    examples = extremes(annotations, attribute, 6)
    ranked = annotations.scores[:35, annotations.column(attribute)].sort().values
    assert torch.equal(scores_of(annotations, examples.plus, attribute).sort().values, ranked[-6:])
    assert torch.equal(scores_of(annotations, examples.minus, attribute).sort().values, ranked[:6])
    assert max(*examples.plus, *examples.minus) < 135


@pytest.fixture(scope="module")
def confounded(annotations: Annotations) -> Annotations:
    """Gaussian scores: a hat, and how far a head is turned, go with gender and age; 600 samples."""
    generator = torch.Generator().manual_seed(1)
    age, man, noise, other = torch.randn(4, 600, generator=generator)
    gender = (man > 0).float()
    hat = ((gender - 0.5) + 0.5 * age + noise > 0).float()
    yaw = (gender - 0.5) + 0.5 * age + other
    return replace(
        annotations, seeds=tuple(range(600)), scores=torch.stack([gender, hat, age, yaw], dim=1),
        visible=torch.ones(600, 4, dtype=torch.bool), logits=None,
    )  # fmt: skip


@pytest.mark.parametrize("attribute", ["hat", "yaw"])
def test_matched_sides_are_alike_and_their_plain_ones_are_not(confounded: Annotations, attribute: str) -> None:
    generator = torch.Generator().manual_seed(2)
    own, of_gender, of_age = torch.eye(3)
    scores = confounded.scores
    column = scores[:, confounded.column(attribute)]
    h = column[:, None] * own + scores[:, :1] * of_gender + scores[:, 2:3] * of_age
    h = h + 0.1 * torch.randn(600, 3, generator=generator)
    plain, matched = (
        (h[list(found.plus)] - h[list(found.minus)]).mean(0)
        for found in (extremes(confounded, attribute, 60, match=match) for match in ((), ("gender", "age")))
    )
    # The difference of h is the attribute's own effect only where gender and age are alike.
    assert min(plain[1:] / plain[0]) > 0.1, (plain, matched)
    assert max(abs(matched[1:])) < min(plain[1:]) / 2 and matched[0] > 0.5 * plain[0], (plain, matched)


def test_a_pair_has_no_sample_of_another_pair(confounded: Annotations) -> None:
    examples = extremes(confounded, "yaw", 60, match=["gender", "age"])
    assert len({*examples.plus, *examples.minus}) == 120
    assert examples == extremes(confounded, "yaw", 60, match=["gender", "age"])


def test_examples_are_ranked_by_logits_where_probabilities_saturate(annotations: Annotations) -> None:
    logits = torch.randn(40, 4, generator=torch.Generator().manual_seed(2)) * 40
    logits[:, 2:] = annotations.scores[:, 2:]
    saturated = replace(annotations, scores=torch.where(logits > 0, 1.0, 0.0), logits=logits)
    examples = extremes(saturated, "hat", 4)
    ranked = logits[:35, 1].argsort()
    assert [seed - 100 for seed in examples.plus] == ranked.flip(0)[:4].tolist()
    assert sorted(seed - 100 for seed in examples.minus) == sorted(ranked[:4].tolist())


def test_equal_scores_are_not_in_the_order_of_seeds(annotations: Annotations) -> None:
    many = replace(
        annotations, seeds=tuple(range(100, 500)), scores=torch.arange(400.0).remainder(2)[:, None].expand(400, 4),
        visible=torch.ones(400, 4, dtype=torch.bool),
    )  # fmt: skip
    examples = extremes(many, "hat", 50)
    for side in (examples.plus, examples.minus):
        assert abs(sum(side) / 50 - 300) < 4 * 400 / 12**0.5 / 50**0.5 and list(side) != sorted(side)


def test_equal_scores_never_put_a_sample_on_both_sides(annotations: Annotations) -> None:
    rounded = replace(annotations, scores=annotations.scores.round())
    examples = extremes(rounded, "hat", 12)
    assert len({*examples.plus, *examples.minus}) == 24
    assert examples == extremes(rounded, "hat", 12)


@pytest.mark.parametrize(
    ("attribute", "k", "match", "message"),
    [
        ("smile", 2, (), "unknown attribute 'smile', t scores gender, hat, age, yaw"),
        ("hat", 2, ("age", "smile"), "unknown attribute 'smile'"),
        ("hat", 0, (), "got 0"),
        (
            "hat",
            17,
            ("gender", "age"),
            r"17 pairs with and without hat .* alike in gender, age, and \d+",
        ),
        ("yaw", 18, (), "18 examples on each side need 36 samples, 35 show yaw"),
        ("hat", 17, (), r"17 examples on each side do not differ in hat: \d+ of 35 samples are above 0.5"),
    ],
)
def test_bad_choices(annotations: Annotations, attribute: str, k: int, match: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        extremes(annotations, attribute, k, match=match)


def test_a_constant_attribute_has_no_extremes(annotations: Annotations) -> None:
    constant = replace(annotations, scores=torch.zeros(40, 4))
    with pytest.raises(InputError, match="2 examples on each side do not differ in yaw: 0 of 35 samples are above 0"):
        extremes(constant, "yaw", 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (100,) * 40}, "seeds must differ, got 40 seeds of which 1 differ"),
        ({"seeds": (1, 2)}, r"scores and visible must be \(2, 4\)"),
        ({"scores": torch.full((40, 4), torch.nan)}, "scores must be finite"),
    ],
)
def test_broken_annotations(annotations: Annotations, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(annotations, **changes)
