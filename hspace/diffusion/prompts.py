"""Encoders of prompts and classes, which give a network its conditions; prompts need transformers (extra `hub`)."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hspace.diffusion.denoiser import Conditioning
from hspace.diffusion.reading import check_tokenizer, read_text_encoder
from hspace.types import InputError, one_line

log: logging.Logger = logging.getLogger(__name__)


class PromptEncoder:
    """A tokenizer and a text encoder."""

    def __init__(self, tokenizer: Any, text_encoder: Any) -> None:
        self.tokenizer: Any = tokenizer
        self.text_encoder: Any = text_encoder

    @property
    def parts(self) -> dict[str, Any]:
        """The parts that features depend on, by role; see `model_identity`."""
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
            InputError: If guidance is not a number >= 0.
        """
        check_guidance(guidance)
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


def read_prompt_encoder(folder: Path, kind: str, model: str) -> PromptEncoder:
    """Read `tokenizer` and `text_encoder` of a pipeline's folder; the encoder computes in float32.

    Args:
        folder: Folder of the pipeline.
        kind: Class of the text encoder.
        model: The user's name for it, for messages.

    Raises:
        InputError: If transformers is not installed, or the files cannot be read.
    """
    text_encoder = read_text_encoder(folder, "text_encoder", kind, model)
    check_tokenizer(folder, "tokenizer", model)
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    # Broken files raise errors of many kinds: OSError, ValueError, KeyError.
    except Exception as error:
        raise InputError(f"the tokenizer of {model} cannot be read: {one_line(error)}") from error
    return PromptEncoder(tokenizer, text_encoder)


class ClassEncoder:
    """Classes as conditions, by number or by name; a name with commas is several names of one class.

    Where two classes share a name, it is that of the later one, as in diffusers.
    """

    def __init__(self, labels: Sequence[str], null: int | None) -> None:
        """Take over the classes.

        Args:
            labels: Names of the classes, in the order of their numbers.
            null: Number that means "without a class", for guidance; None where the network was not trained for that.
        """
        self.labels: tuple[str, ...] = tuple(labels)
        self.null: int | None = null
        whole = {label: number for number, label in enumerate(self.labels)}
        single = {name.strip(): number for number, label in enumerate(self.labels) for name in label.split(",")}
        self._numbers = whole | single

    @property
    def parts(self) -> dict[str, Any]:
        """What the condition depends on, by role; see `model_identity`."""
        return {"labels": list(self.labels)}

    def __call__(self, prompt: str, guidance: float) -> Conditioning:
        """What the network is given for a class.

        Args:
            prompt: Number or name of a class; empty means "without a class", where the network was trained for that.
            guidance: Classifier-free guidance, >= 0; 1 is none, and so is any value where `null` is None.

        Raises:
            InputError: If the class does not exist, or guidance is not a number >= 0.
        """
        check_guidance(guidance)
        label = self._number(prompt)
        guided = self.null is not None and label != self.null and guidance != 1
        labels = [label, self.null] if guided else [label]
        return Conditioning(prompt, {"class_labels": torch.tensor(labels)}, guidance if guided else 1.0)

    def _number(self, prompt: str) -> int:
        if prompt == "" and self.null is not None:
            return self.null
        if prompt.isdecimal() and int(prompt) < len(self.labels):
            return int(prompt)
        if prompt in self._numbers:
            return self._numbers[prompt]
        last = len(self.labels) - 1
        raise InputError(f"the model needs a class for its prompt, a number from 0 to {last} or a name, got {prompt!r}")


class PipelineEncoder:
    """The text encoders of a pipeline of diffusers, used by the pipeline's own `encode_prompt`."""

    def __init__(self, pipeline: Any, prepare: Callable[[Any, str, bool, float], dict[str, Tensor]]) -> None:
        """Take over a pipeline without its network and autoencoder.

        Args:
            pipeline: Pipeline of diffusers.
            prepare: Function that gives the network's inputs of a prompt, from the pipeline, the prompt, whether a
                second pass without it is wanted, and the guidance.
        """
        self.pipeline: Any = pipeline
        self._prepare = prepare

    @property
    def parts(self) -> dict[str, Any]:
        """The parts that features depend on, by role; see `model_identity`."""
        pipeline = self.pipeline
        named = {
            name: part
            for name, part in pipeline.components.items()
            if name.startswith(("text_", "tokenizer")) and part is not None
        }
        # Flags of the pipeline, such as SDXL's `force_zeros_for_empty_prompt`, change the features too.
        told = {name: value for name, value in pipeline.config.items() if isinstance(value, bool)}
        return named | ({"prompts": told} if told else {})

    @torch.no_grad()
    def __call__(self, prompt: str, guidance: float) -> Conditioning:
        """What the network is given for a prompt; see `PromptEncoder`.

        Raises:
            InputError: If guidance is not a number >= 0.
        """
        check_guidance(guidance)
        guided = prompt != "" and guidance != 1
        cond = Conditioning(prompt, self._prepare(self.pipeline, prompt, guided, guidance), guidance)
        return cond if cond.passes == 2 or "guidance" in cond.inputs else replace(cond, guidance=1.0)


def check_guidance(guidance: float) -> None:
    """Check the strength of guidance.

    Raises:
        InputError: If it is not a number >= 0.
    """
    if not 0 <= guidance < float("inf"):
        raise InputError(f"guidance must be a number >= 0 (1 is none), got {guidance}")


def xl_inputs(height: int, width: int) -> Callable[[Any, str, bool, float], dict[str, Tensor]]:
    """SDXL: tokens and pooled features of two text encoders, and the image's sides."""

    def prepare(pipeline: Any, prompt: str, guided: bool, guidance: float) -> dict[str, Tensor]:
        context, negative, pooled, without = pipeline.encode_prompt(prompt, do_classifier_free_guidance=guided)
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=context.dtype)
        passes = 2 if guided else 1
        return {
            "encoder_hidden_states": torch.cat([context, negative][:passes]),
            "text_embeds": torch.cat([pooled, without][:passes]), "time_ids": sizes.repeat(passes, 1),
        }  # fmt: skip

    return prepare


def pixart_inputs(tokens: int) -> Callable[[Any, str, bool, float], dict[str, Tensor]]:
    """PixArt: features of T5 for this many tokens, and which of them count."""

    def prepare(pipeline: Any, prompt: str, guided: bool, guidance: float) -> dict[str, Tensor]:
        context, mask, negative, without = pipeline.encode_prompt(
            prompt, do_classifier_free_guidance=guided, max_sequence_length=tokens
        )
        passes = 2 if guided else 1
        inputs = {"encoder_hidden_states": torch.cat([context, negative][:passes])}
        return inputs | {"encoder_attention_mask": torch.cat([mask, without][:passes])}

    return prepare


def sd3_inputs(pipeline: Any, prompt: str, guided: bool, guidance: float) -> dict[str, Tensor]:
    """Stable Diffusion 3: tokens of three text encoders, pooled features of two; without T5 its tokens are 0."""
    context, negative, pooled, without = pipeline.encode_prompt(prompt, None, None, do_classifier_free_guidance=guided)
    passes = 2 if guided else 1
    inputs = {"encoder_hidden_states": torch.cat([context, negative][:passes])}
    return inputs | {"pooled_projections": torch.cat([pooled, without][:passes])}


def flux_inputs(distilled: bool) -> Callable[[Any, str, bool, float], dict[str, Tensor]]:
    """FLUX: tokens of T5, pooled features of CLIP, and guidance as a number where the model was distilled."""

    def prepare(pipeline: Any, prompt: str, guided: bool, guidance: float) -> dict[str, Tensor]:
        context, pooled, _ = pipeline.encode_prompt(prompt, None)
        strength = {"guidance": context.new_full((1,), guidance)} if distilled else {}
        return {"encoder_hidden_states": context, "pooled_projections": pooled, **strength}

    return prepare
