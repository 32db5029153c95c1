"""Results that an experiment leaves: figures, tables, directions, and run.json, from which reports are made."""

import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from hspace.diffusion.embedded import EMBEDDED
from hspace.diffusion.latents import role_of
from hspace.diffusion.sampler import FIRST_SEED
from hspace.directions.method import get_method
from hspace.directions.operators import Found, load_found
from hspace.evaluation.measures import MEASURES
from hspace.evaluation.readings import finite
from hspace.output.drawing import vector_copies
from hspace.output.tables import Table, write_csv, write_table
from hspace.runs.config import Config, config_sha256, to_dict
from hspace.runs.given import given_files
from hspace.runs.keys import VERSIONS, files_key, network_key, sampler_key
from hspace.runs.lab import Lab
from hspace.runs.procedures import EXPERIMENTS
from hspace.system.cache import key_sha256
from hspace.system.files import package_path, read_json, sha256_file, write_json
from hspace.system.hashes import path_sha256
from hspace.system.registry import source_sha256

RECORD = "run.json"
"""File in the folder of a finished experiment, which is written last."""
VERSION = 8
"""Part of the key of a kept record, which is raised when experiments measure in another way."""
PACKAGES = ("hspace", "torch", "diffusers", "hydra-core", "omegaconf", "wandb", "scikit-learn", "numpy", "torchmetrics")


@dataclass(frozen=True)
class Result:
    """Results of an experiment, from which a report is drawn.

    Attributes:
        conclusion: Result in one or two sentences with numbers.
        findings: Numbers as JSON types; those at the top level are compared with other runs'.
        figures: Pictures by caption; the first is the one to look at first.
        tables: Tables by file name.
        samples: Further files of scores by sample, by file name: columns and rows.
        directions: Directions and operators to keep beside the record, by file name.
        curves: Points of curves for tracking: numbers by key, the axis `strength` among them.
        lines: Lines for the console: one per direction, or the conclusion where there are none.
    """

    conclusion: str
    findings: dict[str, Any]
    figures: dict[str, Path] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    samples: dict[str, Table] = field(default_factory=dict)
    directions: dict[str, Found] = field(default_factory=dict)
    curves: Sequence[Mapping[str, float]] = ()
    lines: Sequence[str] = ()


def current(lab: Lab) -> dict[str, Any] | None:
    """The kept record, if it is of this configuration and this model and all its files are unchanged."""
    out = lab.cfg.output_dir
    try:
        record = read_json(out / RECORD)
        whole = all(sha256_file(out / name) == sha256 for name, sha256 in record["files"].items())
        return record if whole and record["key"] == key_of(lab) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write(cfg: Config, result: Result, *, key: str, judge: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Writes tables as CSV, Markdown and LaTeX, directions, and last the record, which says that all is complete.

    Args:
        cfg: Configuration of the experiment.
        result: Results, whose figures are drawn already.
        key: Key by which the record is compared before it is used again.
        judge: Name of the judge.
        facts: Further facts for the record; `facts_of` a lab.

    Returns:
        The record, as JSON types.
    """
    out = cfg.output_dir
    files = [file for path in result.figures.values() for file in (path, *vector_copies(path))]
    for name, table in result.tables.items():
        files += write_table(replace(table, judge=table.judge or judge), out / "tables" / name)
    for name, table in result.samples.items():
        files.append(out / "samples" / f"{name}.csv")
        write_csv(table, files[-1])
    for name, directions in result.directions.items():
        files.append(out / f"{name}.safetensors")
        directions.save(files[-1])
    record = {
        "procedure": cfg.procedure,
        "title": cfg.study.title,
        "expect": cfg.study.expect,
        "conclusion": result.conclusion,
        "lines": list(result.lines),
        "figures": {caption: path.relative_to(out).as_posix() for caption, path in result.figures.items()},
        "tables": list(result.tables),
        "samples": list(result.samples),
        "directions": {name: list(directions.meta.names) for name, directions in result.directions.items()},
        "files": {path.relative_to(out).as_posix(): sha256_file(path) for path in files},
        "findings": finite(result.findings),
        "judge": judge,
        "date": date.today().isoformat(),
        "commit": commit(),
        "versions": {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "key": key,
        "config_sha256": config_sha256(cfg),
        # Not where it lies, which is different for everyone.
        "config": {name: value for name, value in to_dict(cfg).items() if name not in ("output_dir", "cache_dir")},
        **facts,
    }
    write_json(out / RECORD, record)
    return record


def facts_of(lab: Lab, result: Result, seconds: float) -> dict[str, Any]:
    """Model, seeds, machine and times of an experiment, as JSON types."""
    model, used = lab.model, dict[str, list[int]]()
    for seed in lab.drawn.union(*(each.meta.seeds for each in result.directions.values())):
        used.setdefault(role_of(seed), []).append(seed)
    return {
        "model": {
            "id": model.model_id,
            "commit": model.revision,
            "sha256": model.identity.sha256,
            "h_shape": list(model.h_shape),
        },
        "given": [_given(path) for path in given_files(lab.cfg, model)],
        "timesteps": list(model.process.timesteps),
        "differences": sorted({said for each in result.directions.values() for said in each.meta.differences}),
        "seeds": {role: {"first": min(used[role]), "count": len(used[role])} for role in FIRST_SEED if role in used},
        "machine": {"system": platform.platform(), "device": _device(model.device)},
        "seconds": round(seconds, 1),
        "stages": lab.watch.seconds,
    }


def _device(device: torch.device) -> str:
    """Such as `cpu`, or `cuda:0, NVIDIA H200`."""
    return f"{device}, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)


def _given(path: Path) -> dict[str, Any]:
    """A file of directions that was given, with the scorer that annotated for them."""
    return {"file": path.name, "sha256": sha256_file(path), "annotator": load_found(path).meta.annotator}


def key_of(lab: Lab) -> str:
    """The key of a kept record: all that results depend on, by content and not by name."""
    names = ("annotator", "judge", "identity", "likeness", "regions")
    networks = {name: getattr(lab, name) for name in names}
    entries = [EXPERIMENTS.get(lab.cfg.procedure), get_method(lab.cfg.method.name).find]
    entries += [MEASURES.get(name).read for name in lab.cfg.evaluation.measures]
    given = {f"given[{i}]": sha256_file(path) for i, path in enumerate(given_files(lab.cfg, lab.model))}
    beside = [str(each) for each in lab.cfg.study.beside if str(each) in EMBEDDED]
    given |= {name: path_sha256(package_path("weights") / EMBEDDED[name]) for name in beside}
    return key_sha256({
        "code": [source_sha256(entry) for entry in entries], "version": VERSION, "stages": VERSIONS,
        "config": config_sha256(lab.cfg), "files": files_key(lab.cfg) | given,
        "networks": {role: network and network_key(network) for role, network in networks.items()},
        **sampler_key(lab.cfg, lab.model),
    })  # fmt: skip


def marked(result: Result, judge: str) -> Result:
    """The result with a note, in its conclusion and under each table, that its judge also annotated."""
    tables = {name: replace(table, judge=judge) for name, table in result.tables.items()}
    return replace(result, tables=tables, conclusion=f"Judged by {judge}. {result.conclusion}")


def numbers(findings: Mapping[str, Any]) -> dict[str, int | float]:
    """The findings that are numbers, which tracking shows and tables of many runs compare."""
    kinds = (int, float)
    return {name: value for name, value in findings.items() if type(value) in kinds}


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
