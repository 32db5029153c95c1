# pyright: strict, reportUnknownMemberType=false
"""The metadata of directions: their provenance, the method that found them, and the meaning of a strength."""

import logging
from dataclasses import asdict, dataclass, field
from typing import Any

from hspace.diffusion.identity import WEIGHTS
from hspace.diffusion.provenance import Provenance
from hspace.system.records import (
    ANYTHING,
    LABEL,
    Rule,
    are_counts,
    are_labels,
    check_facts,
    is_sha256,
    one_of,
    short,
    tuples,
)
from hspace.types import InputError

log: logging.Logger = logging.getLogger(__name__)

FORMAT = 2
OLD_KEYS = (
    "space tap timesteps eta injection prediction_type model_id model_sha256 method names unit seeds config_sha256 "
    "calibration format"
).split()
"""Keys of format 1, which knew a model by its network's tensors alone."""


@dataclass(frozen=True)
class DirectionsMeta:
    """The origin of directions and what they fit; its fields are exactly the keys of the file's metadata.

    Attributes:
        space: "h", one offset per step at the tap, or "x_T", one offset of the terminal image.
        provenance: Model, tap, conditioning, process and eta of the samples that the directions were found on, how the
            edit enters the step where they were trained or measured for one way, and who annotated.
        model_id: Name of the model, for people.
        method: The method that found them, such as "pca", in words.
        names: One name per direction.
        unit: Meaning of strength 1, such as "std".
        settings: Settings of the method, as JSON values.
        seeds: Seeds of the samples that they were found on.
        config_sha256: Hash of the configuration of the run, "" outside a run.
        calibration: Results of a later calibration, as JSON; None without one.
        effects: Measured effects with their intervals, as JSON; None without any.
        differences: Differences of the model where they were found, which were allowed, in words; see `Directions.fit`.
        report: Figures of the search itself, as JSON, such as a loss or the explained variance; files may lack it.
        format: Version of the file format.
    """

    space: str
    provenance: Provenance
    model_id: str
    method: str
    names: tuple[str, ...]
    unit: str
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    seeds: tuple[int, ...] = ()
    config_sha256: str = ""
    calibration: dict[str, Any] | None = None
    effects: dict[str, Any] | None = None
    differences: tuple[str, ...] = ()
    report: dict[str, Any] = field(default_factory=dict[str, Any])
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Raises InputError naming the first field that is wrong."""
        check_facts(vars(self), RULES, f"format {FORMAT}")

    @property
    def timesteps(self) -> tuple[float, ...]:
        """Model time of each step, descending; step 0 is the noisiest."""
        return self.provenance.process.timesteps

    @property
    def eta(self) -> tuple[float, ...] | None:
        """Stochasticity of each step of the samples that the directions were found on; None if unknown."""
        return self.provenance.eta

    @property
    def annotator(self) -> dict[str, str] | None:
        """`id` and `sha256` of the scorer that chose the examples; None where nothing was annotated."""
        return self.provenance.annotator

    def to_dict(self) -> dict[str, Any]:
        """The metadata of a file, as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DirectionsMeta":
        """Inverse of `to_dict`, of values that anyone may have written; format 1 is read with a warning.

        Raises:
            InputError: If the keys or values are not those of a file.
        """
        if type(values.get("format")) is int and values["format"] == 1:
            values = _from_format_1(values)
        given: dict[str, Any] = {
            name: tuples(value) if isinstance(value, list) else value for name, value in values.items()
        }
        given.setdefault("report", {})
        check_facts(given | {"provenance": None}, RULES | {"provenance": ANYTHING}, f"format {FORMAT}")
        given["provenance"] = Provenance.from_dict(given["provenance"])
        return cls(**given)


UNKNOWN = "unknown"
"""In place of an annotator's hash in files of format 1."""


def annotated_by(meta: DirectionsMeta, scorer: dict[str, str]) -> bool:
    """Whether a scorer, by `id` and `sha256`, chose the examples of directions."""
    annotator = meta.annotator or {}
    return scorer["sha256"] == annotator.get("sha256") or (
        annotator.get("sha256") == UNKNOWN and scorer["id"] == annotator["id"]
    )


def _from_format_1(values: dict[str, Any]) -> dict[str, Any]:
    """Metadata of format 1 as that of this format."""
    wrong = sorted(set(values) ^ set(OLD_KEYS))
    if wrong:
        raise InputError(f"metadata must have exactly the keys of format 1, wrong here: {short(wrong)}")
    log.warning(
        "these directions are of file format 1: their model is known by its network's tensors alone, and neither its "
        "other parts nor prompt and noise levels can be compared; find them again to know"
    )
    tap, injection = (values[name] for name in ("tap", "injection"))
    process: dict[str, Any] = {name: values[name] for name in ("timesteps", "prediction_type")} | {"levels": []}
    provenance: dict[str, Any] = {
        "model": {WEIGHTS: values["model_sha256"]}, "process": process, "tap": [tap], "conditioning": None,
        "eta": values["eta"], "injection": injection, "annotator": _annotator(values["method"]),
    }  # fmt: skip
    moved = ("tap", "timesteps", "eta", "injection", "prediction_type", "model_sha256", "format")
    kept = {name: value for name, value in values.items() if name not in moved}
    return kept | {"provenance": provenance, "settings": {}, "effects": None, "differences": [], "format": FORMAT}


def _annotator(method: Any) -> dict[str, str] | None:
    """The scorer that the `method` of format 1 names at its end."""
    _, found, scorer = str(method).partition("annotated by ")
    return {"id": scorer.partition(",")[0], "sha256": UNKNOWN} if found else None


LABELS: Rule = (are_labels, "strings of 1 to 200 printable characters")
RULES: dict[str, Rule] = {
    "format": (lambda value: type(value) is int and value == FORMAT, f"1 or {FORMAT}"),
    "space": one_of(("h", "x_T")),
    "provenance": (lambda value: isinstance(value, Provenance), "a provenance"),
    "model_id": LABEL,
    "method": LABEL,
    "settings": (lambda value: isinstance(value, dict), "a JSON object"),
    "config_sha256": (lambda value: value == "" or is_sha256(value), "64 hexadecimal digits or empty"),
    "names": LABELS,
    "differences": LABELS,
    "unit": LABEL,
    "seeds": (are_counts, "integers >= 0"),
    "calibration": (lambda value: value is None or isinstance(value, dict), "a JSON object or null"),
    "effects": (lambda value: value is None or isinstance(value, dict), "a JSON object or null"),
    "report": (lambda value: isinstance(value, dict), "a JSON object"),
}
"""What each field of the metadata may be, and how to say so: the same for our own records and a stranger's file."""
