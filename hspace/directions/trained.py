# pyright: strict, reportUnknownMemberType=false
"""Trained offsets of h: one per step, by the gradient of a scorer on the predicted image (Asyrp)."""

from dataclasses import replace

import torch

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.sampler import Sampler
from hspace.directions.aims import Objective, score_aim
from hspace.directions.annotations import Annotations
from hspace.directions.examples import difference_meta
from hspace.directions.method import Sources, method
from hspace.directions.record import Directions
from hspace.directions.training import Delta, TrainingSettings, train
from hspace.types import Scorer


class TrainedSettings(TrainingSettings):
    """Settings of `method=trained`."""


@method("trained", settings=TrainedSettings, reads=("annotations",))
def find(model: DiffusionModel, sources: Sources, settings: TrainedSettings) -> Directions:
    """One offset of h per step, trained by the annotator's gradient on the predicted image.

    Source: Kwon et al. 2023 (arXiv 2210.10960), sec. 3.3, with vectors in place of a network, and any scorer's loss.
    """
    scorer = sources.annotator()
    settings.check_annotator(model, scorer)
    annotations = sources.annotations(settings.num_samples)
    return trained(
        model, scorer, annotations, settings.attribute, aim=settings.objective(scorer, annotations),
        updates=settings.updates, rate=settings.rate, batch=settings.batch, sampler=sources.sampler,
    )  # fmt: skip


def trained(
    model: DiffusionModel,
    scorer: Scorer,
    annotations: Annotations,
    attribute: str,
    *,
    aim: Objective | None = None,
    updates: int = 60,
    rate: float = 0.02,
    batch: int = 8,
    sampler: Sampler = Sampler(),
) -> Directions:
    """One offset of h per step under which the scorer sees an attribute rise in the predicted image P_t.

    At every step of an edited trajectory, P_t is compared with that of the same sample's unedited trajectory. The
    gradient of a step passes through its own decoder alone, as published: the network up to the tap, and earlier steps,
    count as given.

    Args:
        model: The model of the annotations.
        scorer: The annotator, which must give gradients; judge the result with another one.
        annotations: Its scores of the samples to train on.
        attribute: Attribute that is to rise.
        aim: What is trained for, see `aims.score_aim` and `aims.text_aim`; None lets the score rise by one
            standard deviation and holds all others.
        updates: Updates by Adam, whose rate falls to 0 in equal steps; each goes through a batch of trajectories.
        rate: Adam's first rate, in standard deviations of h.
        batch: Samples of an update.
        sampler: Settings whose eta, injection and batch size are taken; all steps are edited.

    Returns:
        One direction of unit "target". Its report holds what the annotator sees at strength 1 in the final images of
        samples that were not trained on: `effects` by attribute in standard deviations, with intervals. The measure
        `gap` shows how far the scorer that trained and the judge differ.

    Raises:
        InputError: If the annotations are of another model or fewer than 20, an attribute is unknown or does not vary,
            or no gradient passes through the scorer.

    Source: Kwon et al. 2023 (arXiv 2210.10960), sec. 3.3 and eq. 9. Ours: a vector per step in place of a network
    (`trained_network` has one); a scorer with a target, and a penalty on other attributes, beside CLIP's direction;
    rates that fall.
    """
    found = train(
        "trained", model, scorer, annotations,
        score_aim(scorer, annotations, attribute) if aim is None else aim,
        lambda mean, scale: (torch.zeros(mean.shape), offsets(scale)),
        updates=updates, rate=rate, batch=batch, sampler=sampler,
    )  # fmt: skip
    how, eta = f"trained by {annotations.scorer}", model.process.etas(sampler.eta)
    meta = difference_meta(model, "h", eta, how, attribute, annotations.seeds, annotations.provenance.annotator)
    meta = replace(meta, provenance=replace(meta.provenance, injection=sampler.injection))
    offset = found.scale * found.parameters
    return Directions(offset[None], replace(meta, unit="target", report=found.report))


def offsets(scale: float) -> Delta:
    """The change of h by `scale` times a vector of each step, parameters (steps, *h_shape), whatever h is."""
    return lambda parameters, step, h: scale * parameters[step][None]
