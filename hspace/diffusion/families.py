"""Families of checkpoints: each loads its own into a denoiser with taps, a process, a codec and conditions.

The parts that a pipeline's `model_index.json` names choose the family. Pipelines are read as diffusers saves them, and
their own code is never run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, runtime_checkable

import diffusers
import torch

from hspace.diffusion.codecs import Codec, PixelCodec, make_codec
from hspace.diffusion.denoiser import Conditioning, CutDenoiser, Denoiser, Wiring, is_large
from hspace.diffusion.identity import Identity, model_identity
from hspace.diffusion.process import Process
from hspace.diffusion.prompts import (
    ClassEncoder,
    PipelineEncoder,
    flux_inputs,
    pixart_inputs,
    read_prompt_encoder,
    sd3_inputs,
    xl_inputs,
)  # fmt: skip
from hspace.diffusion.reading import (
    check_tokenizer,
    find_part,
    read_json,
    read_module,
    read_scheduler,
    read_text_encoder,
)  # fmt: skip
from hspace.diffusion.transformer import DiTWiring, FluxWiring, PixArtWiring, SD3Wiring
from hspace.diffusion.unet import UNetWiring
from hspace.system.records import is_list
from hspace.system.registry import Registry
from hspace.types import InputError, one_line

Encoder = Callable[[str, float], Conditioning]
"""Makes a condition of a prompt, or of a class, and the strength of guidance."""

IGNORED = {"scheduler", "safety_checker", "feature_extractor", "image_encoder"}
"""Parts of a pipeline that say nothing about its family."""


@dataclass(frozen=True)
class Request:
    """What a family is asked to load.

    Attributes:
        folder: Folder of the checkpoint.
        model: The user's name for it, for messages.
        index: Class name of each part by the part's name.
        tap: Name of the tap; "" is the family's own.
        num_steps: Number of sampling steps.
        spacing: Spacing of the steps; None takes the checkpoint's.
        device: Device to run on.
        dtype: Dtype of the network's computations.
    """

    folder: Path
    model: str
    index: Mapping[str, str]
    tap: str
    num_steps: int
    spacing: str | None
    device: torch.device
    dtype: torch.dtype


@dataclass(frozen=True)
class Loaded:
    """What a family gives.

    Attributes:
        denoiser: The network cut at its tap, in evaluation mode, without gradients for its weights.
        process: Noise levels and the model times that are visited.
        codec: The maps between the model's space and images.
        identity: Hashes of the contents that define the model.
        encode: The encoder that makes a condition; None for an unconditional model.
    """

    denoiser: Denoiser
    process: Process
    codec: Codec
    identity: Identity
    encode: Encoder | None = None


@runtime_checkable
class Family(Protocol):
    """A kind of checkpoints."""

    def matches(self, index: Mapping[str, str]) -> bool:
        """Whether a pipeline whose parts have these class names is of the family."""
        ...

    def load(self, request: Request) -> Loaded:
        """The model of a folder.

        Raises:
            InputError: If it cannot be read, or the tap does not exist in it.
        """
        ...


@dataclass(frozen=True)
class PipelineFamily:
    """A family of diffusers, recognised by the classes of its parts.

    Attributes:
        network: Name of the part that is the network.
        parts: Classes that each part may have.
        wire: Function of network, codec and request that gives the network's wiring.
        encode: Function of network, wiring, codec and request that gives the encoder of conditions.
        tap: Tap of a U-Net, where the request names none.
        absent: Sets of parts that may be missing together.
        statistics: Whether its pipeline applies mean and standard deviation of latents that an autoencoder names.
        own_range: Whether its pipeline goes over the scheduler's own range of noise levels; see
            `Process.from_scheduler`.
    """

    network: str
    parts: Mapping[str, tuple[str, ...]]
    wire: Callable[[Any, Codec, Request], Wiring]
    encode: Callable[[Any, Any, Codec, Request], Any] = field(default=lambda *_: None)
    tap: str = "after"
    absent: tuple[frozenset[str], ...] = (frozenset(),)
    statistics: bool = False
    own_range: bool = False

    def matches(self, index: Mapping[str, str]) -> bool:
        """Whether all parts are there but those that may be missing, and of these classes."""
        if index.keys() - self.parts.keys() or self.parts.keys() - index.keys() not in self.absent:
            return False
        return all(kind in self.parts[name] for name, kind in index.items())

    def load(self, request: Request) -> Loaded:
        """The model of a folder."""
        scheduler = read_scheduler(request.folder, request.model)
        network = read_module(request.folder, self.network, request.index[self.network], request.model, request.dtype)
        codec = _codec(request, network, self.statistics)
        wiring = self.wire(network, codec, request)
        process = Process.from_scheduler(
            scheduler, request.num_steps, request.spacing, wiring.image_tokens, self.own_range
        )
        encode = self.encode(network, wiring, codec, request)
        parts = {self.network: network, "scheduler": scheduler, **codec.parts, **(encode.parts if encode else {})}
        identity = model_identity(parts, request.folder)
        network = _placed(network, request).eval().requires_grad_(False)
        denoiser = CutDenoiser(network, request.tap or self._tap(network), wiring)
        codec.check(denoiser.sample_shape)
        return Loaded(denoiser, process, codec, identity, encode)

    def _tap(self, network: Any) -> str:
        blocks = getattr(network, "transformer_blocks", None)
        return self.tap if blocks is None else f"block:{len(blocks) // 2}"


def _placed(network: Any, request: Request) -> Any:
    """A network on its device; on a CPU a small one in float32 has channels last in memory, which is faster there.

    A large one gains nothing by it (docs/performance.md), and would be in memory twice: as it is mapped, and so.
    """
    network = network.to(request.device, request.dtype)
    last = request.device.type == "cpu" and request.dtype == torch.float32 and not is_large(network)
    return network.to(memory_format=torch.channels_last) if last else network


def _codec(request: Request, network: Any, statistics: bool) -> Codec:
    """The codec of a pipeline's autoencoder, if it has one.

    A `VQModel` that names no scaling factor has none: the latents of Rombach et al.'s VQ models are not scaled, and
    diffusers' default of 0.18215, made for Stable Diffusion, spoils the images of CompVis/ldm-celebahq-256.
    """
    names = sorted(request.index.keys() & {"vae", "vqvae"})
    if not names:
        return PixelCodec(grey=network.config["in_channels"] == 1)
    kind = request.index[names[0]]
    config = read_json(find_part(request.folder, names[0]) / "config.json")
    if kind == "AutoencoderKL" and config.get("sample_size", 32) is None:
        raise InputError(f"sample_size in {names[0]}/config.json of {request.model} must be the images' side, got null")
    autoencoder = read_module(request.folder, names[0], kind, request.model).to(request.device)
    default = {"VQModel": 1.0, "AutoencoderKL": 0.18215}[kind]
    shift = config.get("shift_factor") or 0.0
    found = _statistics(config, request.model) if statistics else None
    return make_codec(autoencoder, config.get("scaling_factor", default), request.dtype, shift, found)


def _statistics(config: Mapping[str, Any], model: str) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of an autoencoder's latents by channel, where its configuration has both."""
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is None or std is None:
        return None
    channels = config.get("latent_channels", 4)
    if not all(is_list(each) and len(each) == channels for each in (mean, std)):
        raise InputError(f"latents_mean and latents_std of {model} must be {channels} numbers each")
    return mean, std


def _unet(network: Any, codec: Codec, request: Request) -> UNetWiring:
    return UNetWiring(network)


def _unet_classes(network: Any, wiring: UNetWiring, codec: Codec, request: Request) -> ClassEncoder | None:
    """Classes of a U-Net by number: no model of diffusers says what it was trained on without a class."""
    return ClassEncoder([str(i) for i in range(wiring.classes)], None) if wiring.classes else None


def _clip_prompts(network: Any, wiring: Any, codec: Codec, request: Request) -> Any:
    encoder = read_prompt_encoder(request.folder, request.index["text_encoder"], request.model)
    encoder.text_encoder.to(request.device)
    return encoder


def _xl_prompts(network: Any, wiring: Any, codec: Codec, request: Request) -> Any:
    _, height, width = codec.image_shape(wiring.sample_shape)
    return PipelineEncoder(_text_pipeline(request, "StableDiffusionXLPipeline"), xl_inputs(height, width))


def _pixart_prompts(network: Any, wiring: Any, codec: Codec, request: Request) -> Any:
    alpha = read_json(request.folder / "model_index.json").get("_class_name") == "PixArtAlphaPipeline"
    pipeline = _text_pipeline(request, "PixArtAlphaPipeline" if alpha else "PixArtSigmaPipeline")
    return PipelineEncoder(pipeline, pixart_inputs(120 if alpha else 300))


def _sd3_prompts(network: Any, wiring: Any, codec: Codec, request: Request) -> Any:
    pipeline = _text_pipeline(request, "StableDiffusion3Pipeline", absent=("text_encoder_3", "tokenizer_3"))
    # Without T5 the pipeline asks the network how wide the tokens are that it leaves 0.
    pipeline.__dict__["transformer"] = SimpleNamespace(config=network.config)
    return PipelineEncoder(pipeline, sd3_inputs)


def _flux_prompts(network: Any, wiring: FluxWiring, codec: Codec, request: Request) -> Any:
    return PipelineEncoder(_text_pipeline(request, "FluxPipeline"), flux_inputs(wiring.distilled))


def _flux(network: Any, codec: Any, request: Request) -> FluxWiring:
    factor, size = codec.image_shape((1, 1, 1))[1], codec.autoencoder.config["sample_size"]
    if not isinstance(size, int):
        raise InputError(f"sample_size in vae/config.json of {request.model} must be the images' side, got {size}")
    return FluxWiring(network, size // factor)


def _dit_classes(network: Any, wiring: Any, codec: Codec, request: Request) -> ClassEncoder:
    """Classes of ImageNet by the names that the pipeline gives them; the last number means "without a class"."""
    count = network.config["num_embeds_ada_norm"]
    named = read_json(request.folder / "model_index.json").get("id2label") or {}
    return ClassEncoder([str(named.get(str(i), i)) for i in range(count)], count)


def _text_pipeline(request: Request, name: str, absent: tuple[str, ...] = ()) -> Any:
    """The text encoders of a pipeline in float32, without its network and autoencoder.

    Args:
        request: What is loaded.
        name: Class of the pipeline.
        absent: Text encoders and tokenizers that need not be there.
    """
    for part in request.index:
        if part.startswith("tokenizer"):
            check_tokenizer(request.folder, part, request.model)
    kinds = {part: kind for part, kind in request.index.items() if part.startswith("text_encoder")}
    encoders = {
        part: read_text_encoder(request.folder, part, kind, request.model).to(request.device)
        for part, kind in kinds.items()
    }
    network = "unet" if "unet" in request.index else "transformer"
    left_out: Any = dict.fromkeys([network, "vae", *(part for part in absent if part not in request.index)])
    try:
        pipeline = getattr(diffusers, name).from_pretrained(
            request.folder, **left_out, **encoders, local_files_only=True
        )
    # Broken files raise errors of many kinds: OSError, ValueError, KeyError.
    except Exception as error:
        raise InputError(f"the tokenizers of {request.model} cannot be read: {one_line(error)}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


CLIP = ("CLIPTextModel", "CLIPTextModelWithProjection")
CLIP_TOKENS, T5_TOKENS = ("CLIPTokenizer", "CLIPTokenizerFast"), ("T5Tokenizer", "T5TokenizerFast")
T5 = ("T5EncoderModel",)
KL = ("AutoencoderKL",)

pixel: PipelineFamily = PipelineFamily("unet", {"unet": ("UNet2DModel",)}, _unet, _unet_classes)
"""Images by a U-Net of pixels, unconditional or by class: DDPM, DDIM, ADM's kind with learned variance."""

latent: PipelineFamily = PipelineFamily(
    "unet", {"unet": ("UNet2DModel",), "vqvae": ("VQModel", "AutoencoderKL")}, _unet, _unet_classes
)
"""Latent diffusion without text, in a VQ or KL autoencoder."""

stable_diffusion: PipelineFamily = PipelineFamily(
    "unet",
    {"unet": ("UNet2DConditionModel",), "vae": KL, "text_encoder": ("CLIPTextModel",), "tokenizer": CLIP_TOKENS},
    _unet,
    _clip_prompts,
)
"""Stable Diffusion 1 and 2."""

sdxl: PipelineFamily = PipelineFamily(
    "unet",
    {
        "unet": ("UNet2DConditionModel",), "vae": KL, "text_encoder": CLIP, "text_encoder_2": CLIP,
        "tokenizer": CLIP_TOKENS, "tokenizer_2": CLIP_TOKENS,
    },
    _unet,
    _xl_prompts,
    statistics=True,
)  # fmt: skip
"""Stable Diffusion XL."""

dit: PipelineFamily = PipelineFamily(
    "transformer", {"transformer": ("DiTTransformer2DModel",), "vae": KL}, lambda network, *_: DiTWiring(network),
    _dit_classes,
)  # fmt: skip
"""DiT: a transformer by classes."""

pixart: PipelineFamily = PipelineFamily(
    "transformer",
    {"transformer": ("PixArtTransformer2DModel",), "vae": KL, "text_encoder": T5, "tokenizer": T5_TOKENS},
    lambda network, *_: PixArtWiring(network),
    _pixart_prompts,
)
"""PixArt alpha and Sigma."""

sd3: PipelineFamily = PipelineFamily(
    "transformer",
    {
        "transformer": ("SD3Transformer2DModel",), "vae": KL, "text_encoder": CLIP, "text_encoder_2": CLIP,
        "text_encoder_3": T5, "tokenizer": CLIP_TOKENS, "tokenizer_2": CLIP_TOKENS, "tokenizer_3": T5_TOKENS,
    },
    lambda network, *_: SD3Wiring(network),
    _sd3_prompts,
    absent=(frozenset(), frozenset({"text_encoder_3"}), frozenset({"text_encoder_3", "tokenizer_3"})),
    own_range=True,
)  # fmt: skip
"""Stable Diffusion 3 and 3.5, with or without T5: flow matching with classifier-free guidance."""

flux: PipelineFamily = PipelineFamily(
    "transformer",
    {
        "transformer": ("FluxTransformer2DModel",), "vae": KL, "text_encoder": CLIP, "text_encoder_2": T5,
        "tokenizer": CLIP_TOKENS, "tokenizer_2": T5_TOKENS,
    },
    _flux,
    _flux_prompts,
)  # fmt: skip
"""FLUX.1: flow matching whose guidance is an input of the distilled network."""

NAMES = ("pixel", "latent", "stable_diffusion", "sdxl", "dit", "pixart", "sd3", "flux")

families: Registry[Family] = Registry("family", Family, {name: f"{__name__}:{name}" for name in NAMES})
"""All families by name; installed packages add theirs by the entry-point group `hspace.families`."""


def find_family(index: Mapping[str, str], model: str, name: str | None = None) -> Family:
    """The family of a pipeline.

    Args:
        index: Class name of each part by the part's name.
        model: The user's name for it, for messages.
        name: Name of the family, or "module:name" of a stranger's; None takes the one that matches.

    Raises:
        InputError: If no family matches, or the named one does not exist.
    """
    if name is not None:
        return families.get(name)
    told = {part: kind for part, kind in index.items() if part not in IGNORED}
    for known in families.names():
        if families.get(known).matches(told):
            return families.get(known)
    listed = ", ".join(f"{part} {kind}" for part, kind in sorted(told.items()))
    raise InputError(f"{model} is not of a known family ({', '.join(families.names())}); its parts are: {listed}")
