"""One experiment of the paper: run, drawn, tabulated, and kept as a record that reports are made from."""

import json
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.experiments import (
    compare_methods,
    fig2,
    fig3,
    fig4,
    fig5,
    fig6,
    fig7,
    fig8a,
    fig8b,
    fig9,
    fig11,
    fig13,
    fig17,
    fig18,
    table1,
)
from hspace.output.tables import write_csv, write_markdown
from hspace.runs.config import Config, config_sha256, to_dict
from hspace.runs.lab import Lab, Result
from hspace.runs.report import commit
from hspace.scorers.factory import NOT_INDEPENDENT, same_network
from hspace.system.cache import key_sha256
from hspace.system.files import write_json

VERSION = 1
"""Part of what a kept record is compared by, to be raised when an experiment measures in another way."""
EXPERIMENTS: dict[str, Callable[[Lab], Result]] = {
    module.__name__.rpartition(".")[2]: module.run
    for module in (
        fig2, fig3, fig4, fig5, fig6, fig7, fig8a, fig8b, fig9, table1, fig11, fig13, fig17, fig18, compare_methods,
    )
}  # fmt: skip
"""In the order of the paper."""


def record_path(cfg: Config) -> Path:
    """Where an experiment's record is kept."""
    return cfg.output_dir / "result.json"


def is_current(cfg: Config, model: DiffusionModel) -> bool:
    """Whether the kept record is of this configuration and this model."""
    try:
        record = json.loads(record_path(cfg).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("key") == _key(cfg, model)


def run(lab: Lab) -> tuple[Result, dict[str, Any]]:
    """Runs the experiment that the configuration names, and writes its tables and its record, the latter last.

    Returns:
        What came out, and the record as JSON types.
    """
    cfg, started = lab.cfg, time.perf_counter()
    result = EXPERIMENTS[cfg.procedure](lab)
    if same_network(lab.annotator, lab.judge):
        result = _marked(result, f"{lab.judge.id} ({NOT_INDEPENDENT})")
    return result, write(cfg, result, key=_key(cfg, lab.model), seconds=time.perf_counter() - started)


def write(cfg: Config, result: Result, *, key: str, seconds: float) -> dict[str, Any]:
    """Tables as CSV and Markdown, scores by sample as CSV, and the record.

    Args:
        cfg: The experiment's configuration.
        result: What came out; its figures are drawn already.
        key: What the record is compared by when it is to be used again.
        seconds: What it took.
    """
    out = cfg.output_dir
    for name, table in result.tables.items():
        write_csv(table, out / "tables" / f"{name}.csv")
        write_markdown(table, out / "tables" / f"{name}.md")
    for name, table in result.samples.items():
        write_csv(table, out / "samples" / f"{name}.csv")
    record = {
        "id": cfg.procedure,
        "title": cfg.study.title,
        "expect": cfg.study.expect,
        "conclusion": result.conclusion,
        "figures": {caption: path.relative_to(out).as_posix() for caption, path in result.figures.items()},
        "tables": list(result.tables),
        "samples": list(result.samples),
        "findings": result.findings,
        "seconds": round(seconds, 1),
        "date": date.today().isoformat(),
        "machine": platform.machine(),
        "commit": commit(),
        "key": key,
        # Not where it lies, which is different for everyone.
        "config": {name: value for name, value in to_dict(cfg).items() if name not in ("output_dir", "cache_dir")},
    }
    write_json(record_path(cfg), record)
    return record


def _marked(result: Result, judge: str) -> Result:
    """The result, saying in its conclusion and in a column of each table that the judge was no independent one."""
    tables = {
        name: replace(table, columns=(*table.columns, "judge"), rows=tuple((*row, judge) for row in table.rows))
        for name, table in result.tables.items()
    }
    return replace(result, tables=tables, conclusion=f"Judged by {judge}. {result.conclusion}")


def _key(cfg: Config, model: DiffusionModel) -> str:
    return key_sha256({"version": VERSION, "config": config_sha256(cfg), "model": model.identity.sha256})
