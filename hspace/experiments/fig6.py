"""Fig. 6: with a mask the Jacobian's directions change one region of the image."""

import numpy as np
import torch
from torch import Tensor

from hspace.diffusion.sampling import sample
from hspace.edits.sums import apply_offsets
from hspace.output.figures import strip_figure
from hspace.output.tables import Table, format_number
from hspace.runs.effects import as_configured
from hspace.runs.lab import Lab
from hspace.runs.report import Result
from hspace.types import InputError

REGIONS = ("eyes", "mouth", "hair")
DIRECTIONS = 2


def run(lab: Lab) -> Result:
    """Top directions of one sample for each region, also after projecting off what moves the rest of the image.

    The measure of locality is the region's share of the squared change of all pixels, over the region's share of the
    area; 1 is an edit that changes all regions alike.

    Raises:
        InputError: If the evaluation has no network that finds regions, or sample 0 shows none of them.
    """
    if lab.regions is None:
        raise InputError("fig6 needs a network that finds regions, and this evaluation has none")
    rows, strips, labels = [], [], []
    image = sample(lab.model, lab.model.latents([0]), sampler=lab.sampler).x_0.float().cpu()
    steps = (len(lab.model.process.timesteps) // 2,)
    found_regions = {name: mask[0] for name, mask in lab.regions(image).items() if name in REGIONS and mask.any()}
    if not found_regions:
        raise InputError(f"fig6 needs a sample that shows {' or '.join(REGIONS)}, and sample 0 shows none of them")
    for region, inside in found_regions.items():
        for outside in (None, "nullspace"):
            found = lab.discover(name="jacobian", k=DIRECTIONS, sample=0, steps=steps, mask=region, outside=outside)
            applied = as_configured(lab, found).directions
            for j in range(DIRECTIONS):
                edits = _edits(lab, applied[j])
                local, changed = _locality(image, edits, inside)
                label = f"{region} {j + 1}" + (", rest projected off" if outside else "")
                rows.append((label, local, changed))
                strips.append(_with_unedited(lab, image, edits))
                labels.append(label)
    caption = (
        "One sample. Locality: share of the squared change inside the region over its share of the area, mean over "
        "strengths; change inside: root mean square, of [-1, 1]."
    )
    table = Table(("direction", "locality", "change inside"), tuple(rows), caption)
    plain, projected = (
        float(np.mean([row[1] for row in rows if ("projected" in row[0]) == wanted])) for wanted in (False, True)
    )
    conclusion = (
        f"Edits of a region change its pixels {format_number(plain)} times as much as an edit that knows no region "
        f"would (mean of {len(rows) // 2} directions), and {format_number(projected)} times with what moves the rest "
        "projected off."
    )
    columns = sorted({0.0, *lab.strengths})
    picture = strip_figure(torch.stack(strips), labels, columns, "Directions by region", lab.figures / "regions.png")
    findings = {"locality": {row[0]: row[1] for row in rows}}
    return Result(
        conclusion, findings, {"One sample along its directions for each region": picture}, {"regions": table}
    )


def _edits(lab: Lab, vector: Tensor) -> Tensor:
    """The sample at every strength, (S, C, H, W)."""
    offsets = torch.stack([strength * vector for strength in lab.strengths])
    return apply_offsets(lab.model, lab.model.latents([0]), offsets, sampler=lab.sampler)[0]


def _locality(image: Tensor, edits: Tensor, inside: Tensor) -> tuple[float, float]:
    change = (edits - image).square().mean(1)
    share = (change * inside).sum((1, 2)) / change.sum((1, 2)) / inside.float().mean()
    return float(share.mean()), float(change[:, inside].mean().sqrt())


def _with_unedited(lab: Lab, image: Tensor, edits: Tensor) -> Tensor:
    images = {0.0: image[0]} | dict(zip(lab.strengths, edits, strict=True))
    return torch.stack([images[strength] for strength in sorted(images)])
