"""How much the model card measures, and the one number that all of it counts in."""

from dataclasses import dataclass

from torch import Tensor

from hspace.diffusion.latents import seed_range

BLOCK = 2
"""Block of evaluation seeds that the card reads, which docs/results/readings.csv logs; everyday runs read block 0."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        generated: Generated pictures, and fresh renders that they are compared with.
        steps: Sampling steps, those of the edits.
        reference: Fresh renders that stand for the renderer.
        training_renders: Renders among which the nearest ones are sought; None is the whole training set.
        people: Unseen people, or rooms, two images each.
        discovery: Samples for PCA.
        components: Principal components.
        annotated: Samples among which examples are chosen.
        examples: Examples on each side of a boundary.
        calibration: Samples that names and strengths are chosen on.
        judged: Samples that the judge reads.
        swaps: Samples whose h is swapped for that of another.
        pairs: Pairs of renders that differ in one attribute.
        batch_size: Rows of one U-Net pass.
    """

    generated: int = 512
    steps: int = 10
    reference: int = 2048
    training_renders: int | None = None
    people: int = 512
    discovery: int = 300
    components: int = 10
    annotated: int = 400
    examples: int = 50
    calibration: int = 32
    judged: int = 64
    swaps: int = 256
    pairs: int = 16
    batch_size: int = 32


def evaluation_seeds(n: int) -> tuple[int, ...]:
    """Seeds of the first evaluation samples of the card's block."""
    return seed_range("evaluation", n, block=BLOCK)


def share(condition: Tensor) -> float:
    """Share of true values, in [0, 1]."""
    return float(condition.double().mean())
