"""Fig. 17: directions of expressions from real images: pairs of one person, inverted, applied to generated samples."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hspace.diffusion.inversion import ddim_inversion
from hspace.diffusion.photographs import find_images, load_images
from hspace.directions.record import Directions
from hspace.directions.supervised import from_pairs
from hspace.evaluation.readings import Sweep, score
from hspace.output.charts import effect_heatmap
from hspace.output.figures import grid_figure
from hspace.output.tables import Table, format_number, written
from hspace.runs.effects import as_configured, stated
from hspace.runs.keys import tensor_sha256
from hspace.runs.lab import Lab
from hspace.runs.report import Result
from hspace.system.shards import in_batches
from hspace.types import InputError, Scorer
from hspace.worlds.portraits.faces import render, resample_scene, sample_factors

PEOPLE, SHOWN = 60, 3
NEUTRAL = {"smile": 0.0, "mouth": 0.0, "eyes": 0.5, "brow": 0.0}
EXPRESSIONS = {
    "happiness": {"smile": 1.0, "mouth": 0.5},
    "sadness": {"smile": -1.0, "eyes": 0.2},
    "surprise": {"mouth": 1.0, "eyes": 1.0, "brow": 1.0},
    "anger": {"smile": -0.5, "brow": -1.0},
    "fear": {"smile": -0.5, "mouth": 0.6, "eyes": 1.0},
    "disgust": {"smile": -0.7, "eyes": 0.0, "brow": -0.6},
}
"""The six expressions as factors of a rendered face; other factors stay neutral."""
FACE = {"hat": 0.0, "glasses": 0.0, "yaw": 0.0, "pitch": 0.0}
"""The rest of the scene: nothing hides the face."""


def run(lab: Lab) -> Result:
    """Inverts neutral and expressive images of people at eta 0, and edits generated samples with the differences of h.

    The measure of transfer is the correlation, over the attributes that an expression is made of, of the effects on
    generated samples with the differences between the images themselves. The annotator chooses the strength by it, on
    calibration seeds; the judge reads the rest.

    Raises:
        InputError: If no strength or effect is above 0.
    """
    positive = [strength for strength in lab.strengths if strength > 0]
    if not positive:
        raise InputError("edit.strengths, or edit.effects, must hold a number above 0 for fig17")
    images = _rendered(lab) if lab.cfg.dataset.path is None else _photographs(lab, lab.cfg.dataset.path)
    h = {name: _inverted(lab, pictures) for name, pictures in images.items()}
    neutral = h.pop("neutral")
    found = {name: as_configured(lab, _direction(lab, name, h[name], neutral)) for name in h}
    vectors = {name: each.directions[0] for name, each in found.items()}
    tried = lab.sweep(vectors, positive, seeds=lab.seeds("calibration"), by=lab.annotator)
    sweep = lab.sweep(vectors)
    seen, agreement = _agreement(lab, tried, images, positive), _agreement(lab, sweep, images, positive)
    strength = max(positive, key=lambda each: float(np.median(seen[each])))
    effects = sweep.effects(strength)
    shown, columns = _attributes(lab.judge)
    differences = _differences(sweep, images)
    rows = []
    for j, name in enumerate(vectors):
        pairs = zip(effects.effect[j][columns], differences[j][columns], strict=True)
        cells = (f"{written(ours)} / {written(real)}" for ours, real in pairs)
        rows.append((name, *cells, agreement[strength][j], sweep.readings.identity(sweep.row(j, strength))))
    table = Table(
        ("expression", *shown, "correlation", "identity"), tuple(rows),
        f"Effect on generated samples at {stated(lab, strength)}, which the annotator chose / difference of the real "
        "images, in sd, by the judge.",
    )  # fmt: skip
    people, median = len(images["neutral"]), {each: float(np.median(found)) for each, found in agreement.items()}
    others = ", ".join(f"{format_number(value)} at {each:g}" for each, value in median.items() if each != strength)
    conclusion = (
        f"From {people} people: at {stated(lab, strength)} the effects of the {len(vectors)} expressions correlate "
        f"with the real differences by {format_number(min(agreement[strength]))} to "
        f"{format_number(max(agreement[strength]))}, median {format_number(median[strength])}"
        f"{f' ({others})' if others else ''}."
    )
    pictures = torch.stack([pictures[:SHOWN] for pictures in images.values()], dim=1).flatten(0, 1)
    titles = [*images] * (len(pictures) // len(images))
    figures = {
        "The real images: a row for each person": grid_figure(pictures, len(images), lab.figures / "real.png", titles),
        "One generated sample along each expression": sweep.strip(
            "Expressions of real images", lab.figures / "expressions.png"
        ),
        f"Effects at {stated(lab, strength)}": effect_heatmap(effects, lab.figures / "effects.png"),
    }
    findings = {
        "people": people,
        "strength": strength,
        "agreement": {f"{s:g}": each for s, each in agreement.items()},
    }
    findings["effects"] = effects.to_dict()
    return Result(conclusion, findings, figures, {"expressions": table}, {"scores": sweep.readings.table()})


def _agreement(
    lab: Lab, sweep: Sweep, images: Mapping[str, Tensor], strengths: Sequence[float]
) -> dict[float, list[float]]:
    """By strength: the correlation of every expression's effects with the differences of its images, by one scorer."""
    _, columns = _attributes(sweep.readings.scorer)
    if len(columns) < 3:
        return {strength: [float("nan")] * len(sweep.labels) for strength in strengths}
    effects = sweep.readings.effects().effect
    real = _differences(sweep, images)[:, columns]
    return {
        strength: [
            float(np.corrcoef(effects[row][columns], difference)[0, 1])
            for row, difference in zip(sweep.at(strength), real, strict=True)
        ]
        for strength in strengths
    }


def _attributes(scorer: Scorer) -> tuple[list[str], list[int]]:
    """The attributes that expressions are made of and the scorer reads, and the columns of its scores."""
    shown = [name for name in NEUTRAL if name in scorer.attributes]
    return shown, [scorer.attributes.index(name) for name in shown]


def _rendered(lab: Lab) -> dict[str, Tensor]:
    """Rendered people, neutral and with every expression, (people, 3, size, size) in [-1, 1]."""
    generator = torch.Generator().manual_seed(lab.cfg.seed)
    people = sample_factors(generator, PEOPLE)
    scene = resample_scene(people, generator)

    def face(**expression: float) -> Tensor:
        values = FACE | NEUTRAL | expression
        factors = scene | {name: torch.full((PEOPLE,), value) for name, value in values.items()}
        return render(factors, lab.model.image_shape[-1])

    return {"neutral": face()} | {name: face(**factors) for name, factors in EXPRESSIONS.items()}


def _photographs(lab: Lab, folder: Path) -> dict[str, Tensor]:
    """Photographs in folders named by expressions, `neutral` among them; files of one name show one person."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if "neutral" not in names or len(names) < 2:
        raise InputError(
            f"dataset.path must hold a folder 'neutral' and one for each expression, got {names} in {folder}"
        )
    files = {name: {path.stem: path for path in find_images(folder / name)} for name in names}
    people = sorted(set.intersection(*(set(found) for found in files.values())))
    if not people:
        raise InputError(f"dataset.path must hold files of the same names in all folders, got none in {folder}")
    size = lab.model.image_shape
    return {
        name: load_images([found[person] for person in people], (size[-2], size[-1])) for name, found in files.items()
    }


def _inverted(lab: Lab, images: Tensor) -> Tensor:
    """H along the inversion of every image, (n, steps, C, H, W)."""

    def invert(rows: range) -> Tensor:
        h = ddim_inversion(lab.model, images[rows.start : rows.stop], refine=0, record_h=True).h
        assert h is not None
        return h.float().cpu()

    def make(rows: range) -> Tensor:
        return in_batches(rows, lab.cfg.batch_size, invert)

    return lab.kept("invert", len(images), make, images=tensor_sha256(images))


def _direction(lab: Lab, name: str, expressive: Tensor, neutral: Tensor) -> Directions:
    plus, minus = (dict(zip(map(str, range(len(h))), h, strict=True)) for h in (expressive, neutral))
    return from_pairs(lab.model, plus, minus, name=name, eta=0.0)


def _differences(sweep: Sweep, images: Mapping[str, Tensor]) -> np.ndarray:
    """Mean differences of the images of every expression from the neutral ones, (expressions, attributes), in sd."""
    readings = sweep.readings
    mean = {name: score(readings.scorer, pictures).mean(0) for name, pictures in images.items()}
    differences = torch.stack([mean[name] - mean["neutral"] for name in sweep.labels])
    return (differences / readings.unit).numpy()
