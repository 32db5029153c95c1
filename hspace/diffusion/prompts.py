"""Prompts become the features that a text-to-image U-Net is conditioned on; needs transformers (extra `hub`)."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hspace.diffusion.denoiser import Conditioning
from hspace.types import InputError

log = logging.getLogger(__name__)


class PromptEncoder:
    """A tokenizer and a text encoder."""

    def __init__(self, tokenizer: Any, text_encoder: Any) -> None:
        self.tokenizer, self.text_encoder = tokenizer, text_encoder

    @property
    def parts(self) -> dict[str, Any]:
        """What features depend on, by role; see `model_identity`."""
        return {"tokenizer": self.tokenizer, "text_encoder": self.text_encoder}

    @torch.no_grad()
    def __call__(self, prompt: str, guidance: float) -> Conditioning:
        """What the U-Net is given for a prompt.

        Args:
            prompt: Text; the empty prompt is the unconditional model.
            guidance: Classifier-free guidance, >= 0; 1 is the plain conditional model, as is any on the empty prompt.

        Returns:
            The prompt's features and, where guidance moves away from it, those of the empty prompt.

        Raises:
            InputError: If guidance is no number >= 0.
        """
        if not 0 <= guidance < float("inf"):
            raise InputError(f"guidance must be a number >= 0 (1 is none), got {guidance}")
        guided = prompt != "" and guidance != 1
        prompts = [prompt, ""] if guided else [prompt]
        return Conditioning(prompt, {"encoder_hidden_states": self._features(prompts)}, guidance if guided else 1.0)

    def _features(self, prompts: list[str]) -> Tensor:
        """(prompts, tokens, dim): the last hidden state, as Stable Diffusion takes it."""
        length = self.tokenizer.model_max_length
        if len(self.tokenizer(prompts[0]).input_ids) > length:
            log.warning("the prompt is longer than %d tokens and was cut: %s", length, prompts[0])
        tokens = self.tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return self.text_encoder(tokens.input_ids.to(self.text_encoder.device)).last_hidden_state


def read_prompt_encoder(folder: Path, device: torch.device) -> PromptEncoder:
    """Read `tokenizer` and `text_encoder` of a pipeline's folder; the encoder computes in float32.

    Raises:
        InputError: If transformers is not installed, or the files cannot be read.
    """
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
        from transformers.utils import logging as transformers_logging
    except ImportError as error:
        raise InputError("models with prompts need transformers: pip install 'hspace[hub]'") from error
    transformers_logging.disable_progress_bar()
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        loaded: Any = CLIPTextModel.from_pretrained(
            folder / "text_encoder", local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    # Broken files raise errors of many kinds: safetensors', pickle's, OSError, ValueError, RuntimeError.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"the text encoder of {folder.name} cannot be read: {reason}") from error
    text_encoder, info = loaded
    if info["missing_keys"]:
        raise InputError(f"the text encoder of {folder.name} lacks tensors, e.g. {min(info['missing_keys'])}")
    return PromptEncoder(tokenizer, text_encoder.to(device).eval().requires_grad_(False))
