"""How much the model card measures, and the one number that all of it counts in."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        generated: Generated portraits, and fresh renders that they are compared with.
        steps: Sampling steps, those of the edits.
        reference: Fresh renders that stand for the renderer.
        training_renders: Renders of the training set that the nearest ones are sought in.
        people: Unseen people, two images each.
        discovery: Samples for PCA.
        components: Principal components.
        annotated: Samples among which examples are chosen.
        examples: Examples on each side of a boundary.
        calibration: Samples that names and strengths are chosen on.
        judged: Samples that the judge reads.
        pairs: Pairs of renders that differ in one attribute.
        batch_size: Rows of one U-Net pass.
    """

    generated: int = 2048
    steps: int = 10
    reference: int = 8192
    training_renders: int = 65_536
    people: int = 2048
    discovery: int = 500
    components: int = 10
    annotated: int = 1000
    examples: int = 100
    calibration: int = 48
    judged: int = 200
    pairs: int = 32
    batch_size: int = 32


def share(condition: Tensor) -> float:
    """Share of true values, in [0, 1]."""
    return float(condition.double().mean())
