"""Trains the scorers of a drawn world and measures them on renders that no training saw.

python scripts/making/train_scorers.py [key=value ...]     # keys: conf/train/scorers.yaml
"""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from configuration import training_configuration
from omegaconf import DictConfig, OmegaConf
from pace import Pace, choices, fastest
from torch import Tensor, nn
from tqdm import trange
from training import training_device

from hspace.metrics.identity import true_accept_rate
from hspace.runs.errors import guarded
from hspace.scorers.embedded import ScorerConfig, save_scorer
from hspace.scorers.networks import ARCHITECTURES, unit_norm
from hspace.system.registry import unknown
from hspace.types import InputError
from hspace.worlds.artefacts import ARTEFACTS
from hspace.worlds.attributes import Attribute
from hspace.worlds.rendered import Rendered, chunks_to_paint, from_bytes, rendered, rendered_pairs, step_generator
from hspace.worlds.world import WORLDS, World

log = logging.getLogger("train_scorers")

Attributes = tuple[Attribute, ...]


def binary_of(attributes: Attributes) -> Tensor:
    """Which attributes are binary, (attributes,) bool."""
    return torch.tensor([attribute.kind == "binary" for attribute in attributes])


@dataclass(frozen=True)
class AttributeLoss:
    """Cross-entropy of the visible binary attributes plus squared error, in units of the spread, of the others.

    Attributes:
        binary: Which attributes are binary, (attributes,) bool.
        spread: About the standard deviation of each, (attributes,).
    """

    binary: Tensor
    spread: Tensor

    @classmethod
    def of(cls, attributes: Attributes, device: torch.device | str = "cpu") -> "AttributeLoss":
        """The loss of some attributes, in their order."""
        spread = torch.tensor([(attribute.high - attribute.low) / 3.5 for attribute in attributes])
        return cls(binary_of(attributes).to(device), spread.to(device))

    def __call__(self, output: Tensor, labels: Tensor, visible: Tensor) -> Tensor:
        """Of a batch of outputs, labels and visibility, each (batch, attributes)."""
        output = output.float()
        entropy = F.binary_cross_entropy_with_logits(output, labels, reduction="none")
        error = ((output - labels) / self.spread).square()
        return _mean_over(entropy, visible & self.binary) + _mean_over(error, visible & ~self.binary)


def _mean_over(loss: Tensor, counted: Tensor) -> Tensor:
    return (loss * counted).sum() / counted.sum()


def margin_loss(first: Tensor, second: Tensor, scale: float, margin: float) -> Tensor:
    """Additive-margin softmax over a batch of pairs: row i of `first` belongs to row i of `second` alone.

    Source: Wang et al. 2018 (arXiv 1801.05599), eq. 5, with the batch's other people in place of class centres.
    """
    cosine = unit_norm(first.float()) @ unit_norm(second.float()).T
    logits = scale * (cosine - margin * torch.eye(len(cosine), device=cosine.device))
    target = torch.arange(len(cosine), device=cosine.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def train(network: nn.Module, loss_of_step: Callable[[torch.Generator], Tensor], seed: int, cfg: DictConfig) -> None:
    """AdamW with a one-cycle learning rate.

    Seed and step choose the batch of a step and its faults, on one kind of device. The network is trained on the device
    of the configuration, and ends on the CPU.
    """
    device = training_device(cfg)
    network.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), cfg.learning_rate, weight_decay=cfg.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, cfg.learning_rate, cfg.steps, pct_start=0.1)
    network.train()

    def gradients(pace: Pace, step: int) -> Tensor:
        with pace.autocast(device.type):
            loss = loss_of_step(step_generator(seed, step, device))
        optimizer.zero_grad()
        loss.backward()
        return loss

    def timed(pace: Pace) -> None:
        gradients(pace, 0)

    pace = fastest(timed, choices(cfg.precision, cfg.threads))
    for step in trange(cfg.steps, disable=None):
        loss = gradients(pace, step)
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            log.info("step %d loss %.4f", step, loss.item())
    network.cpu().eval()


@torch.no_grad()
def outputs(network: nn.Module, images: Tensor) -> Tensor:
    """Network outputs of many images in [-1, 1], in chunks."""
    return torch.cat([network(chunk) for chunk in images.split(512)])


def fit_temperature(logits: Tensor, data: Rendered, binary: Tensor) -> Tensor:
    """Divisor of each binary logit that minimises the cross-entropy where the attribute is visible; else 1.

    A network is only cooled, never made surer than it is: where it makes no error, the cross-entropy falls for ever as
    the divisor goes to 0, which says nothing of how sure the network should be.

    Args:
        logits: Of held-out renders, (n, attributes).
        data: The renders, whose labels are exact.
        binary: Which attributes are binary, (attributes,) bool.

    Returns:
        (attributes,), between 1 and 10; 1 for continuous attributes.

    Source: Guo et al. 2017 (arXiv 1706.04599), temperature scaling.
    """
    grid = torch.logspace(0, 1, 101)
    losses = torch.stack([F.binary_cross_entropy_with_logits(logits / t, data.labels, reduction="none") for t in grid])
    seen = data.visible.to(losses)
    mean = (losses * seen).sum(1) / seen.sum(0)
    return torch.where(binary, grid[mean.argmin(0)], 1.0)


def held_out_figures(output: Tensor, data: Rendered, attributes: Attributes) -> dict[str, float]:
    """Accuracy of each binary attribute and R² of each continuous one where it is visible."""
    figures = {}
    for j, attribute in enumerate(attributes):
        seen = data.visible[:, j]
        predicted, true = output[seen, j], data.labels[seen, j]
        if attribute.kind == "binary":
            figures[f"accuracy/{attribute.id}"] = ((predicted > 0) == (true > 0.5)).float().mean().item()
        else:
            figures[f"r2/{attribute.id}"] = (1 - (predicted - true).square().mean() / true.var()).item()
    return figures


def train_attributes(name: str, cfg: DictConfig) -> None:
    """Trains and saves the annotator or the judge."""
    world = WORLDS.get(cfg.world)
    judged, binary = world.judged, binary_of(world.judged)
    data = rendered(world, cfg.train_images, cfg.size, cfg[name].seed, Path(cfg.data), correlated=False)
    data, loss = data.to(training_device(cfg)), AttributeLoss.of(judged, training_device(cfg))
    torch.manual_seed(cfg[name].seed)
    network, faults = ARCHITECTURES[cfg[name].architecture](len(judged)), ARTEFACTS[cfg[name].artefacts]

    def loss_of_step(generator: torch.Generator) -> Tensor:
        index = torch.randint(len(data.images), (cfg.batch_size,), generator=generator, device=generator.device)
        images = faults(data.batch(index), generator)
        return loss(network(images), data.labels[index], data.visible[index])

    train(network, loss_of_step, cfg[name].seed, cfg)
    held_out = rendered(world, cfg.held_out.images, cfg.size, cfg.held_out.seed, Path(cfg.data))
    clean = held_out.batch(torch.arange(len(held_out.images)))
    figures = held_out_figures(outputs(network, clean), held_out, judged)
    degraded = outputs(network, faults(clean, torch.Generator().manual_seed(cfg.held_out.seed)))
    temperature = fit_temperature(degraded, held_out, binary)
    ids = tuple(attribute.id for attribute in judged)
    config = ScorerConfig(
        name,
        cfg[name].architecture,
        cfg.size,
        ids,
        tuple(binary.tolist()),
        len(ids),
        tuple(temperature.tolist()),
        figures,
    )
    save_scorer(Path(cfg.output) / name, config, network)
    log.info("%s on held-out renders: %s", name, {key: round(value, 4) for key, value in figures.items()})


def with_own(cfg: DictConfig, name: str) -> DictConfig:
    """The configuration with a scorer's own numbers in the place of those of all."""
    own = {key: cfg[name][key] for key in ("train_images", "steps", "batch_size") if key in cfg[name]}
    return cast(DictConfig, OmegaConf.merge(cfg, own))


def train_identity(name: str, cfg: DictConfig) -> None:
    """Trains and saves an encoder of identity or likeness on pairs of images, see `World.pairs`."""
    world, settings, cfg = WORLDS.get(cfg.world), cfg[name], with_own(cfg, name)
    pairs = rendered_pairs(world, cfg.train_images // 2, cfg.size, settings.seed, name)
    first, second = (images.to(training_device(cfg)) for images in pairs)
    torch.manual_seed(settings.seed)
    network = ARCHITECTURES[settings.architecture](settings.dim)

    def embed(images: Tensor, generator: torch.Generator) -> Tensor:
        return network(ARTEFACTS[settings.artefacts](from_bytes(images), generator))

    def loss_of_step(generator: torch.Generator) -> Tensor:
        index = torch.randint(len(first), (cfg.batch_size,), generator=generator, device=generator.device)
        pair = embed(first[index], generator), embed(second[index], generator)
        return margin_loss(*pair, scale=settings.scale, margin=settings.margin)

    train(network, loss_of_step, settings.seed, cfg)
    held_out = rendered_pairs(world, cfg.held_out.images, cfg.size, cfg.held_out.seed, name)
    views = [unit_norm(outputs(network, from_bytes(view))) for view in held_out]
    figures = {"true_accept_rate": true_accept_rate(views[0], views[1])}
    config = ScorerConfig(name, settings.architecture, cfg.size, (), (), settings.dim, (), figures)
    save_scorer(Path(cfg.output) / name, config, network)
    log.info("%s on unseen pairs: %s", name, figures)


def masks_of_stream(world: World, n: int, size: int, seed: int) -> Tensor:
    """Exact region masks of the n pictures that `rendered` paints for a seed, (n, regions, size, size) bool."""
    assert world.region_masks is not None, "checked"
    masks, factors = world.region_masks, world.sample_factors(torch.Generator().manual_seed(seed), n)
    painted = (masks(chunk, size) for chunk in chunks_to_paint(factors))
    return torch.cat([torch.stack(list(each.values()), dim=1).cpu() for each in painted])


def intersection_over_union(found: Tensor, true: Tensor) -> Tensor:
    """Of each region over all pictures, (regions,), from masks, each (n, regions, height, width) bool."""
    overlap, union = (masks.sum(dim=(0, 2, 3)) for masks in (found & true, found | true))
    return overlap / union


def train_regions(cfg: DictConfig) -> None:
    """Trains and saves the segmentation network, and measures its intersection over union on held-out renders."""
    world, cfg = WORLDS.get(cfg.world), with_own(cfg, "regions")
    n = cfg.train_images
    device = training_device(cfg)
    data = rendered(world, n, cfg.size, cfg.regions.seed, Path(cfg.data)).to(device)
    masks = masks_of_stream(world, n, cfg.size, cfg.regions.seed).to(device)
    torch.manual_seed(cfg.regions.seed)
    network = ARCHITECTURES[cfg.regions.architecture](len(world.regions))

    def loss_of_step(generator: torch.Generator) -> Tensor:
        index = torch.randint(n, (cfg.batch_size,), generator=generator, device=generator.device)
        images = ARTEFACTS[cfg.regions.artefacts](data.batch(index), generator)
        return F.binary_cross_entropy_with_logits(network(images).float(), masks[index].float())

    train(network, loss_of_step, cfg.regions.seed, cfg)
    held_out = rendered(world, cfg.held_out.images, cfg.size, cfg.held_out.seed, Path(cfg.data))
    true = masks_of_stream(world, cfg.held_out.images, cfg.size, cfg.held_out.seed)
    found = outputs(network, held_out.batch(torch.arange(cfg.held_out.images))) > 0
    shares = intersection_over_union(found, true).tolist()
    figures = {f"iou/{region}": share for region, share in zip(world.regions, shares, strict=True)}
    config = ScorerConfig(
        "regions", cfg.regions.architecture, cfg.size, world.regions, (), len(world.regions), (), figures
    )
    save_scorer(Path(cfg.output) / "regions", config, network)
    log.info("regions on held-out renders: %s", figures)


TRAININGS: dict[str, Callable[[DictConfig], None]] = {
    "annotator": partial(train_attributes, "annotator"),
    "judge": partial(train_attributes, "judge"),
    "identity": partial(train_identity, "identity"),
    "likeness": partial(train_identity, "likeness"),
    "regions": train_regions,
}


def trainings(world: World) -> tuple[str, ...]:
    """Names of the scorers that a world can have."""
    attributes = ("annotator", "judge")
    return (*attributes, *world.pairs, *(["regions"] if world.regions else []))


def check(cfg: DictConfig) -> None:
    """Raises InputError if the configuration names what there is not."""
    choices(cfg.precision, cfg.threads)
    known = trainings(WORLDS.get(cfg.world))
    for name in cfg.scorers:
        if name not in known:
            raise InputError(unknown(f"scorer of {cfg.world}", name, known))
        for key, choosable in (("architecture", ARCHITECTURES), ("artefacts", ARTEFACTS)):
            if cfg[name][key] not in choosable:
                raise InputError(unknown(f"{name}.{key}", cfg[name][key], choosable))


def main(arguments: list[str]) -> int:
    """Trains the scorers named in the configuration, one after the other."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    cfg = training_configuration("scorers", arguments)
    check(cfg)
    for name in cfg.scorers:
        TRAININGS[name](cfg)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:]), __doc__))
