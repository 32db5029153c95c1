"""Principal components with the names that the annotator gives them: what figs. 3 and 18 share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hspace.directions.record import Directions
from hspace.evaluation.readings import Sweep
from hspace.metrics.interval import Interval
from hspace.metrics.names import Name, numbered
from hspace.runs.effects import as_configured, named_at, turned
from hspace.runs.lab import Lab

Seen = tuple[Interval | None, str, float, Interval]
"""Effect on the name, the attribute with the strongest effect, that effect, and identity."""


@dataclass(frozen=True)
class Components:
    """Principal components, named and applied.

    Attributes:
        directions: The components as they were found.
        names: What the annotator sees each of them move most, or None.
        sweep: What the judge reads off edits along them, each turned to raise its attribute.
        strength: The largest strength, at which figures are given.
    """

    directions: Directions
    names: Sequence[Name | None]
    sweep: Sweep
    strength: float

    @property
    def rows(self) -> list[Seen]:
        """What the judge sees of each component."""
        effects, rows = self.sweep.effects(self.strength), list[Seen]()
        for j, name in enumerate(self.names):
            aim = effects.cell(j, name.attribute) if name else None
            identity = self.sweep.readings.identity(self.sweep.row(j, self.strength))
            rows.append((aim, *effects.strongest(j), identity))
        return rows

    @property
    def agreeing(self) -> str:
        """On how many components the judge agrees with the annotator, in words."""
        pairs = zip(self.names, self.rows, strict=True)
        agreed = sum(name is not None and strongest == name.attribute for name, (_, strongest, _, _) in pairs)
        return f"{agreed} of {len(self.names)} components move most, by the judge, what the annotator named them by"

    @property
    def findings(self) -> dict[str, Any]:
        """Names and effects, as JSON types."""
        names = [name and [name.attribute, name.sign, list(name.others)] for name in self.names]
        return {"names": names, "effects": self.sweep.effects(self.strength).to_dict()}


def applied_components(lab: Lab, *, read: bool = True) -> Components:
    """The configured components, named by the annotator unless no scorer reads the model, and read by the judge."""
    directions = lab.components()
    names = lab.name(directions.directions, named_at(lab)) if read else [None] * len(directions.directions)
    labels = [f"component {j}" + (f": {label}" if read else "") for j, label in enumerate(numbered(names))]
    applied = as_configured(lab, turned(directions, names), [name and name.attribute for name in names])
    sweep = lab.sweep(dict(zip(labels, applied.directions, strict=True)))
    return Components(directions, names, sweep, max(lab.strengths))
