# pyright: strict, reportUnknownMemberType=false
"""Loads a `DiffusionModel` (denoiser, process, codec and identity) by a name, a folder or a hub id.

It reads pipelines of the families of `hspace.diffusion.families` as diffusers saves them, and folders of a bare
`UNet2DModel`. It never runs a pipeline's own code.
"""

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from huggingface_hub import (
    hf_hub_download,  # pyright: ignore[reportUnknownVariableType]
    list_repo_files,  # pyright: ignore[reportUnknownVariableType]
)

from hspace.diffusion.codecs import Codec
from hspace.diffusion.denoiser import Conditioning, CutDenoiser, Denoiser
from hspace.diffusion.embedded import EMBEDDED, model_id_of
from hspace.diffusion.families import IGNORED, Encoder, Family, Loaded, Request, find_family
from hspace.diffusion.identity import SCHEDULER, Identity
from hspace.diffusion.latents import Latents
from hspace.diffusion.process import Process
from hspace.diffusion.provenance import ProcessFacts, Provenance, conditioning_of
from hspace.diffusion.reading import WEIGHTS, choose_variant, quiet_diffusers, read_json
from hspace.system.allocator import keep_freed_memory
from hspace.system.files import package_path
from hspace.system.hub import why_unreachable
from hspace.system.records import is_list
from hspace.types import InputError, Seeds, in_one_line, one_line

COMMIT = re.compile(r"[0-9a-f]{40}")
"""Name of the folder in which the hub's cache keeps the files of a commit."""

DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "float16", "bfloat16")}


@dataclass(frozen=True)
class DiffusionModel:
    """A loaded model, ready to sample.

    Attributes:
        denoiser: The network cut at its tap, in evaluation mode, without gradients for its weights.
        process: Noise levels and the model times that are visited.
        codec: The maps between the model's space and images.
        model_id: Name of the embedded model, hub id, or the folder's own name, after `./` if it is that of an embedded
            model.
        identity: Hashes of the contents that define the model.
        cond: The prompt or class, where the model takes one.
        encode_prompt: The encoder that makes another `cond`, where the model takes prompts or classes.
        revision: Commit on the hub that the files come from; None where they do not come from the hub.
    """

    denoiser: Denoiser
    process: Process
    codec: Codec
    model_id: str
    identity: Identity
    cond: Conditioning | None = None
    encode_prompt: Encoder | None = None
    revision: str | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.denoiser.network.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the network's computations."""
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
            InputError: If the model takes no prompts, or guidance is not a number >= 0.
        """
        if self.encode_prompt is None:
            raise InputError(f"{self.model_id} takes no prompt, got {prompt!r}")
        return replace(self, cond=self.encode_prompt(prompt, guidance))

    def tapped(self, tap: str) -> "DiffusionModel":
        """The same model with its h at another place; the network is shared.

        Args:
            tap: Place of h; see `hspace.diffusion.taps`.

        Raises:
            InputError: If the network does not have that place, or is not one that can be tapped anywhere.
        """
        denoiser = self.denoiser
        if not isinstance(denoiser, CutDenoiser):
            raise InputError(f"{self.model_id} has one place of h, {denoiser.tap}, got {tap}")
        return replace(self, denoiser=CutDenoiser(denoiser.network, tap, denoiser.wiring))

    def provenance(
        self,
        *,
        eta: float | Sequence[float] | None = None,
        tap: bool = True,
        injection: str | None = None,
        annotator: dict[str, str] | None = None,
    ) -> Provenance:
        """The provenance of what is made with this model.

        Args:
            eta: Stochasticity, one value or one per step; None where it does not matter.
            tap: Whether the place of h matters.
            injection: Way in which an edit enters a step; None where nothing is edited.
            annotator: Scorer that chose the examples; see `scorer_identity`.

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

    def latents(self, seeds: Seeds) -> Latents:
        """x_T and z of the given samples for this model's shape and steps, on its device."""
        return Latents.from_seeds(seeds, self.sample_shape, len(self.process.timesteps)).to(self.device)


def load_model(
    model: str = "portraits",
    *,
    tap: str | None = None,
    num_steps: int = 10,
    spacing: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
    prompt: str = "",
    guidance: float = 7.5,
    revision: str | None = None,
    family: str | None = None,
) -> DiffusionModel:
    """Load a diffusion model.

    On a CPU the process keeps memory that it frees from then on; see `hspace.system.allocator`.

    Args:
        model: An embedded model's name (`portraits`, `portraits-128`, `rooms`), a folder, or a hub id `owner/name`.
        tap: Place where h is read and edited; see `hspace.diffusion.taps`. None is `after` the mid block of a U-Net, as
            in all results of the paper, and the output of a transformer's middle block, of FLUX its middle double one.
        num_steps: Number of sampling steps.
        spacing: Spacing of the steps, `leading`, `trailing` or `linspace`; None takes the checkpoint's.
        device: `auto` (cuda, mps, else cpu), `cpu`, `cuda` or `mps`.
        dtype: Dtype of the network's computations: `float32`, `float64`, `float16` or `bfloat16`.
        prompt: Text that a text-to-image model is conditioned on, where the empty text is the unconditional model;
            number or name of a class, for a model of classes.
        guidance: Classifier-free guidance on a prompt, >= 0, where 1 is none; a distilled model takes it as an input.
            Models without prompts ignore it.
        revision: Commit, branch or tag of a hub model; None is the newest one available.
        family: Name of the model's family, or "module:name" of your own; None finds it by the checkpoint's parts.

    Raises:
        InputError: If the model does not exist, its kind is not supported, its weights cannot be read, or another
            argument is not one of its choices.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype}")
    target = _find_device(device)
    folder, model_id = _find_folder(model, revision)
    with quiet_diffusers(), in_one_line(model):
        index = _read_index(folder, model) if family is None else _named_parts(folder)
        request = Request(folder, model, index, tap or "", num_steps, spacing, target, DTYPES[dtype])
        kind = find_family(index, model, family)
        found = kind.load(request)
        loaded = DiffusionModel(
            found.denoiser, found.process, found.codec, model_id, found.identity.with_code(_code(kind, found)),
            encode_prompt=found.encode, revision=folder.name if COMMIT.fullmatch(folder.name) else None,
        )  # fmt: skip
        if loaded.image_shape[0] not in (1, 3):
            raise InputError(f"{model} must make images of 1 or 3 channels, got {loaded.image_shape[0]}")
        loaded = loaded.with_prompt(prompt, guidance) if found.encode or prompt else loaded
        if target.type == "cpu":
            keep_freed_memory()
        _check_pass(loaded)
    return loaded


@torch.no_grad()
def _check_pass(model: DiffusionModel) -> None:
    """Runs one pass, so that sizes that do not fit together are found before any work.

    Raises:
        InputError: If what comes out is not shaped like images.
    """
    x_t, t = torch.zeros(1, *model.sample_shape, device=model.device), model.process.timesteps[0]
    encoded = model.denoiser.encode(x_t, t, model.cond)
    output, images = model.denoiser.decode(encoded.h, encoded), model.codec.decode(x_t)
    found, wanted = (tuple(output.shape[1:]), tuple(images.shape[1:])), (model.sample_shape, model.image_shape)
    if found != wanted:
        raise InputError(f"{model.model_id} must give predictions and images of {wanted}, gives {found}")


def _code(family: Family, found: Loaded) -> list[Any]:
    """The objects whose code loads and runs a family's model, for `Identity.with_code`."""
    own = getattr(family, "__dict__", {}).values()
    return [family, *own, found.denoiser, getattr(found.denoiser, "wiring", None), found.codec, found.encode]


def _find_device(device: str) -> torch.device:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    usable = [name for name, present in available.items() if present]
    if device == "auto":
        return torch.device(usable[0])
    if device.split(":")[0] not in usable:
        raise InputError(f"device must be auto or one this machine has ({', '.join(usable)}), got {device}")
    return torch.device(device)


def _find_folder(model: str, revision: str | None) -> tuple[Path, str]:
    """The folder of a model's files, fetched where it is a hub id, and the model's id."""
    if model in EMBEDDED:
        folder = package_path("weights") / EMBEDDED[model]
        if not folder.is_dir():
            raise InputError(f"the weights of the embedded model {model} are not installed; give model.path=FOLDER")
        return folder, model
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder, model_id_of(model)
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", model):
        return _download(model, revision), model
    near = difflib.get_close_matches(model, EMBEDDED, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known models: {', '.join(EMBEDDED)}"
    raise InputError(f"{model} is neither a known model nor a folder; {hint} (a hub id is owner/name)")


def _download(model: str, revision: str | None) -> Path:
    """The local copy of a hub pipeline, downloaded where it is not cached yet."""
    unreachable = why_unreachable(model)
    try:
        index = hf_hub_download(model, "model_index.json", revision=revision, local_files_only=unreachable is not None)
        parts = _class_names(read_json(Path(index)), model)
        if unreachable is not None:
            return _fetch(model, revision, local_files_only=True)
        variants = _variants(list_repo_files(model, revision=revision), parts)
        folder = Path(index).parent
        # diffusers fetches plain files or those of a variant, and leaves out the parts that it is given.
        for variant in sorted(set(variants.values()) or {None}, key=str):
            others = [part for part, kind in variants.items() if kind != variant]
            folder = _fetch(model, revision, variant=variant, **dict.fromkeys(others))
        return folder
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = one_line(unreachable or error)
        raise InputError(f"{model} is not a folder, and the hub does not give such a model: {reason}") from error


def _fetch(model: str, revision: str | None, **options: Any) -> Path:
    unused = {"safety_checker": None, "feature_extractor": None}
    with quiet_diffusers():
        return Path(cast(str, DiffusionPipeline.download(model, revision=revision, **unused, **options)))


def _variants(files: Sequence[str], parts: Collection[str]) -> dict[str, str | None]:
    """The variant to fetch of each part that has files of weights; None where there are plain ones."""
    found: dict[str, list[str | None]] = {}
    for file in files:
        part, _, name = file.rpartition("/")
        match = WEIGHTS.fullmatch(name)
        if part in parts and match is not None:
            found.setdefault(part, []).append(match[1])
    return {part: choose_variant(kinds) for part, kinds in found.items()}


def _read_index(folder: Path, model: str) -> dict[str, str]:
    """Class name of each part that is read, by the part's name; a bare U-Net is its own only part."""
    if (folder / "model_index.json").is_file():
        return _class_names(read_json(folder / "model_index.json"), model)
    if not (folder / "config.json").is_file():
        raise InputError(f"{model} is not a diffusion model: it has neither model_index.json nor config.json")
    return {"unet": "UNet2DModel"}


def _named_parts(folder: Path) -> dict[str, str]:
    """Class names of a folder of a family that was named: whatever its index says, if it has one."""
    path = folder / "model_index.json"
    return _parts_of(read_json(path)) if path.is_file() else {}


def _parts_of(index: dict[str, Any]) -> dict[str, str]:
    listed = {name: value for name, value in index.items() if is_list(value) and len(value) == 2}
    return {name: value[1] for name, value in listed.items() if value[0] is not None and name not in IGNORED}


def _class_names(index: dict[str, Any], model: str) -> dict[str, str]:
    """Class name of each part that a pipeline's index names."""
    parts = _parts_of(index)
    if not parts.keys() & {"unet", "transformer"}:
        raise InputError(f"{model} is not a diffusion model: its model_index.json names neither unet nor transformer")
    return parts
