"""A name, a folder or a hub id becomes a `DiffusionModel`: U-Net, schedule, codec, and the hash of its weights.

Read are pipelines as diffusers saves them: in pixel space (`UNet2DModel` and scheduler), latent diffusion (and a
`VQModel` or `AutoencoderKL`), Stable Diffusion 1 and 2 (`UNet2DConditionModel`, and a CLIP text encoder), and bare
`UNet2DModel` folders. A pipeline's own code is never run.
"""

import contextlib
import difflib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import hf_hub_download

from hspace.diffusion.codecs import Codec, PixelCodec, make_codec
from hspace.diffusion.denoiser import Conditioning, Denoiser
from hspace.diffusion.identity import SCHEDULER, Identity, model_identity
from hspace.diffusion.latents import Latents
from hspace.diffusion.process import Process, build_scheduler
from hspace.diffusion.prompts import PromptEncoder, read_prompt_encoder
from hspace.diffusion.provenance import ProcessFacts, Provenance, conditioning_of
from hspace.diffusion.unet import SemanticUNet
from hspace.system.files import package_path
from hspace.system.hub import why_unreachable
from hspace.types import InputError

log = logging.getLogger(__name__)

EMBEDDED = {"portraits": "portraits/ddpm"}
"""Models that come with the package, by name: their folder under the packaged weights."""

KINDS: tuple[dict[str, tuple[str, ...]], ...] = (
    {"unet": ("UNet2DModel",)},
    {"unet": ("UNet2DModel",), "vqvae": ("VQModel", "AutoencoderKL")},
    {
        "unet": ("UNet2DConditionModel",),
        "vae": ("AutoencoderKL",),
        "text_encoder": ("CLIPTextModel",),
        "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    },
)
"""The pipelines that are read: the classes that each part may have."""

UNUSED = ("safety_checker", "feature_extractor")
"""Parts that are passed over."""

DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "float16", "bfloat16")}


@dataclass(frozen=True)
class DiffusionModel:
    """A loaded model, ready to sample.

    Attributes:
        denoiser: In evaluation mode, without gradients for its weights.
        process: Noise levels and the model times that are visited.
        codec: Between the model's space and images.
        model_id: Name of the embedded model, hub id, or the folder's own name.
        identity: What it is, by content.
        cond: The prompt, where the model takes one.
        encode_prompt: What makes another `cond`, where the model takes prompts.
    """

    denoiser: Denoiser
    process: Process
    codec: Codec
    model_id: str
    identity: Identity
    cond: Conditioning | None = None
    encode_prompt: PromptEncoder | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.denoiser.network.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype the network computes in."""
        return self.denoiser.network.dtype

    @property
    def h_shape(self) -> tuple[int, ...]:
        """Shape of one sample's h at one step: (channel, height, width), or (token, channel), or any other."""
        return self.denoiser.h_shape

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(channel, height, width) of x_t."""
        return self.denoiser.sample_shape

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channel, height, width) of images."""
        return self.codec.image_shape(self.sample_shape)

    def with_prompt(self, prompt: str, guidance: float) -> "DiffusionModel":
        """The same model under another prompt.

        Args:
            prompt: Text; the empty prompt is the unconditional model.
            guidance: Classifier-free guidance, >= 0; 1 is none.

        Raises:
            InputError: If the model takes no prompts, or guidance is no number >= 0.
        """
        if self.encode_prompt is None:
            raise InputError(f"{self.model_id} takes no prompt, got {prompt!r}")
        return replace(self, cond=self.encode_prompt(prompt, guidance))

    def provenance(
        self,
        *,
        eta: float | Sequence[float] | None = None,
        tap: bool = True,
        injection: str | None = None,
        annotator: dict[str, str] | None = None,
    ) -> Provenance:
        """Where what is made with this model comes from.

        Args:
            eta: One value or one per step; None where it does not matter.
            tap: Whether h matters.
            injection: How an edit enters a step; None where there is none.
            annotator: The scorer that chose; see `scorer_identity`.

        Raises:
            InputError: If eta is not one number in [0, 1] or one per step.
        """
        process, cond = self.process, self.cond
        return Provenance(
            model={name: sha256 for name, sha256 in self.identity.parts.items() if name != SCHEDULER},
            process=ProcessFacts(process.timesteps, process.levels(), process.prediction_type),
            tap=tuple(self.denoiser.tap.split("+")) if tap else None,
            conditioning={} if cond is None else conditioning_of(cond.prompt, cond.guidance),
            eta=None if eta is None else process.etas(eta),
            injection=injection,
            annotator=annotator,
        )

    def latents(self, seeds: Sequence[int]) -> Latents:
        """x_T and z of the given samples for this model's shape and steps, on its device."""
        return Latents.from_seeds(seeds, self.sample_shape, len(self.process.timesteps)).to(self.device)


def load_model(
    model: str = "portraits",
    *,
    tap: str = "after",
    num_steps: int = 10,
    spacing: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
    prompt: str = "",
    guidance: float = 7.5,
) -> DiffusionModel:
    """Load a diffusion model.

    Args:
        model: An embedded model's name (`portraits`), a folder, or a hub id `owner/name`.
        tap: Where h is tapped: `before`, `middle` or `after` the mid block.
        num_steps: Sampling steps.
        spacing: `leading`, `trailing` or `linspace`; None takes the checkpoint's.
        device: `auto` (cuda, mps, else cpu), `cpu`, `cuda` or `mps`.
        dtype: What the network computes in: `float32`, `float64`, `float16` or `bfloat16`.
        prompt: Text that a text-to-image model is conditioned on; empty is the unconditional model.
        guidance: Classifier-free guidance on a prompt, >= 0; 1 is none. Models without prompts ignore it.

    Raises:
        InputError: If there is no such model, it is of an unsupported kind, its weights cannot be read, or another
            argument is none of its choices.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype}")
    target = _find_device(device)
    folder, model_id = _find_folder(model)
    with _quiet_diffusers():
        index = _read_index(folder, model)
        scheduler = _read_scheduler(folder, model)
        process = Process.from_scheduler(scheduler, num_steps, spacing)
        unet = _read_module(folder, "unet", index["unet"], model)
        codec = _read_codec(folder, index, model, DTYPES[dtype], target)
        encode_prompt = read_prompt_encoder(folder, target) if "text_encoder" in index else None
    parts = {"unet": unet, "scheduler": scheduler, **codec.parts, **(encode_prompt.parts if encode_prompt else {})}
    identity = model_identity(parts, folder)
    semantic = SemanticUNet(unet, tap).to(target, DTYPES[dtype]).eval().requires_grad_(False)
    loaded = DiffusionModel(semantic, process, codec, model_id, identity, encode_prompt=encode_prompt)
    return loaded.with_prompt(prompt, guidance) if encode_prompt or prompt else loaded


def _find_device(device: str) -> torch.device:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    usable = [name for name, present in available.items() if present]
    if device == "auto":
        return torch.device(usable[0])
    if device.split(":")[0] not in usable:
        raise InputError(f"device must be auto or one this machine has ({', '.join(usable)}), got {device}")
    return torch.device(device)


def _find_folder(model: str) -> tuple[Path, str]:
    """The folder of a model's files, fetched where it is a hub id, and the model's id."""
    if model in EMBEDDED:
        folder = package_path("weights") / EMBEDDED[model]
        if not folder.is_dir():
            raise InputError(f"the weights of the embedded model {model} are not installed; give model.path=FOLDER")
        return folder, model
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder, folder.resolve().name
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", model):
        return _download(model), model
    near = difflib.get_close_matches(model, EMBEDDED, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known models: {', '.join(EMBEDDED)}"
    raise InputError(f"no model and no folder {model}; {hint} (a hub id is owner/name)")


def _download(model: str) -> Path:
    """The local copy of a hub pipeline, downloaded where it is not cached yet."""
    unreachable = why_unreachable(model)
    try:
        index = hf_hub_download(model, "model_index.json", local_files_only=unreachable is not None)
        _check_index(_read_json(Path(index)), model)
        unused: Any = {"safety_checker": None, "feature_extractor": None}
        with _quiet_diffusers():
            return Path(DiffusionPipeline.download(model, local_files_only=unreachable is not None, **unused))
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = _one_line(unreachable or error)
        raise InputError(f"no folder {model}, and no hub model of that name can be fetched: {reason}") from error


def _read_index(folder: Path, model: str) -> dict[str, str]:
    """Class name of each part that is read, by the part's name; a bare U-Net is its own only part."""
    if (folder / "model_index.json").is_file():
        return _check_index(_read_json(folder / "model_index.json"), model)
    if not (folder / "config.json").is_file():
        raise InputError(f"{model} is no diffusion model: it has neither model_index.json nor config.json")
    return {"unet": "UNet2DModel"}


def _check_index(index: dict[str, Any], model: str) -> dict[str, str]:
    """Refuse pipelines of other kinds than those of `KINDS`."""
    if "unet" not in index:
        raise InputError(f"{model} is no diffusion model: its model_index.json names no unet")
    parts = {
        name: value[1]
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and value[0] is not None and name not in UNUSED
    }
    given = {name: kind for name, kind in parts.items() if name != "scheduler"}
    if not any(given.keys() == kind.keys() and all(given[key] in kind[key] for key in kind) for kind in KINDS):
        listed = ", ".join(f"{name} {kind}" for name, kind in sorted(given.items()))
        raise InputError(
            f"{model} must be a pixel, latent or Stable Diffusion 1 or 2 pipeline, its parts are: {listed}"
        )
    return given


def _read_scheduler(folder: Path, model: str) -> Any:
    """A pipeline's scheduler; for a bare U-Net the scheduler of DDPM."""
    if (folder / "model_index.json").is_file():
        return build_scheduler(_read_json(_part(folder, "scheduler") / "scheduler_config.json"))
    log.warning("%s has no scheduler; DDPM's linear schedule of 1000 steps and eps prediction are assumed", model)
    return DDPMScheduler()


def _read_codec(folder: Path, index: dict[str, str], model: str, dtype: torch.dtype, device: torch.device) -> Codec:
    """The codec of a pipeline's autoencoder, if it has one.

    A `VQModel` that names no scaling factor has none: the latents of Rombach et al.'s VQ models are not scaled, and
    diffusers' default of 0.18215, made for Stable Diffusion, spoils the images of CompVis/ldm-celebahq-256.
    """
    names = sorted(index.keys() & {"vae", "vqvae"})
    if not names:
        return PixelCodec()
    autoencoder = _read_module(folder, names[0], index[names[0]], model).to(device)
    default = {"VQModel": 1.0, "AutoencoderKL": 0.18215}[index[names[0]]]
    scale = _read_json(_part(folder, names[0]) / "config.json").get("scaling_factor", default)
    return make_codec(autoencoder, scale, dtype)


def _read_module(folder: Path, name: str, expected: str, model: str) -> Any:
    """A network in float32 on the CPU, from safetensors where there are any, else from `.bin` with weights_only."""
    part = _part(folder, name)
    kind = _read_json(part / "config.json").get("_class_name")
    if kind != expected:
        raise InputError(f"the {name} of {model} must be a {expected} of diffusers, got {kind}")
    try:
        module: Any = getattr(diffusers, expected)
        loaded = module.from_pretrained(part, output_loading_info=True, local_files_only=True)
    # Broken files raise errors of many kinds: safetensors', pickle's, OSError, ValueError, RuntimeError.
    except Exception as error:
        raise InputError(f"the weights of {model} cannot be read: {_one_line(error)}") from error
    network, info = loaded
    wrong = [*info["missing_keys"], *info["unexpected_keys"]]
    if wrong:
        raise InputError(f"the weights of {model} do not fit its config.json: {len(wrong)} tensors, e.g. {wrong[0]}")
    return network


def _part(folder: Path, name: str) -> Path:
    """A component's folder; old pipelines have all files at the root."""
    return folder / name if (folder / name).is_dir() else folder


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {_one_line(error)}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextlib.contextmanager
def _quiet_diffusers() -> Iterator[None]:
    """Hold back diffusers' own messages; what matters of them is checked and raised here."""
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(verbosity)
