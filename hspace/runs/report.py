"""What a run leaves behind: figures, tables, the directions and run.json."""

import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.directions.record import Directions
from hspace.evaluation.effects import Edits, Evaluation
from hspace.metrics.effect import EffectMatrix
from hspace.metrics.interval import Interval
from hspace.output.figures import effect_heatmap, grid_figure, strip_figure
from hspace.output.tables import Table, write_csv, write_markdown
from hspace.runs.config import Config, config_sha256, to_dict
from hspace.system.files import write_json

PACKAGES = ("hspace", "torch", "diffusers", "hydra-core", "omegaconf", "wandb", "scikit-learn", "numpy", "torchmetrics")
SHOWN = 16


@dataclass(frozen=True)
class Written:
    """Files of a finished run; `figure` is the one to look at first."""

    figure: Path
    figures: tuple[Path, ...]
    tables: Mapping[str, Table]
    directions: Path
    record: Path


def write(
    cfg: Config,
    model: DiffusionModel,
    directions: Directions,
    edits: Edits,
    judged: Evaluation,
    seeds: Mapping[str, tuple[int, ...]],
    seconds: Mapping[str, float],
) -> Written:
    """Draws and writes everything; run.json comes last, so that its presence says that the run is complete."""
    out = cfg.output_dir
    tables = {"directions": directions_table(judged), "effects": effects_table(judged)}
    for label, table in tables.items():
        write_csv(table, out / "tables" / f"{label}.csv")
        write_markdown(table, out / "tables" / f"{label}.md")
    figures = (
        strips(cfg, edits, judged, out / "figures" / "directions.png"),
        heatmap(judged, out / "figures" / "effects.png"),
        samples(edits, out / "figures" / "samples.png"),
    )
    directions.save(out / "directions.safetensors")
    record = {
        "config": to_dict(cfg),
        "config_sha256": config_sha256(cfg),
        "model": {"id": model.model_id, "sha256": model.model_sha256, "h_shape": list(model.h_shape)},
        "timesteps": list(model.process.timesteps),
        "seeds": {role: {"first": min(used, default=None), "count": len(used)} for role, used in seeds.items()},
        "names": list(directions.meta.names),
        "judge": judged.scorer,
        "results": summary(judged),
        "versions": {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "commit": commit(),
        "machine": {"system": platform.platform(), "device": str(model.device)},
        "seconds": dict(seconds),
    }
    write_json(out / "run.json", record)
    return Written(figures[0], figures, tables, out / "directions.safetensors", out / "run.json")


def strips(cfg: Config, edits: Edits, judged: Evaluation, path: Path) -> Path:
    """One sample under every direction and strength, the unedited one among them."""
    strengths = sorted({0.0, *edits.strengths})
    unedited = edits.original[:1].expand(len(edits.names), *edits.original.shape[1:])
    columns = [
        unedited if strength == 0 else edits.edited[:, edits.strengths.index(strength), 0] for strength in strengths
    ]
    largest = _largest(judged)
    labels = [f"{name}\n{_effect_text(judged, j, largest)}" for j, name in enumerate(edits.names)]
    title = f"{cfg.name}: one sample, edited along each direction"
    strip_figure(torch.stack(columns, dim=1), labels, strengths, title, path)
    return path


def heatmap(judged: Evaluation, path: Path) -> Path:
    """Effects on every attribute at the largest strength."""
    effect_heatmap(judged.effects[_largest(judged)], path)
    return path


def samples(edits: Edits, path: Path) -> Path:
    """Unedited samples."""
    grid_figure(edits.original[:SHOWN], 8, path)
    return path


def directions_table(judged: Evaluation) -> Table:
    """A row per direction and strength: the target, the effect on it, selectivity, accuracy and identity."""
    columns = ("direction", "strength", "target", "effect", "selectivity", "accuracy", "identity", "judge")
    rows = []
    for j, target in enumerate(judged.targets):
        for i, strength in enumerate(judged.strengths):
            aim = (None, None, None) if target is None else _aim(judged.effects[i], j, target[0])
            kept = judged.accuracy[j][i], judged.identity[j][i]
            rows.append((judged.effects[i].edits[j], strength, *aim, *kept, judged.scorer))
    return Table(columns, tuple(rows), f"Each direction at each strength, judged by {judged.scorer}")


def _aim(effects: EffectMatrix, row: int, target: str) -> tuple[str, Interval, float]:
    """The target, the effect on it, and its share of all that the edit moves."""
    effect = _effect(effects, row, target)
    return target, effect, abs(effect.value) / float(np.nansum(np.abs(effects.effect[row])))


def effects_table(judged: Evaluation) -> Table:
    """A row per direction and strength, a column per attribute, in standard deviations of the unedited samples."""
    attributes = judged.effects[0].attributes
    rows = [
        (matrix.edits[j], strength, *(_effect(matrix, j, attribute) for attribute in attributes), judged.scorer)
        for j in range(len(judged.targets))
        for matrix, strength in zip(judged.effects, judged.strengths, strict=True)
    ]
    caption = f"Effects in standard deviations of the unedited samples with 95% intervals, judged by {judged.scorer}"
    return Table(("direction", "strength", *attributes, "judge"), tuple(rows), caption)


def summary(judged: Evaluation) -> dict[str, float]:
    """The figures at the largest strength, and their means over the directions."""
    i = _largest(judged)
    aims = [_aim(judged.effects[i], j, target[0]) for j, target in enumerate(judged.targets) if target]
    accuracy = [interval.value for row in judged.accuracy if (interval := row[i]) is not None]
    means = {
        "effect": [abs(effect.value) for _, effect, _ in aims],
        "selectivity": [share for *_, share in aims],
        "accuracy": accuracy,
        "identity": [row[i].value for row in judged.identity],
    }
    overall = {f"mean/{name}": float(np.mean(values)) for name, values in means.items() if values}
    return {name: mean for name, mean in overall.items() if np.isfinite(mean)} | figures_at(judged, i)


def figures_at(judged: Evaluation, i: int) -> dict[str, float]:
    """Figures at strength i by key: `effect/<attribute>/direction_<j>`, `accuracy/direction_<j>` and `identity/…`."""
    figures = {}
    for j, row in enumerate(judged.effects[i].effect):
        accuracy = judged.accuracy[j][i]
        figures[f"identity/direction_{j}"] = judged.identity[j][i].value
        figures |= {} if accuracy is None else {f"accuracy/direction_{j}": accuracy.value}
        pairs = zip(judged.effects[i].attributes, row, strict=True)
        figures |= {f"effect/{name}/direction_{j}": float(effect) for name, effect in pairs if np.isfinite(effect)}
    return figures


def _largest(judged: Evaluation) -> int:
    """Index of the largest strength."""
    return int(np.argmax(judged.strengths))


def _effect(matrix: EffectMatrix, row: int, attribute: str) -> Interval:
    column = matrix.attributes.index(attribute)
    return Interval(*(float(values[row, column]) for values in (matrix.effect, matrix.low, matrix.high)))


def _effect_text(judged: Evaluation, row: int, strength: int) -> str:
    target = judged.targets[row]
    if target is None:
        return "no clear effect"
    return f"{_effect(judged.effects[strength], row, target[0]).value:+.2f} sd at {judged.strengths[strength]:+g}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of the checkout that the package lies in, with "+" if it was changed; None outside one."""
    folder = Path(__file__).parents[1]
    if not (folder.parent / ".git").exists():
        return None
    git = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
