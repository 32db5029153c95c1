"""Classifiers, feature extractors and face parsers of the Hugging Face hub, or of folders in its format."""

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hspace.scorers.networks import log_odds, unit_norm
from hspace.scorers.pretrained import Preprocessing, Pretrained, read_pretrained
from hspace.types import Images, InputError, Scores

CELEBA = {
    "smiling": ("smile", False),
    "eyeglasses": ("glasses", False),
    "wearing_hat": ("hat", False),
    "male": ("gender", False),
    "young": ("age", True),
    "no_beard": ("beard", True),
    "mouth_slightly_open": ("mouth", False),
}
"""Ids of this package by label of CelebA (Liu et al. 2015), and whether the label means the opposite of the id."""

PARTS = {
    "mouth": {"mouth", "u_lip", "l_lip"},
    "eyes": {"l_eye", "r_eye"},
    "brows": {"l_brow", "r_brow"},
    "ears": {"l_ear", "r_ear"},
    "glasses": {"eye_g"},
}
"""Regions that consist of several labels of CelebAMask-HQ (Lee et al. 2020)."""


class HubScorer(Pretrained):
    """An image classifier as a scorer: one probability in [0, 1] per label, whatever else is in the image.

    Labels of several yes or no questions are each a sigmoid; those of one question share a softmax; a regression is a
    value in the model's own unit. Labels of CelebA get the ids of `CELEBA`, so that scorers of different origin agree.

    Raises:
        InputError: If two labels have the same name.
    """

    def __init__(self, model: str, network: Any, preprocessing: Preprocessing) -> None:
        super().__init__("hub", model, network, preprocessing)
        self.problem: str = network.config.problem_type or "single_label_classification"
        labels = [word(network.config.id2label[i]) for i in range(network.config.num_labels)]
        named = [CELEBA.get(label.lower(), (label, False)) for label in labels]
        self.attributes: tuple[str, ...] = tuple(name for name, _ in named)
        if len(set(self.attributes)) < len(named):
            raise InputError(f"{model} must have different labels, got {', '.join(labels)}")
        self.binary: tuple[bool, ...] = (self.problem != "regression",) * len(named)
        self.register_buffer("opposite", torch.tensor([opposite for _, opposite in named]), persistent=False)

    def forward(self, images: Images) -> Scores:
        """Scores of images in [-1, 1], (batch, attributes), on the images' device."""
        logits = self.logits(images)
        return logits if self.problem == "regression" else logits.sigmoid()

    def logits(self, images: Images) -> Scores:
        """Log-odds of each label, (batch, attributes); of a regression its values."""
        logits = self.network(self.pixels(images)).logits
        if self.problem == "regression":
            return logits.to(images.device)
        if self.problem == "single_label_classification":
            logits = log_odds(logits)
        return torch.where(self.get_buffer("opposite"), -logits, logits).to(images.device)

    def visible(self, scores: Scores) -> Tensor:
        """Everything, since these classifiers do not say what an image hides."""
        return torch.ones_like(scores, dtype=torch.bool)


class HubFeatures(Pretrained):
    """A vision backbone as an identity encoder: unit vectors whose cosine says how alike two images are.

    The vector is the pooled output, or the class token where there is none. A network that was not trained to tell
    faces apart also sees clothes, pose and light: its cosine is likeness of the image more than of the person.
    """

    def __init__(self, model: str, network: Any, preprocessing: Preprocessing) -> None:
        super().__init__("hub", model, network, preprocessing)
        self.dim: int = network.config.hidden_size

    @torch.no_grad()
    def forward(self, images: Images) -> Tensor:
        """Unit-norm features of images in [-1, 1], (batch, dim), on the images' device."""
        outputs = self.network(self.pixels(images))
        pooled = getattr(outputs, "pooler_output", None)
        return unit_norm(outputs.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)).to(images.device)


class HubRegions(Pretrained):
    """A semantic segmentation network, such as a SegFormer that parses faces, as a finder of regions."""

    def __init__(self, model: str, network: Any, preprocessing: Preprocessing) -> None:
        super().__init__("hub", model, network, preprocessing)
        labels = [word(network.config.id2label[i]) for i in range(network.config.num_labels)]
        parts = {part: names & set(labels) for part, names in PARTS.items()}
        named = {label: {label} for label in labels} | {part: names for part, names in parts.items() if names}
        # Index of the labels that make up each region.
        self.members: dict[str, list[int]] = {
            name: [labels.index(each) for each in sorted(names)] for name, names in named.items()
        }
        self.regions: tuple[str, ...] = tuple(named)

    @torch.no_grad()
    def forward(self, images: Images) -> dict[str, Tensor]:
        """By region: (batch, height, width) bool, of images in [-1, 1], on the images' device."""
        logits = self.network(self.pixels(images)).logits
        classes = F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False).argmax(dim=1)
        classes = classes.to(images.device)
        return {name: torch.isin(classes, classes.new_tensor(ids)) for name, ids in self.members.items()}


def load_classifier(model: str) -> HubScorer:
    """An image classifier; see `read_pretrained` for errors."""
    return HubScorer(model, *read_pretrained("AutoModelForImageClassification", model))


def load_features(model: str) -> HubFeatures:
    """A vision backbone; see `read_pretrained` for errors.

    Raises:
        InputError: If the model has no single vector for an image.
    """
    network, preprocessing = read_pretrained("AutoModel", model)
    if not isinstance(getattr(network.config, "hidden_size", None), int):
        raise InputError(f"{model} must be a vision transformer with one hidden size, got {type(network).__name__}")
    return HubFeatures(model, network, preprocessing)


def load_parser(model: str) -> HubRegions:
    """A semantic segmentation network; see `read_pretrained` for errors."""
    return HubRegions(model, *read_pretrained("AutoModelForSemanticSegmentation", model))


def word(label: str) -> str:
    """A label as one word, so that it can be named on the command line and be a file's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", label.strip()).strip("_.-") or "label"
