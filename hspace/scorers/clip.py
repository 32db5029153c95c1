"""CLIP as a scorer without training, which says which of two prompts an image is nearer to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hspace.scorers.networks import unit_norm
from hspace.scorers.pretrained import Preprocessing, Pretrained, import_transformers, is_hub_id, read_pretrained
from hspace.system.hub import why_unreachable
from hspace.types import Features, Images, InputError, Scores, one_line

PROMPTS = {
    "smile": ("A smiling person", "A person"),
    "glasses": ("A person wearing glasses", "A person"),
    "age": ("An old person", "A young person"),
    "gender": ("A man", "A woman"),
    "hat": ("A person wearing a hat", "A person"),
}
"""Prompts of having an attribute and of not having it, by attribute, as in table I of Haas et al. 2024."""


class ClipScorer(Pretrained):
    """Zero-shot scores of the paper's five attributes.

    The score is the probability of the first of two prompts: a softmax over the two similarities with the model's own
    temperature, in [0, 1]. The paper names the prompts but neither the model nor the formula.

    Source: Radford et al. 2021 (arXiv 2103.00020); Haas et al. 2024, table I, for the prompts.
    """

    attributes: tuple[str, ...] = tuple(PROMPTS)
    binary: tuple[bool, ...] = (True,) * len(PROMPTS)
    _prompts: Tensor

    def __init__(self, model: str, network: Any, preprocessing: Preprocessing, tokenizer: Any) -> None:
        super().__init__("clip", model, network, preprocessing)
        self._tokenizer: Any = tokenizer
        pairs = self.encode([prompt for pair in PROMPTS.values() for prompt in pair]).unflatten(0, (len(PROMPTS), 2))
        self.register_buffer("_prompts", pairs)

    @property
    def prompts(self) -> Tensor:
        """Embeddings of having each attribute and of not having it, unit vectors, (attributes, 2, dim)."""
        return self._prompts

    def forward(self, images: Images) -> Scores:
        """Probabilities of images in [-1, 1], (batch, attributes), on the images' device."""
        return self.logits(images).sigmoid()

    def logits(self, images: Images) -> Scores:
        """Log-odds of the first prompt, (batch, attributes): the difference of the two similarities, scaled."""
        difference = self.prompts[:, 0] - self.prompts[:, 1]
        return (self.network.logit_scale.exp() * self.embed(images) @ difference.T).to(images.device)

    def embed(self, images: Images) -> Features:
        """Embeddings of images in [-1, 1], unit vectors, (batch, dim)."""
        network = self.network
        return unit_norm(network.visual_projection(network.vision_model(self.pixels(images)).pooler_output))

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Features:
        """Embeddings of texts, unit vectors, (texts, dim).

        Raises:
            InputError: If the tokenizer does not tell them apart.
        """
        network = self.network
        tokens = self._tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        # transformers makes an empty tokenizer where its files are missing.
        if len(set(map(tuple, tokens.input_ids.tolist()))) < len(set(texts)):
            raise InputError(f"the tokenizer of {self.id} does not tell the prompts apart: are its files there?")
        tokens = tokens.to(next(network.parameters()).device)
        pooled = network.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        return unit_norm(network.text_projection(pooled))

    def visible(self, scores: Scores) -> Tensor:
        """Everything, since CLIP does not say what an image hides."""
        return torch.ones_like(scores, dtype=torch.bool)


def load_clip(model: str) -> ClipScorer:
    """A CLIP model as a scorer.

    Args:
        model: Folder or hub id of a `CLIPModel` of transformers with its tokenizer.

    Raises:
        InputError: If transformers is not installed, or the model or its tokenizer cannot be read.
    """
    network, preprocessing = read_pretrained("CLIPModel", model)
    local = not is_hub_id(model)
    source = Path(model).expanduser() if local else model
    only_here = local or why_unreachable(model) is not None
    try:
        tokenizer = import_transformers(model).AutoTokenizer.from_pretrained(
            source, trust_remote_code=False, local_files_only=only_here
        )
    except Exception as error:
        raise InputError(f"the tokenizer of {model} cannot be read: {one_line(error)}") from error
    return ClipScorer(model, network, preprocessing, tokenizer)
