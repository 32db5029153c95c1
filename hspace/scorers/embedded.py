"""The scorers of the drawn worlds: annotator, judge, encoders and regions (scripts/making/train_scorers.py).

The annotator labels examples and names directions; the judge, trained apart on other images with another
architecture, grades edits. Weights lie in `weights/WORLD/ROLE/`, one safetensors and one JSON file each.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hspace.scorers.networks import ARCHITECTURES, PlainNet, ResidualNet, to_input_size, unit_norm
from hspace.system.files import package_path, write_atomic, write_json
from hspace.types import Images, InputError, Scores
from hspace.worlds.world import WORLDS


@dataclass(frozen=True)
class ScorerConfig:
    """The contents of a folder's config.json.

    Attributes:
        name: Role, `annotator`, `judge`, `identity`, `likeness` or `regions`.
        architecture: Key of `ARCHITECTURES`.
        size: Height and width that the network reads; other images are resized.
        attributes: Ids of the outputs' attributes or regions; empty for the identity encoder.
        binary: Whether each output is a probability.
        dim: Number of outputs.
        temperature: Divisor of each logit, fitted on held-out renders; 1 for continuous outputs.
        held_out: Figures measured on renders that no training saw.
    """

    name: str
    architecture: str
    size: int
    attributes: tuple[str, ...]
    binary: tuple[bool, ...]
    dim: int
    temperature: tuple[float, ...]
    held_out: dict[str, float]


class WorldScorer(nn.Module):
    """Attribute classifier of a drawn world: a probability per binary attribute, a value per continuous one."""

    def __init__(self, world: str, config: ScorerConfig, network: PlainNet | ResidualNet) -> None:
        super().__init__()
        self.world = world
        self.config = config
        self.id: str = f"{world}-{config.name}"
        self.attributes: tuple[str, ...] = config.attributes
        self.binary: tuple[bool, ...] = config.binary
        self.network = network
        self.register_buffer("temperature", torch.tensor(config.temperature))
        self.eval().requires_grad_(False)

    def forward(self, images: Images) -> Scores:
        """Scores of images in [-1, 1], (batch, attributes)."""
        logits = self.logits(images)
        return torch.where(torch.tensor(self.binary, device=logits.device), logits.sigmoid(), logits)

    def logits(self, images: Images) -> Scores:
        """Log-odds of binary attributes and the scores of the others, of images in [-1, 1]: (batch, attributes)."""
        logits = _read(self.network, images, self.config.size, self.network)
        return logits / self.get_buffer("temperature").to(logits.device)

    def visible(self, scores: Scores) -> Tensor:
        """Which attributes the images show, judged by the scores themselves: (batch, attributes) bool."""
        return WORLDS.get(self.world).visibility(dict(zip(self.attributes, scores.unbind(1), strict=True)))


class WorldFeatures(nn.Module):
    """The hidden layer of a scorer as a feature extractor, for FID and perceptual distances."""

    def __init__(self, scorer: WorldScorer) -> None:
        super().__init__()
        self.scorer = scorer
        self.id: str = f"{scorer.id}-features"
        self.dim: int = scorer.network.head.in_features

    def forward(self, images: Images) -> Tensor:
        """Features of images in [-1, 1], (batch, dim)."""
        network = self.scorer.network
        return _read(network.features, images, self.scorer.config.size, network)


class WorldIdentity(nn.Module):
    """Encoder of what stays: unit vectors whose cosine says whether two images show one person, or one room."""

    def __init__(self, world: str, config: ScorerConfig, network: nn.Module) -> None:
        super().__init__()
        self.world = world
        self.config = config
        self.id: str = f"{world}-{config.name}"
        self.dim: int = config.dim
        self.network = network
        self.eval().requires_grad_(False)

    def forward(self, images: Images) -> Tensor:
        """Unit-norm embeddings of images in [-1, 1], (batch, dim)."""
        return unit_norm(_read(self.network, images, self.config.size, self.network))


class WorldRegions(nn.Module):
    """Segmentation network of a drawn world, which finds the named regions of a generated image."""

    def __init__(self, world: str, config: ScorerConfig, network: nn.Module) -> None:
        super().__init__()
        self.world = world
        self.config = config
        self.id: str = f"{world}-{config.name}"
        self.regions: tuple[str, ...] = config.attributes
        self.network = network
        self.eval().requires_grad_(False)

    def forward(self, images: Images) -> dict[str, Tensor]:
        """By region: (batch, height, width) bool, of images in [-1, 1]."""
        logits = _read(self.network, images, self.config.size, self.network)
        masks = F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False) > 0
        return dict(zip(self.regions, masks.unbind(1), strict=True))


def _read(output: Callable[[Tensor], Tensor], images: Images, size: int, network: nn.Module) -> Tensor:
    """An output of a network, which may be on another device than the images; it comes to that of the images."""
    there = next(network.parameters()).device
    return output(to_input_size(images.to(there), size)).to(images.device)


def world_of(name: str) -> str | None:
    """The world that an embedded network reads, by the network's name; None of other networks.

    Examples:
        >>> world_of("rooms-judge"), world_of("faceapi")
        ('rooms', None)
    """
    world, _, role = name.partition("-")
    return world if role and world in WORLDS else None


def load_annotator(world: str) -> WorldScorer:
    """The embedded scorer of a world that names and chooses.

    Raises:
        InputError: If the package does not have its weights, as of every role.
    """
    return WorldScorer(world, *_load(world, "annotator"))


def load_judge(world: str) -> WorldScorer:
    """The embedded scorer of a world that grades."""
    return WorldScorer(world, *_load(world, "judge"))


def load_encoder(world: str, role: str) -> WorldIdentity:
    """An embedded encoder of a world, one of its `pairs`."""
    return WorldIdentity(world, *_load(world, role))


def load_regions(world: str) -> WorldRegions:
    """The embedded segmentation network of a world."""
    return WorldRegions(world, *_load(world, "regions"))


def save_scorer(folder: Path, config: ScorerConfig, network: nn.Module) -> None:
    """Writes a trained network as model.safetensors and config.json."""
    with write_atomic(folder / "model.safetensors") as temporary:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, temporary)
    write_json(folder / "config.json", vars(config))


def _load(world: str, role: str) -> tuple[ScorerConfig, Any]:
    folder = package_path("weights") / world / role
    if not (folder / "config.json").is_file():
        raise InputError(
            f"the weights of the embedded {world}-{role} are not installed; scripts/making/train_scorers.py "
            f"world={world} writes them"
        )
    fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tuples = {key: tuple(fields[key]) for key in ("attributes", "binary", "temperature")}
    config = ScorerConfig(**(fields | tuples))
    network = ARCHITECTURES[config.architecture](config.dim)
    network.load_state_dict(load_file(folder / "model.safetensors"))
    return config, network
