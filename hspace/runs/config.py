"""The validated configuration: frozen records, which `parsing.parse` makes of Hydra's dictionary.

The defaults stand in `conf/`, one commented file per choice; each field's annotation here holds its rule (`rules.py`).
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from hspace.runs.rules import (
    choice,
    filepath,
    flag,
    listed,
    network,
    number,
    one_or_several,
    optional,
    several,
    text,
    text_or_several,
    whole,
    word,
)

METHOD_KEYS = {
    "pca": {"k", "num_samples", "joint"},
    "local_pca": {"k", "num_samples", "sample"},
    "random": {"k", "num_samples"},
    "jacobian": {"k", "sample"},
    "supervised": {"attribute", "k", "num_samples", "space"},
    "file": {"path"},
}
"""The settings that each method needs."""

OPTIONAL_KEYS = {
    "jacobian": {"mask", "outside", "block_size", "steps"},
    "supervised": {"conditions", "balance", "classifier"},
}
"""Those that it reads where they are given; `parse` refuses the others, which would be ignored."""

PROCEDURES = (
    "edit", "fig2", "fig3", "fig4", "fig5", "fig6", "fig7", "fig8a", "fig8b", "fig9", "table1", "fig11", "fig13",
    "fig17", "fig18", "compare_methods",
)  # fmt: skip
"""What a run can do: edit with one method and judge it, or an experiment of the paper."""

SCORERS = ("portraits-annotator", "portraits-judge")
"""Scorers that are in the package; others are `clip:MODEL` and `hub:MODEL`, a folder or hub id."""

ALLOWED = ("model", "process", "tap", "conditioning", "eta")
"""Fields of a provenance in which directions can differ from where they are applied."""

MAX_SAMPLES = 1_000_000
"""Seeds of discovery, calibration and evaluation lie this far apart."""


@dataclass(frozen=True)
class ModelConfig:
    """Which network, and where h is tapped.

    Attributes:
        name: The file in conf/model.
        path: What `load_model` takes: an embedded model's name, a folder or a hub id.
        tap: The tap, about the mid block.
        prompt: Text for a text-to-image model; None is the unconditional one.
        guidance: Classifier-free guidance on the prompt; 1 is none.
    """

    name: Annotated[str, word]
    path: Annotated[str, text]
    tap: Annotated[str, choice("before", "middle", "after")]
    prompt: Annotated[str | None, optional(text)] = None
    guidance: Annotated[float, number(0)] = 7.5


@dataclass(frozen=True)
class DatasetConfig:
    """Which images are the real ones."""

    name: Annotated[str, choice("portraits")]


@dataclass(frozen=True)
class DiffusionConfig:
    """The reverse process.

    Attributes:
        num_steps: Number of sampling steps.
        eta: 0 is DDIM, 1 is DDPM; one value or one per step.
        spacing: How steps lie in model time; None takes the checkpoint's.
        injection: Whether the edit enters both terms of the step (symmetric) or only the predicted image (asyrp).
    """

    num_steps: Annotated[int, whole(1, 1000)]
    eta: Annotated[float | tuple[float, ...], one_or_several(number(0, 1))]
    spacing: Annotated[str | None, optional(choice("leading", "trailing", "linspace"))]
    injection: Annotated[str, choice("symmetric", "asyrp")]


@dataclass(frozen=True)
class MethodConfig:
    """How directions are found; what a method does not read (`METHOD_KEYS`, `OPTIONAL_KEYS`) is None.

    Attributes:
        name: The method.
        path: File of directions that were found before.
        k: Number of directions (per step: jacobian), or of examples on each side (supervised).
        num_samples: Generated samples to discover with.
        joint: Whether all steps share one PCA.
        sample: Seed of the one sample that the directions belong to.
        attribute: Attribute that the direction is to change.
        conditions: Attributes whose own directions are projected off it.
        balance: Attribute in which the examples are not to differ.
        classifier: Linear classifier whose boundary gives the direction; None is the difference of the means.
        space: Where the direction lies: h or x_T.
        mask: Region of interest: a PNG file, a named region, or [top, left, bottom, right] in fractions.
        outside: nullspace keeps to directions that leave the outside of the mask alone.
        block_size: Directions sought at a time, which bounds memory.
        steps: Step indices at which directions are sought.
    """

    name: Annotated[str, choice(*METHOD_KEYS)]
    path: Annotated[Path | None, optional(filepath)] = None
    k: Annotated[int | None, optional(whole(1))] = None
    num_samples: Annotated[int | None, optional(whole(2, MAX_SAMPLES))] = None
    joint: Annotated[bool | None, optional(flag)] = None
    sample: Annotated[int | None, optional(whole(0, MAX_SAMPLES - 1))] = None
    attribute: Annotated[str | None, optional(word)] = None
    conditions: Annotated[tuple[str, ...] | None, optional(several(word))] = None
    balance: Annotated[str | None, optional(word)] = None
    classifier: Annotated[str | None, optional(choice("logistic", "svm"))] = None
    space: Annotated[str | None, optional(choice("h", "x_T"))] = None
    mask: Annotated[str | tuple[float, ...] | None, optional(text_or_several(number(0, 1)))] = None
    outside: Annotated[str | None, optional(choice("nullspace"))] = None
    block_size: Annotated[int | None, optional(whole(1))] = None
    steps: Annotated[tuple[int, ...] | None, optional(several(whole(0), at_least=1))] = None


@dataclass(frozen=True)
class EditConfig:
    """How directions are applied.

    Attributes:
        strengths: Factors of the directions, in the directions' unit.
        components: Indices of the directions to apply; None is all.
        start: First step of the edit; 0 is the noisiest.
        stop: Step before which the edit ends; None is the end.
    """

    strengths: Annotated[tuple[float, ...], several(number(), at_least=1)]
    components: Annotated[tuple[int, ...] | None, optional(several(whole(0), at_least=1))]
    start: Annotated[int, whole(0)]
    stop: Annotated[int | None, optional(whole(1))]


@dataclass(frozen=True)
class EvaluationConfig:
    """How edits are measured.

    Attributes:
        annotator: Scorer that names directions and chooses.
        judge: Scorer that grades.
        allow_same_scorer: Whether one scorer may do both.
        num_samples: Images that each direction is judged on.
        identity: Encoder that says whether an edit shows the same person.
        regions: Network that finds a named `method.mask` in the image.
        reference_samples: Unedited images whose spread is the unit of effects.
        calibration_samples: Images on which directions are named, and strengths and signs chosen.
        bootstrap: Resamples behind each interval, at least 100.
        measures: What is read off every edit, by name or as module:name.
    """

    annotator: Annotated[str, network(*SCORERS, kinds=("clip", "hub"))]
    judge: Annotated[str, network(*SCORERS, kinds=("clip", "hub"))]
    identity: Annotated[str, network("portraits-identity", kinds=("hub",))]
    regions: Annotated[str, network("portraits-regions", kinds=("hub",))]
    allow_same_scorer: Annotated[bool, flag]
    num_samples: Annotated[int, whole(1, MAX_SAMPLES)]
    reference_samples: Annotated[int, whole(2, MAX_SAMPLES)]
    calibration_samples: Annotated[int, whole(2, MAX_SAMPLES)]
    bootstrap: Annotated[int, whole(100)]
    measures: Annotated[tuple[str, ...], several(text, at_least=1)]


@dataclass(frozen=True)
class StudyConfig:
    """What an experiment of the paper needs beyond one method and its edits.

    Attributes:
        title: What it shows.
        expect: What the paper found, or what is to be expected where it has no such experiment.
        attributes: Attributes that are edited, each with a direction of its own.
        index: Annotated samples from which examples are chosen.
        examples: Examples on each side of a mean difference.
        repeats: Fresh sets of evaluation samples: the seeds of a table.
        target: Effect, in sd, at which edits are compared.
        pairs: Folder of photographs of people, one folder per expression; null takes rendered people.
    """

    title: Annotated[str, text]
    expect: Annotated[str, text]
    attributes: Annotated[tuple[str, ...], several(word, at_least=1)]
    index: Annotated[int, whole(2, MAX_SAMPLES)]
    examples: Annotated[int, whole(1)]
    repeats: Annotated[int, whole(1)]
    target: Annotated[float, number(0)]
    pairs: Annotated[Path | None, optional(filepath)]


@dataclass(frozen=True)
class TrackingConfig:
    """Where the run is logged; group None is the run's name."""

    mode: Annotated[Literal["offline", "online", "disabled"], choice("offline", "online", "disabled")]
    project: Annotated[str, word]
    entity: Annotated[str | None, optional(word)]
    group: Annotated[str | None, optional(text)]
    tags: Annotated[tuple[str, ...], several(text)]


@dataclass(frozen=True)
class Config:
    """All that a run depends on.

    Attributes:
        name: Of the run: the experiment's, or the method's.
        procedure: `edit`, or the experiment of the paper that is run.
        seed: Of random directions and the bootstrap; samples have seeds of their own.
        device: Where the network runs; auto takes the best there is.
        dtype: The network's.
        batch_size: Images per pass of the network; 0 is as many as the memory holds.
        memory_gib: What the model and its passes may take where batch_size is 0, and PCA in any case; null is half of
            what is free, and for PCA no limit.
        allow: In what directions of a file may differ from where they are applied; see `Provenance`.
        output_dir: Where results go.
        cache_dir: Where recorded h and directions are kept for other runs.
    """

    name: Annotated[str, word]
    procedure: Annotated[str, choice(*PROCEDURES)]
    seed: Annotated[int, whole(0, 2**63 - 1)]
    device: Annotated[str, choice("auto", "cpu", "cuda", "mps")]
    dtype: Annotated[str, choice("float32", "float64", "float16", "bfloat16")]
    batch_size: Annotated[int, whole(0)]
    memory_gib: Annotated[float | None, optional(number(0))]
    allow: Annotated[tuple[str, ...], listed(choice(*ALLOWED))]
    output_dir: Annotated[Path, filepath]
    cache_dir: Annotated[Path, filepath]
    model: ModelConfig
    dataset: DatasetConfig
    diffusion: DiffusionConfig
    method: MethodConfig
    edit: EditConfig
    evaluation: EvaluationConfig
    study: StudyConfig
    tracking: TrackingConfig


def known_keys(record: Any = Config, prefix: str = "") -> list[str]:
    """Every key, those of sections dotted, each section before its own."""
    keys = []
    for name, kind in get_type_hints(record).items():
        keys.append(prefix + name)
        if dataclasses.is_dataclass(kind):
            keys += known_keys(kind, f"{prefix}{name}.")
    return keys


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def config_sha256(config: Config) -> str:
    """Identifies what determines the results: everything but folders, device, batch size, memory and tracking."""
    values = to_dict(config)
    for key in ("output_dir", "cache_dir", "device", "batch_size", "memory_gib", "tracking"):
        del values[key]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
