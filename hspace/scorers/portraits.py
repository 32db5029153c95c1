"""The scorers of the embedded portraits: annotator, judge, identity, likeness, regions (making/train_scorers.py).

The annotator labels examples and names directions; the judge, trained apart on other images with another
architecture, grades edits. Weights lie in `weights/portraits/<name>/`, one safetensors and one JSON file each.
"""

import json
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
from hspace.worlds.portraits.faces import visibility

SCORERS = ("portraits-annotator", "portraits-judge")


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


class PortraitScorer(nn.Module):
    """Attribute classifier of portraits: a probability per binary attribute, a value per continuous one."""

    def __init__(self, config: ScorerConfig, network: PlainNet | ResidualNet) -> None:
        super().__init__()
        self.config = config
        self.id: str = f"portraits-{config.name}"
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
        return self.network(to_input_size(images, self.config.size)) / self.temperature

    def visible(self, scores: Scores) -> Tensor:
        """Which attributes the images show, judged by the scores themselves: (batch, attributes) bool."""
        return visibility(dict(zip(self.attributes, scores.unbind(1), strict=True)))


class PortraitFeatures(nn.Module):
    """The hidden layer of a scorer as a feature extractor, for FID and perceptual distances."""

    def __init__(self, scorer: PortraitScorer) -> None:
        super().__init__()
        self.scorer = scorer
        self.id: str = f"{scorer.id}-features"
        self.dim: int = scorer.network.head.in_features

    def forward(self, images: Images) -> Tensor:
        """Features of images in [-1, 1], (batch, dim)."""
        return self.scorer.network.features(to_input_size(images, self.scorer.config.size))


class PortraitIdentity(nn.Module):
    """Identity encoder of portraits: unit vectors whose cosine says whether two images show one person."""

    def __init__(self, config: ScorerConfig, network: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.id: str = f"portraits-{config.name}"
        self.dim: int = config.dim
        self.network = network
        self.eval().requires_grad_(False)

    def forward(self, images: Images) -> Tensor:
        """Unit-norm embeddings of images in [-1, 1], (batch, dim)."""
        return unit_norm(self.network(to_input_size(images, self.config.size)))


class PortraitRegions(nn.Module):
    """Segmentation network of portraits, which finds the named regions of a generated image."""

    def __init__(self, config: ScorerConfig, network: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.id: str = f"portraits-{config.name}"
        self.regions: tuple[str, ...] = config.attributes
        self.network = network
        self.eval().requires_grad_(False)

    def forward(self, images: Images) -> dict[str, Tensor]:
        """By region: (batch, height, width) bool, of images in [-1, 1]."""
        logits = self.network(to_input_size(images, self.config.size))
        masks = F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False) > 0
        return dict(zip(self.regions, masks.unbind(1), strict=True))


def load_scorer(name: str) -> PortraitScorer:
    """An embedded scorer, ready to score.

    Args:
        name: Name, `portraits-annotator` or `portraits-judge`.

    Raises:
        InputError: If the scorer does not exist.
    """
    if name not in SCORERS:
        raise InputError(f"unknown scorer {name!r}; known: {', '.join(SCORERS)}")
    return PortraitScorer(*_load(name.removeprefix("portraits-")))


def annotator() -> PortraitScorer:
    """The embedded scorer of portraits that names and chooses."""
    return load_scorer("portraits-annotator")


def judge() -> PortraitScorer:
    """The embedded scorer of portraits that grades."""
    return load_scorer("portraits-judge")


def load_identity() -> PortraitIdentity:
    """The embedded identity encoder, which reads all that a person owns."""
    return PortraitIdentity(*_load("identity"))


def load_likeness() -> PortraitIdentity:
    """The embedded encoder of shape and features alone, which no judged attribute is."""
    return PortraitIdentity(*_load("likeness"))


def load_regions() -> PortraitRegions:
    """The embedded segmentation network."""
    return PortraitRegions(*_load("regions"))


def save_scorer(folder: Path, config: ScorerConfig, network: nn.Module) -> None:
    """Writes a trained network as model.safetensors and config.json."""
    with write_atomic(folder / "model.safetensors") as temporary:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, temporary)
    write_json(folder / "config.json", vars(config))


def _load(name: str) -> tuple[ScorerConfig, Any]:
    folder = package_path("weights") / "portraits" / name
    fields = json.loads((folder / "config.json").read_text())
    tuples = {key: tuple(fields[key]) for key in ("attributes", "binary", "temperature")}
    config = ScorerConfig(**(fields | tuples))
    network = ARCHITECTURES[config.architecture](config.dim)
    network.load_state_dict(load_file(folder / "model.safetensors"))
    return config, network
