"""One source, a photograph or a generated sample, edited at several strengths and put back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.latents import Latents
from hspace.diffusion.sampling import sample
from hspace.directions.operators import Operator
from hspace.directions.record import Directions
from hspace.edits.changes import Joined, Map, apply_changes
from hspace.edits.sums import apply_offsets, sum_offsets
from hspace.evaluation.manifold import HGaussian, distances, own_gaussian
from hspace.output.animation import Pixels, to_pixels
from hspace.output.tables import written
from hspace.runs.config import Config
from hspace.runs.discovery import recorded
from hspace.runs.readers import refusal
from hspace.scorers.factory import finder_of, load_regions
from hspace.studio.inverting import inversion
from hspace.studio.photos import Photo, Weights, central_frame, cut_out, open_photo, paste, weights_of
from hspace.studio.sliders import Bench, Slider
from hspace.types import Images, InputError

Region = str | Sequence[float] | None


@dataclass(frozen=True)
class Source:
    """A photograph or a generated sample that is edited.

    Attributes:
        name: Name for files and people.
        photo: Photograph, or the image of a generated sample in the same form.
        latents: Noise of the one sample.
        x_0: Image of the sample without an edit, (1, channel, height, width).
        error: Root mean square error of the inversion, in images of [-1, 1]; 0 for a generated sample.
        generated: Whether it is a sample of the model.
    """

    name: str
    photo: Photo
    latents: Latents
    x_0: Images
    error: float
    generated: bool


def photo_source(bench: Bench, path: Path, inversions: Path) -> Source:
    """The source of a photograph, which is inverted or read from an earlier inversion."""
    size = bench.model.image_shape[1], bench.model.image_shape[2]
    photo = open_photo(path, size, finder_of(bench.annotator, bench.identity))
    found = inversion(bench.model, photo, bench.cfg.diffusion.eta, inversions)
    return Source(path.stem, photo, found.latents, found.x_0, found.error, generated=False)


def sample_source(bench: Bench, seed: int) -> Source:
    """The source of a seed's generated sample."""
    latents = bench.model.latents([seed])
    x_0 = sample(bench.model, latents, sampler=bench.cfg.sampler).x_0.cpu()
    (pixels,) = to_pixels(x_0)
    size = pixels.shape[0], pixels.shape[1]
    photo = Photo(Path(f"seed-{seed}"), "", pixels, central_frame(size, size), x_0.float().expand(1, 3, -1, -1))
    return Source(f"seed-{seed}", photo, latents, x_0, 0.0, generated=True)


def region_weights(cfg: Config, source: Source, region: Region) -> Weights:
    """The share of an edit that each pixel takes; see `weights_of`.

    Raises:
        InputError: If a region is named and no configured network finds it in the model's images.
    """
    named = isinstance(region, str) and not region.lower().endswith(".png")
    if named and (why := refusal(cfg, "regions")):
        raise InputError(f"--keep-outside={region}: {why}")
    return weights_of(source.photo, region, load_regions(cfg.evaluation.regions) if named else None)


def edit_source(bench: Bench, source: Source, strengths: Sequence[float], factors: Sequence[float]) -> Images:
    """The source's edits, (factors, channel, height, width): all sliders of the bench together.

    Args:
        bench: Bench whose sliders are added up.
        source: Source to edit.
        strengths: Strengths, one per slider.
        factors: Factors of all strengths, one per edit; from 0 to 1 with an operator.
    """
    (change, space), sampler = change_of(bench, strengths), bench.cfg.sampler
    if not isinstance(change, Tensor):
        return apply_changes(bench.model, source.latents, [each * change for each in factors], sampler=sampler)[0]
    scale = torch.tensor(factors, dtype=change.dtype).reshape(-1, *(1,) * (change.ndim - 1))
    return apply_offsets(bench.model, source.latents, scale * change, space=space, sampler=sampler)[0]


def change_of(bench: Bench, strengths: Sequence[float]) -> tuple[Tensor | Map, str]:
    """The change that all sliders of the bench make together, and its space; see `change_by`."""
    return change_by(bench.model, list(zip(bench.sliders, strengths, strict=True)))


def change_by(
    model: DiffusionModel, used: Sequence[tuple[Slider, float]], start: int = 0, stop: int | None = None
) -> tuple[Tensor | Map, str]:
    """The change that sliders make together: offsets (1, …), or an operator, directions beside it being added to h.

    Args:
        model: Model that they belong to.
        used: Sliders with their strengths, at least one.
        start: First step at which directions are added.
        stop: First step at which they are not added any more; None adds them to the end.

    Returns:
        The change, and its space.

    Raises:
        InputError: If there are several operators, since their order would matter, or directions of x_T beside one; if
            its strength is not in [0, 1], or directions are of several spaces.
    """
    operators = [strength * slider.found for slider, strength in used if isinstance(slider.found, Operator)]
    terms = [slider.term(strength, start, stop) for slider, strength in used if isinstance(slider.found, Directions)]
    if not operators:
        return sum_offsets(model, terms), terms[0].directions.meta.space
    if len(operators) > 1:
        raise InputError(f"an edit takes one operator, got {', '.join(each.meta.names[0] for each in operators)}")
    if not terms:
        return operators[0], "h"
    if any(term.directions.meta.space != "h" for term in terms):
        raise InputError(f"{operators[0].meta.names[0]} is an operator of h, beside which x_T is not edited")
    return Joined(operators[0], sum_offsets(model, terms)[0]), "h"


def shown_factors(bench: Bench, strengths: Sequence[float], count: int) -> list[float]:
    """Factors of all strengths, from -1 to 1, at which pictures are made: `count` on either side of 0.

    The pictures of one slider whose range is measured are evenly apart; others have even factors. Those of an operator,
    which has no other side, go from 0 to 1, with those of directions beside it.

    Args:
        bench: Bench whose sliders are added up.
        strengths: Strengths, one per slider.
        count: Pictures on either side; 2 count + 1 factors are returned.
    """
    (measured, *others), (first, *_) = [slider.range for slider in bench.sliders], strengths

    def side(sign: int, count: int) -> list[float]:
        if measured is None or others:
            return [sign * (i + 1) / count for i in range(count)]
        return [strength / first for strength in measured.evenly(sign * first, count)]

    if any(isinstance(slider.found, Operator) for slider in bench.sliders):
        return [0.0, *side(1, 2 * count)]
    return [*reversed(side(-1, count)), 0.0, *side(1, count)]


def beyond_safe(bench: Bench, strengths: Sequence[float]) -> list[str]:
    """A line for every slider whose strength lies beyond its safe range: each is measured by itself."""
    lines = []
    for slider, strength in zip(bench.sliders, strengths, strict=True):
        found = slider.range
        because = None if found is None else found.beyond(strength)
        if found is not None and because is not None:
            ends = f"{written(found.low, '.3g')} to {written(found.high, '.3g')}"
            why = "no more was tried" if because == "untested" else f"beyond it {because} changes too much"
            lines.append(f"{slider.name} at {written(strength, 'g')} is outside its safe range, {ends}: {why}")
    return lines


def fit_own_samples(bench: Bench, samples: int) -> HGaussian:
    """The Gaussian of h over the model's own samples, which are recorded once and kept in the cache."""
    return own_gaussian(recorded(bench.cfg, bench.model, samples))


def distances_of(bench: Bench, source: Source, strengths: Sequence[float], gaussian: HGaussian) -> tuple[float, float]:
    """Distance of the source's h from the model's own samples, without and with the edit: mean over steps."""
    sampler = bench.cfg.sampler
    change, space = change_of(bench, strengths)
    before, after = distances(bench.model, source.latents, change, gaussian, space=space, sampler=sampler)
    return float(before.mean()), float(after.mean())


def pictures(source: Source, edited: Images, weights: Weights) -> list[Pixels]:
    """The edits, each put back into the photograph."""
    return [paste(source.photo, source.x_0, image[None], weights) for image in edited]


def inside(source: Source, edited: Images, weights: Weights) -> Images:
    """The edits as they show in the part that the model sees, with the weight of each pixel; the rest is unedited.

    Args:
        source: Source of the edits.
        edited: Edited images, (n, channel, height, width).
        weights: Weights of the whole photograph's pixels, from `region_weights`.

    Returns:
        Images of the same shape.
    """
    grey = np.repeat((255 * weights).round().astype(np.uint8)[..., None], 3, axis=2)
    height, width = edited.shape[-2:]
    share = (cut_out(grey, source.photo.frame, (height, width))[:, :1] + 1) / 2
    original = source.x_0.float()
    return original + share.to(original) * (edited.float() - original)


def largest_outside(source: Source, picture: Pixels, weights: Weights) -> int:
    """The largest change of a pixel at which the edit has no weight, of 255; 0 without such a pixel."""
    change = np.abs(picture.astype(int) - source.photo.pixels.astype(int))
    return int(change[weights == 0].max(initial=0))


def same_person(bench: Bench, source: Source, edited: Images) -> float | None:
    """Cosine of the identity embeddings of the unedited and the edited image; None without an identity encoder."""
    if bench.identity is None:
        return None
    first, second = (bench.identity(image.float().cpu()) for image in (source.x_0, edited))
    return float((first * second).sum())


def changes(bench: Bench, source: Source, edited: Images) -> dict[str, float]:
    """Change of every visible attribute's score, by attribute, in the scores' own units."""
    if bench.annotator is None:
        return {}
    before, after = (bench.annotator(image.float().cpu()) for image in (source.x_0, edited))
    seen: Tensor = bench.annotator.visible(before) & bench.annotator.visible(after)
    columns = zip(bench.annotator.attributes, (after - before)[0].tolist(), seen[0].tolist(), strict=True)
    return {name: change for name, change, visible in columns if visible}
