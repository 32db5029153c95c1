"""A name, a folder or a hub id becomes a `DiffusionModel`: U-Net, schedule, codec, and the hash of its weights.

Read are pixel-space pipelines as diffusers saves them (`model_index.json` with a `UNet2DModel` and a scheduler) and
bare `UNet2DModel` folders. A pipeline's own code is never run.
"""

import contextlib
import difflib
import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import hf_hub_download, model_info

from hspace.files import package_path
from hspace.latents import Latents
from hspace.schedule import Schedule
from hspace.types import Images, InputError
from hspace.unet import SemanticUNet

log = logging.getLogger(__name__)

EMBEDDED = {"portraits": "portraits/ddpm"}
"""Models that come with the package, by name: their folder under the packaged weights."""

DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "float16", "bfloat16")}


class PixelCodec:
    """The codec of a model whose own space is pixels: nothing to do."""

    def encode(self, images: Images) -> Images:
        """Images in [-1, 1] to the model's space, where they are the same."""
        return images

    def decode(self, x_0: Images) -> Images:
        """The model's clean samples to images in [-1, 1], not clipped."""
        return x_0


@dataclass(frozen=True)
class DiffusionModel:
    """A loaded model, ready to sample.

    Attributes:
        unet: In evaluation mode, without gradients for its weights.
        schedule: Noise levels and the model times that are visited.
        codec: Between the model's space and images.
        model_id: Name of the embedded model, hub id, or the folder's own name.
        model_sha256: Hash of the weights as stored; see `weights_sha256`.
    """

    unet: SemanticUNet
    schedule: Schedule
    codec: PixelCodec
    model_id: str
    model_sha256: str

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.unet.unet.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype the network computes in."""
        return self.unet.unet.dtype

    @property
    def h_shape(self) -> tuple[int, int, int]:
        """(channel, height, width) of h at one step."""
        return self.unet.h_shape

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(channel, height, width) of x_t."""
        return self.unet.sample_shape

    def latents(self, seeds: Sequence[int]) -> Latents:
        """x_T and z of the given samples for this model's shape and steps, on its device."""
        return Latents.from_seeds(seeds, self.sample_shape, len(self.schedule.timesteps)).to(self.device)


def load_model(
    model: str = "portraits",
    *,
    h_space: str = "after",
    num_steps: int = 10,
    spacing: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
) -> DiffusionModel:
    """Load a diffusion model.

    Args:
        model: An embedded model's name (`portraits`), a folder, or a hub id `owner/name`.
        h_space: Where h is tapped: `before`, `middle` or `after` the mid block.
        num_steps: Sampling steps.
        spacing: `leading`, `trailing` or `linspace`; None takes the checkpoint's.
        device: `auto` (cuda, mps, else cpu), `cpu`, `cuda` or `mps`.
        dtype: What the network computes in: `float32`, `float64`, `float16` or `bfloat16`.

    Raises:
        InputError: If there is no such model, it is of an unsupported kind, its weights cannot be read, or another
            argument is none of its choices.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype}")
    target = _find_device(device)
    folder, model_id = _find_folder(model)
    with _quiet_diffusers():
        scheduler = _read_scheduler(folder, model)
        schedule = Schedule.from_scheduler(scheduler, num_steps, spacing)
        unet = _read_unet(folder, model)
    sha256 = weights_sha256(unet)
    semantic = SemanticUNet(unet, h_space).to(target, DTYPES[dtype]).eval().requires_grad_(False)
    return DiffusionModel(semantic, schedule, PixelCodec(), model_id, sha256)


def weights_sha256(unet: torch.nn.Module) -> str:
    """SHA-256 over a U-Net's tensors in sorted name order: name, shape, float32 bytes (little-endian)."""
    digest = hashlib.sha256()
    for name, tensor in sorted(unet.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().astype("<f4", copy=False).data)
    return digest.hexdigest()


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
    unreachable = _why_unreachable(model)
    try:
        index = hf_hub_download(model, "model_index.json", local_files_only=unreachable is not None)
        _check_index(_read_json(Path(index)), model)
        with _quiet_diffusers():
            return Path(DiffusionPipeline.download(model, local_files_only=unreachable is not None))
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = _one_line(unreachable or error)
        raise InputError(f"no folder {model}, and no hub model of that name can be fetched: {reason}") from error


def _why_unreachable(model: str) -> Exception | None:
    """One request, since a download asks again and again for half a minute where there is no network."""
    try:
        model_info(model, timeout=10)
    # Without a network httpx, with HF_HUB_OFFLINE or an unknown model huggingface_hub: the cache may still have it.
    except Exception as error:
        return error
    return None


def _read_scheduler(folder: Path, model: str) -> Any:
    """A pipeline's scheduler configuration; for a bare U-Net the scheduler of DDPM."""
    if (folder / "model_index.json").is_file():
        _check_index(_read_json(folder / "model_index.json"), model)
        return _read_json(_part(folder, "scheduler") / "scheduler_config.json")
    if not (folder / "config.json").is_file():
        raise InputError(f"{model} is no diffusion model: it has neither model_index.json nor config.json")
    log.warning("%s has no scheduler; DDPM's linear schedule of 1000 steps and eps prediction are assumed", model)
    return DDPMScheduler()


def _check_index(index: Any, model: str) -> None:
    """Refuse what is not a pixel-space pipeline with an unconditional U-Net."""
    if not isinstance(index, dict) or "unet" not in index:
        raise InputError(f"{model} is no diffusion model: its model_index.json names no unet")
    parts = {name for name, value in index.items() if isinstance(value, list) and value[:1] != [None]}
    extra = sorted(parts - {"unet", "scheduler"})
    if extra:
        raise InputError(f"{model} also has {', '.join(extra)}; only pixel-space models are supported, not latent ones")
    if index["unet"] != ["diffusers", "UNet2DModel"]:
        raise InputError(f"the U-Net of {model} must be a UNet2DModel of diffusers, got {index['unet']}")


def _read_unet(folder: Path, model: str) -> UNet2DModel:
    """The U-Net in float32 on the CPU, from safetensors where there are any, else from `.bin` with weights_only."""
    part = _part(folder, "unet")
    kind = _read_json(part / "config.json").get("_class_name")
    if kind != "UNet2DModel":
        raise InputError(f"the U-Net of {model} must be a UNet2DModel of diffusers, got {kind}")
    try:
        loaded: Any = UNet2DModel.from_pretrained(part, output_loading_info=True, local_files_only=True)
    # Broken files raise errors of many kinds: safetensors', pickle's, OSError, ValueError, RuntimeError.
    except Exception as error:
        raise InputError(f"the weights of {model} cannot be read: {_one_line(error)}") from error
    unet, info = loaded
    wrong = info["missing_keys"] or info["unexpected_keys"]
    if wrong:
        raise InputError(f"the weights of {model} do not fit its config.json: {len(wrong)} tensors, e.g. {wrong[0]}")
    return unet


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
