"""Draws the gallery of docs/gallery.md: one picture per method, on the embedded model, in outputs/gallery.

python scripts/making/gallery.py [picture ...]      # all, or those named; about twenty minutes of one CPU core
"""

import argparse
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.diffusion.inversion import ddim_inversion
from hspace.diffusion.recording import collect
from hspace.diffusion.sampler import Sampler
from hspace.diffusion.sampling import sample
from hspace.directions.annotations import Annotations, annotate
from hspace.directions.disentangle import disentangle
from hspace.directions.jacobian import jacobian
from hspace.directions.masks import make_mask
from hspace.directions.pca import pca
from hspace.directions.random import random
from hspace.directions.record import Directions
from hspace.directions.supervised import from_pairs, supervised
from hspace.edits.mixing import arithmetic, interpolate, swap
from hspace.edits.sums import Term, apply_offsets, edit, sequence_offsets
from hspace.evaluation.effects import edit_samples, evaluate
from hspace.metrics.names import name_edits, numbered
from hspace.output.figures import grid_figure, strip_figure
from hspace.runs.errors import guarded
from hspace.scorers.factory import load_identity, load_regions, load_scorer
from hspace.system.registry import unknown
from hspace.types import InputError
from hspace.worlds.portraits.faces import render, resample_scene, sample_factors

log = logging.getLogger("gallery")

ROOT = Path(__file__).parents[2]
OUTPUT, PUBLISHED = ROOT / "outputs" / "gallery", ROOT / "docs" / "images" / "gallery"
SHOWN = (2_000_000, 2_000_008)
"""Seeds of the samples that are edited; no direction was found on them."""
ANNOTATED, EXAMPLES, BATCH = 800, 80, 32


@cache
def model() -> DiffusionModel:
    """The embedded model at ten steps."""
    return load_model("portraits", num_steps=10)


@cache
def scores() -> Annotations:
    """The annotator's scores of the discovery samples."""
    return annotate(model(), range(ANNOTATED), load_scorer("portraits-annotator"), sampler=Sampler(batch_size=BATCH))


@cache
def components() -> Directions:
    """Eight principal components of 500 samples."""
    with tempfile.TemporaryDirectory() as folder:
        return pca(
            collect(model(), range(500), Path(folder) / "h.npy", sampler=Sampler(batch_size=BATCH)), model(), k=8
        )


@cache
def attribute(name: str) -> Directions:
    """The mean difference of an attribute."""
    return supervised(model(), scores(), name, k=EXAMPLES, batch_size=BATCH)


def strips(
    name: str, title: str, rows: Sequence[tuple[str, Directions, int]], strengths: Sequence[float],
    seed: int = SHOWN[0], eta: float = 1.0,
) -> None:  # fmt: skip
    """One sample along several directions, given as label, directions and component."""
    images = [
        edit(
            model(),
            model().latents([seed]),
            directions,
            component=j,
            strengths=strengths,
            sampler=Sampler(eta=eta, batch_size=BATCH),
        )[0]
        for _, directions, j in rows
    ]
    strip_figure(torch.stack(images), [label for label, *_ in rows], strengths, title, OUTPUT / f"{name}.png")


def draw_components() -> None:
    """Principal components, named by the annotator on calibration samples, beside random directions."""
    seeds = range(1_000_000, 1_000_048)
    edits = edit_samples(
        model(),
        components(),
        seeds,
        strengths=[-2.0, 2.0],
        reference_seeds=range(1_000_048, 1_000_128),
        sampler=Sampler(batch_size=BATCH),
    )
    read = evaluate(edits, load_scorer("portraits-annotator"), load_identity())
    labels = numbered(name_edits(read.odd_effects(slice(24)), read.odd_effects(slice(24, None))))
    rows = [(f"component {j}\n{label}", components(), j) for j, label in enumerate(labels)]
    strips("components", "Principal components, per step", rows, [-3.0, -1.5, 0.0, 1.5, 3.0])


def draw_random() -> None:
    """The control: random directions of the components' norms."""
    rows = [(f"random {j}", random(components(), seed=0), j) for j in range(3)]
    strips("random", "Random directions of the same norm", rows, [-3.0, -1.5, 0.0, 1.5, 3.0])


def draw_jacobian() -> None:
    """What changes the prediction of one sample most, at three steps."""
    latents, steps = model().latents([SHOWN[1]]), (2, 5, 8)
    found = jacobian(model(), latents, k=2, steps=steps)
    rows = [(name, found, j) for j, name in enumerate(found.meta.names)]
    strips("jacobian", "Top singular directions of one sample", rows, [-30.0, -15.0, 0.0, 15.0, 30.0], SHOWN[1])


def draw_regions() -> None:
    """What changes the prediction most in the eyes and in the mouth of one sample."""
    latents, size = model().latents([SHOWN[1]]), model().sample_shape[1:]
    image = sample(model(), latents).x_0
    rows = []
    for region in ("eyes", "mouth"):
        mask = make_mask(region, size, image=image, network=load_regions())
        found = jacobian(model(), latents, k=2, steps=[4], mask=mask)
        rows += [(f"{region}, {j + 1}", found, j) for j in range(2)]
    strips("regions", "Singular directions by region", rows, [-60.0, -30.0, 0.0, 30.0, 60.0], SHOWN[1])


def draw_attributes() -> None:
    """Mean differences of single attributes."""
    rows = [(name, attribute(name), 0) for name in ("yaw", "smile", "gender", "pitch", "glasses", "age", "hat")]
    strips("attributes", "Mean differences of annotated samples", rows, [-1.5, -0.75, 0.0, 0.75, 1.5])


def draw_disentangled() -> None:
    """Glasses, and glasses without age and gender."""
    apart = disentangle(attribute("glasses"), [attribute("age"), attribute("gender")], renormalise=True)
    rows = [("glasses", attribute("glasses"), 0), ("glasses\nwithout age, gender", apart, 0)]
    strips("disentangled", "Eq. 12: conditions projected off", rows, [-1.5, -0.75, 0.0, 0.75, 1.5], SHOWN[1])


def draw_sequence() -> None:
    """Four edits, one on top of the other."""
    edits = (("smile", 1.0), ("yaw", -1.0), ("age", 0.8), ("glasses", 1.2))
    terms = [Term(attribute(name), 0, strength) for name, strength in edits]
    offsets = sequence_offsets(model(), terms)
    offsets = torch.cat([torch.zeros_like(offsets[:1]), offsets])
    images = apply_offsets(model(), model().latents(SHOWN), offsets, sampler=Sampler(batch_size=BATCH))
    titles = ["unedited", *(f"+ {name}" for name, _ in edits)]
    grid_figure(images.flatten(0, 1), 5, OUTPUT / "sequence.png", titles * len(SHOWN))


def draw_swap() -> None:
    """Samples with the h of others."""
    ours, theirs = model().latents(range(2_000_000, 2_000_004)), model().latents(range(2_000_004, 2_000_008))
    rows = torch.stack([sample(model(), ours).x_0, sample(model(), theirs).x_0, swap(model(), ours, theirs)], dim=1)
    titles = ["sample", "donor of h", "swapped"] * 4
    grid_figure(rows.flatten(0, 1), 6, OUTPUT / "swap.png", titles)


def draw_arithmetic() -> None:
    """A smile added by the difference of one smiling and one other sample of the discovery seeds."""
    smile = scores().scores[:, scores().attributes.index("smile")]
    plus, minus = (model().latents([int(index)]) for index in (smile.argmax(), smile.argmin()))
    strengths = [0.0, 0.2, 0.4, 0.6]
    images = arithmetic(model(), model().latents(SHOWN), plus, minus, strengths=strengths)
    labels = [f"sample {seed}" for seed in SHOWN]
    strip_figure(images, labels, strengths, "Adding h(smiling) - h(other)", OUTPUT / "arithmetic.png")


def draw_interpolation() -> None:
    """Between two samples in h, in the noise, and in both."""
    first, second = (model().latents([seed]) for seed in SHOWN)
    weights = [0.0, 0.25, 0.5, 0.75, 1.0]
    spaces = ("h", "x_T", "both")
    images = [interpolate(model(), first, second, weights=weights, space=space) for space in spaces]
    labels = ["h", "x_T and z", "both"]
    strip_figure(torch.cat(images), labels, weights, "Between two samples", OUTPUT / "interpolation.png")


def draw_expressions() -> None:
    """A smile found on real images: pairs of renders of one person, inverted, applied to a generated sample."""
    generator = torch.Generator().manual_seed(60)
    people = sample_factors(generator, 100)
    scene = resample_scene(people, generator)
    frown, smile = (
        render(scene | {"smile": torch.full((100,), value)}, model().image_shape[-1]) for value in (-1.0, 1.0)
    )
    h = [ddim_inversion(model(), images, refine=0, record_h=True).h for images in (smile, frown)]
    plus, minus = (dict(zip(map(str, range(100)), _rows(trajectory), strict=True)) for trajectory in h)
    found = from_pairs(model(), plus, minus, name="smile", eta=0.0)
    title, strengths = "A smile from real pairs, inverted", [-8.0, -4.0, 0.0, 4.0, 8.0]
    strips("expressions", title, [("smile", found, 0)], strengths, eta=0.0)


def shrink(path: Path) -> None:
    """Half the size and 192 colours, for a light repository; a rare colour, such as that of one hat, keeps its own."""
    picture = Image.open(path).convert("RGB")
    picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS)
    picture.quantize(192, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)


def _rows(trajectory: Tensor | None) -> list[Tensor]:
    assert trajectory is not None
    return list(trajectory)


PICTURES: dict[str, Callable[[], None]] = {
    name.removeprefix("draw_"): value for name, value in list(globals().items()) if name.startswith("draw_")
}


def main() -> int:
    """Draws the pictures named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", metavar="picture", help=", ".join(PICTURES))
    parser.add_argument("--publish", action="store_true", help="copy the pictures to docs/images/gallery")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in options.pictures:
        if name not in PICTURES:
            raise InputError(unknown("picture", name, PICTURES))
    for name in options.pictures or PICTURES:
        log.info("drawing %s", name)
        PICTURES[name]()
        shrink(OUTPUT / f"{name}.png")
        if options.publish:
            shutil.copy(OUTPUT / f"{name}.png", PUBLISHED)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
