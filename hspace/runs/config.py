"""The validated configuration: frozen records, which `parsing.parse` makes from Hydra's dictionary.

The defaults are in `conf/`, one commented file per choice; each field's annotation here holds its rule.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainSerializer, SkipValidation, TypeAdapter
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from hspace.diffusion.sampler import BLOCK, BLOCKS, Sampler
from hspace.directions.settings import MAX_SAMPLES, Settings
from hspace.runs.wording import Meaning, fields_of
from hspace.scorers.names import EMBEDDERS, REGIONS, SCORERS
from hspace.system.registry import REFERENCE, Registry

ALLOWED = Literal["model", "process", "tap", "conditioning", "eta"]
"""Fields of a provenance in which directions may differ from the model that they are applied to."""

PLAIN_TAPS = ("before", "middle", "after", "mod")
"""Taps whose name is one word; see `hspace.diffusion.taps` for the others."""

RULES = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""Rules of all records: a value must have the right type; only lists become tuples, and texts become paths."""


def _known(registry: Registry) -> BeforeValidator:
    """One of the registry's names, such a name with a model behind a colon, or "module:name"."""

    def check(value: Any) -> Any:
        name = value if isinstance(value, str) else ""
        kind, _, model = name.partition(":")
        if not (name in registry or (model and kind in registry) or REFERENCE.fullmatch(name)):
            raise PydanticCustomError("unknown_name", "unknown name", {"known": registry.names()})
        return value

    return BeforeValidator(check)


def _tap(value: Any) -> Any:
    """A tap that is one word is one of those about a U-Net's middle, or `mod`; whether a network has it shows later."""
    if isinstance(value, str) and value.isalpha() and value not in PLAIN_TAPS:
        raise PydanticCustomError("unknown_name", "unknown name", {"known": PLAIN_TAPS})
    return value


def _as_tuple(value: Any) -> tuple[Any, ...]:
    """One value is a list of it."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _workers(value: Any) -> Any:
    if value != "auto" and not (type(value) is int and value >= 1):
        raise ValueError("neither")
    return value


def _not_blank(path: Path) -> Path:
    if not str(path).strip() or path == Path():
        raise ValueError("blank")
    return path.expanduser()


Text = Annotated[str, Field(pattern=r"\S"), Meaning("text that is not empty")]
Tap = Annotated[str, BeforeValidator(_tap), Field(pattern=r"\S"), Meaning("a tap, as docs/models.md lists them")]
Word = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"),
    Meaning("a word of at most 100 letters, digits, '_', '-' and '.'"),
]
"""Text that can be a file's name on any system, and part of the name of a project or an artifact of W&B."""
Tag = Annotated[str, Field(pattern=r"\S", max_length=64), Meaning("text of at most 64 letters that is not empty")]
Group = Annotated[str, Field(pattern=r"\S", max_length=128), Meaning("text of at most 128 letters that is not empty")]
Name = Annotated[str, Field(pattern=r"^[\w.-]+(:\w+)?$"), Meaning("a name, or module:name")]
Filepath = Annotated[Path, AfterValidator(_not_blank), Meaning("text that is not empty")]
Count = Annotated[int, Field(ge=1)]
Workers = Annotated[int | Literal["auto"], BeforeValidator(_workers), Meaning("auto, or a whole number of at least 1")]
Index = Annotated[int, Field(ge=0)]
Samples = Annotated[int, Field(ge=1, le=MAX_SAMPLES)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
AtLeastOne: Any = Field(min_length=1)


@dataclass(frozen=True, config=RULES)
class ModelConfig:
    """The network, and its tap.

    Attributes:
        name: Name of the file in conf/model.
        path: Name of an embedded model, folder or hub id, as in `load_model`.
        tap: Tap; None is the family's own.
        prompt: Text for a text-to-image model, where None is the unconditional one; or number or name of a class.
        guidance: Guidance on the prompt; 1 is none.
        revision: Commit, branch or tag of a hub model; None is the newest.
        family: Name of the model's family, or "module:name" of your own; None finds it by the checkpoint's parts.
    """

    name: Word
    path: Text
    tap: Tap | None = None
    prompt: Text | None = None
    guidance: NotNegative = 7.5
    revision: Text | None = None
    family: Text | None = None


@dataclass(frozen=True, config=RULES)
class DatasetConfig:
    """The real images.

    Attributes:
        name: Kind of images: `portraits` are rendered, without end; `folder` are photographs.
        path: Folder of the photographs.
    """

    name: Literal["portraits", "folder"]
    path: Filepath | None

    def __post_init__(self) -> None:
        """Raises ValueError where a folder is missing, or would not be read."""
        if (self.name == "folder") != (self.path is not None):
            wanted = "a folder for dataset=folder" if self.path is None else "null for rendered portraits"
            raise ValueError(f"path must be {wanted}, got {self.path}")


@dataclass(frozen=True, config=RULES)
class DiffusionConfig:
    """The reverse process.

    Attributes:
        num_steps: Number of sampling steps.
        eta: Stochasticity: 0 is DDIM, 1 is DDPM; one value or one per step.
        spacing: Spacing of the steps in model time; None takes the checkpoint's.
        injection: Terms of the step that the edit enters: both (symmetric), or only the predicted image (asyrp).
    """

    num_steps: Annotated[int, Field(ge=1, le=1000)]
    eta: Share | Annotated[tuple[Share, ...], AtLeastOne]
    spacing: Literal["leading", "trailing", "linspace"] | None
    injection: Literal["symmetric", "asyrp"]


@dataclass(frozen=True, config=RULES)
class EditConfig:
    """The application of directions.

    Attributes:
        strengths: Factors of the directions, in the directions' unit.
        effects: Effects in sd in their place: each direction is scaled so that the largest of them, as a strength,
            moves its attribute by that many sd; the others are in proportion.
        components: Indices of the directions to apply; None is all.
        start: First step of the edit; 0 is the noisiest.
        stop: Step before which the edit ends; None is the end.
    """

    strengths: Annotated[tuple[Annotated[float, Field(ge=-1e30, le=1e30)], ...], AtLeastOne]
    effects: Annotated[tuple[Annotated[float, Field(ge=-100, le=100)], ...], AtLeastOne] | None
    components: Annotated[tuple[Index, ...], AtLeastOne] | None
    start: Index
    stop: Count | None


@dataclass(frozen=True, config=RULES)
class EvaluationConfig:
    """The measurement of edits.

    Attributes:
        annotator: Scorer that names directions, and chooses examples and strengths.
        judge: Scorer that grades.
        allow_same_scorer: Whether one scorer may do both.
        num_samples: Number of images that each direction is judged on; with fewer than ten no figure has an interval.
        identity: Encoder that says whether an edit shows the same person, by all that a person owns.
        likeness: Encoder that asks the same of shape and features alone, which no judged attribute is; or null.
        regions: Network that finds a named `method.mask` in the image.
        reference_samples: Number of unedited images whose spread is the unit of effects.
        calibration_samples: Number of images on which directions are named: one half confirms the other.
        strength_samples: Smallest number of images on which a strength is chosen; up to five times as many are taken
            where its effect is uncertain. The comparison of methods and table I take no more, over all draws, nor more
            than are judged.
        block: Block of 10,000 evaluation seeds that is read; 0 is for everyday runs, and no finding is of it.
        measures: Measures that are read off every edit, by name or as module:name.
    """

    annotator: Annotated[str, _known(SCORERS)]
    judge: Annotated[str, _known(SCORERS)]
    identity: Annotated[str, _known(EMBEDDERS)]
    likeness: Annotated[str, _known(EMBEDDERS)] | None
    regions: Annotated[str, _known(REGIONS)]
    allow_same_scorer: bool
    num_samples: Annotated[int, Field(ge=2, le=BLOCK)]
    reference_samples: Annotated[int, Field(ge=2, le=BLOCK)]
    calibration_samples: Annotated[int, Field(ge=4, le=MAX_SAMPLES)]
    strength_samples: Annotated[int, Field(ge=10, le=BLOCK)]
    block: Annotated[int, Field(ge=0, lt=BLOCKS)]
    measures: Annotated[tuple[Name, ...], AtLeastOne]

    def strength_share(self, draws: int) -> int:
        """Calibration samples of each draw where one strength is set for all; as many as are judged are enough."""
        return min(math.ceil(self.strength_samples / draws), self.num_samples)


@dataclass(frozen=True, config=RULES)
class StudyConfig:
    """Settings of an experiment of the paper beyond one method and its edits.

    Attributes:
        title: Title, which says what the experiment shows.
        expect: Finding of the paper, or the expected one where the paper has no such experiment.
        attributes: Attributes that are edited, each with a direction of its own.
        index: Number of annotated samples from which examples are chosen.
        examples: Number of examples on each side of a mean difference.
        repeats: Number of draws of examples, each with evaluation samples of its own; intervals over them need five.
        target: Effect, in sd, at which edits are compared.
        beside: Names of embedded models, or folders, that are measured beside `model`.
        taps: Taps of a transformer that are measured; `*` is every block.
        methods: Methods that are compared, as their table calls them; `*` is all.
        method: Method that table I sets beside mean differences, by the same names.
    """

    title: Text
    expect: Text
    attributes: Annotated[tuple[Word, ...], AtLeastOne]
    index: Annotated[int, Field(ge=2, le=MAX_SAMPLES)]
    examples: Count
    repeats: Count
    target: NotNegative
    beside: tuple[Filepath, ...]
    taps: tuple[Text, ...]
    methods: Annotated[tuple[Text, ...], AtLeastOne]
    method: Text


@dataclass(frozen=True, config=RULES)
class TrackingConfig:
    """The place where the run is logged, within W&B's own limits.

    Attributes:
        mode: offline keeps the tracked run in the output folder, online sends it, disabled tracks nothing.
        project: W&B's project.
        entity: W&B's user or team; null is the user's own default.
        group: Group of runs; null is the run's name.
        tags: Words to find runs by.
    """

    mode: Literal["offline", "online", "disabled"]
    project: Word
    entity: Word | None
    group: Group | None
    tags: tuple[Tag, ...]


@dataclass(frozen=True, config=RULES)
class Config:
    """All that a run depends on.

    Attributes:
        name: Name of the run: the experiment's, or the method's.
        procedure: Experiment that is run; `edit` is the plain one.
        seed: Seed of random directions, and number of the block of discovery samples.
        device: Device of the network; auto takes the best one available.
        dtype: Dtype of the network's computations.
        batch_size: Number of images per pass of the network; 0 is as many as the memory holds.
        workers: Number of processes that share the samples on a CPU; auto is one for each core.
        memory_gib: Memory for the model and its passes where batch_size is 0, and for PCA in any case; null is half of
            the free memory, and no limit for PCA.
        allow: Fields of `Provenance` in which directions of a file may differ from the model that they are applied to.
        output_dir: Folder of the results.
        cache_dir: Folder in which recorded h and directions are kept for other runs.
    """

    name: Word
    procedure: Name
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)]
    device: Literal["auto", "cpu", "cuda", "mps"]
    dtype: Literal["float32", "float64", "float16", "bfloat16"]
    batch_size: Index
    workers: Workers
    memory_gib: NotNegative | None
    allow: Annotated[tuple[ALLOWED, ...], BeforeValidator(_as_tuple)]
    output_dir: Filepath
    cache_dir: Filepath
    model: ModelConfig
    dataset: DatasetConfig
    diffusion: DiffusionConfig
    method: Annotated[Settings, SkipValidation, PlainSerializer(lambda settings: settings.model_dump(mode="json"))]
    edit: EditConfig
    evaluation: EvaluationConfig
    study: StudyConfig
    tracking: TrackingConfig

    @property
    def sampler(self) -> Sampler:
        """How samples are drawn and edited; one at a time until a batch size in place of 0 is known."""
        diffusion, edit = self.diffusion, self.edit
        return Sampler(diffusion.eta, diffusion.injection, edit.start, edit.stop, max(self.batch_size, 1))


def known_keys(record: Any = Config, prefix: str = "") -> list[str]:
    """Every key but those of methods, those of sections dotted, each section before its own."""
    keys = []
    for name, field in (fields_of(record) or {}).items():
        keys += [prefix + name, *known_keys(field.annotation, f"{prefix}{name}.")]
    return keys


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as JSON values."""
    return TypeAdapter(Config).dump_python(config, mode="json")


def determining(values: dict[str, Any]) -> dict[str, Any]:
    """What determines results, of a configuration as JSON values: all but what only says where and how fast."""
    free = ("output_dir", "cache_dir", "device", "batch_size", "workers", "memory_gib", "tracking")
    return {key: value for key, value in values.items() if key not in free}


def config_sha256(config: Config) -> str:
    """Identifies what determines results."""
    return hashlib.sha256(json.dumps(determining(to_dict(config)), sort_keys=True).encode()).hexdigest()
