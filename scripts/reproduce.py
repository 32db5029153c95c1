"""Runs, or reuses, the paper's experiments, and writes one report of them: outputs/reproduce/report.html and .md.

python scripts/reproduce.py table1 fig3            # or: all
python scripts/reproduce.py all --fast             # few samples; said in the report
python scripts/reproduce.py all model=celebahq evaluation=clip      # on photographs
python scripts/reproduce.py transformer            # not among all: on models that scripts/making trains
python scripts/reproduce.py table1 --from-results  # the table again from the scores in docs/results, no model
python scripts/reproduce.py compare_methods --join FOLDER ...     # one table of runs that shared the methods
python scripts/reproduce.py all --publish          # on evaluation samples that nothing was chosen on, into docs/results
"""

import argparse
import csv
import gzip
import io
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from hspace.commands.run import load, run
from hspace.diffusion.checkpoints import load_model
from hspace.evaluation.readings import finite
from hspace.experiments import compare_methods, table1
from hspace.experiments.rejoined import rejoined
from hspace.output.booklet import Chapter, publish, read_record, write_report
from hspace.runs.blocks import block_for, log_reading, read_log, state
from hspace.runs.config import Config, determining, to_dict
from hspace.runs.errors import guarded
from hspace.runs.parsing import parse
from hspace.runs.procedures import AGAIN, BEYOND, PAPER
from hspace.runs.report import RECORD, commit, write
from hspace.system.files import package_path, write_json
from hspace.system.registry import unknown
from hspace.types import InputError
from hspace.worlds.world import WORLDS

log = logging.getLogger("reproduce")

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
LOG = "readings.csv"
"""In the folder of results: which evaluation samples were read when."""
FURTHER = {"fig18"}
"""Experiments on other models than the portraits, which may not be at hand."""
FACTS = (
    "config",
    "config_sha256",
    "model",
    "given",
    "timesteps",
    "differences",
    "seeds",
    "versions",
    "commit",
    "date",
    "machine",
    "seconds",
)
"""What a record says of the scores, which are the same when the table is made again."""
FAST = "Few samples (size=fast): pictures are the same, intervals are wide."


def configuration(name: str, output: Path, overrides: list[str]) -> Config:
    """An experiment's configuration; its results go to `output/name`."""
    with initialize_config_dir(str(package_path("conf")), version_base="1.3", job_name="hspace"):
        cfg = compose("config", overrides=[f"experiment={name}", *overrides, f"output_dir={output / name}"])
    return parse(cfg)


def table1_configuration(values: dict[str, Any], folder: Path) -> Config:
    """That of a published Table I; what its record did not have yet is today's. Results go to `folder`."""
    with initialize_config_dir(str(package_path("conf")), version_base="1.3", job_name="hspace"):
        today = compose("config", overrides=["experiment=table1", f"output_dir={folder}"])
    OmegaConf.set_struct(today, False)
    merged = OmegaConf.merge(today, values)
    assert isinstance(merged, DictConfig)
    return parse(merged)


def chapter(name: str, output: Path, overrides: list[str]) -> Chapter:
    """Runs one experiment, or says why it cannot be run."""
    command = " ".join(["hspace", f"experiment={name}", *overrides])
    try:
        cfg = configuration(name, output, overrides)
        run(cfg)
    except InputError as error:
        if name not in FURTHER:
            raise
        log.warning("%s: needs further weights: %s", name, error)
        return Chapter(name, None, name, command, f"needs further weights: {error}")
    record = read_record(cfg.output_dir / RECORD)
    write_json(output / f"{name}.json", {**record["findings"], "conclusion": record["conclusion"]})
    return Chapter(name, record, name, command, remark="Few samples." if "size=fast" in overrides else "")


def table_from_results(output: Path) -> Chapter:
    """Table I from the published scores of every sample."""
    published = read_record(RESULTS / "table1" / RECORD)
    cfg = table1_configuration(published["config"], output / "table1")
    text = gzip.decompress((RESULTS / "table1" / "scores.csv.gz").read_bytes()).decode()
    worlds = map(WORLDS.get, WORLDS.names())
    kinds = {attribute.id: attribute.kind for world in worlds for attribute in world.attributes}
    rows = list(csv.DictReader(io.StringIO(text)))
    calibrated = published["findings"].get("calibrated", {})
    scores = table1.from_samples(rows, cfg.study.attributes, kinds, cfg.diffusion.num_steps, calibrated)
    facts = {name: published[name] for name in FACTS if name in published}
    record = write(cfg, table1.tabulate(cfg, scores), key="from results", judge=published["judge"], facts=facts)
    write_json(output / "table1.json", {**record["findings"], "conclusion": record["conclusion"]})
    return Chapter("table1", record, "table1", "python scripts/reproduce.py table1 --from-results")


def table_of_runs(folders: Sequence[Path], output: Path, overrides: list[str]) -> Chapter:
    """The comparison of methods from finished runs of it, each of which had some of the methods or attributes.

    Raises:
        InputError: If the runs differ in more than that, or an edit is in none of them.
    """
    cfg, records = configuration("compare_methods", output, overrides), [read_record(each / RECORD) for each in folders]
    for folder, record in zip(folders, records, strict=True):
        if _shared(record["config"]) != _shared(to_dict(cfg)):
            raise InputError(f"--join: {folder} is of another configuration; give the overrides that the runs had")
    told = ("model", "given", "timesteps", "judge", "versions", "commit", "machine")
    for folder, record in zip(folders, records, strict=True):
        if other := [name for name in told if record.get(name) != records[0].get(name)]:
            raise InputError(f"--join: {folder} differs from {folders[0]} in {', '.join(other)}")
    lab = load(cfg)
    if lab.model.identity.sha256 != records[0]["model"]["sha256"]:
        raise InputError(f"--join: the runs are of another model than {cfg.model.path} is now")
    result = compare_methods.tabulate(lab, rejoined(lab, folders))
    facts = {name: records[0][name] for name in (*told, "differences", "seeds")}
    facts["seconds"] = sum(each["seconds"] for each in records)
    write(cfg, result, key="joined", judge=lab.judge_name, facts=facts)
    command = " ".join(["hspace experiment=compare_methods", *overrides])
    return Chapter("compare_methods", read_record(cfg.output_dir / RECORD), "compare_methods", command)


def _shared(config: dict[str, Any]) -> dict[str, Any]:
    """All of a configuration that results depend on, but the methods and attributes, which runs may share."""
    study = {name: value for name, value in config["study"].items() if name not in ("methods", "attributes")}
    return finite(determining(config) | {"study": study})


def check_logged(block: int) -> None:
    """Raises InputError if the log does not say that the comparison read a block."""
    rows = read_log(RESULTS / LOG)
    if not any((row["block"], row["experiment"]) == (str(block), "compare_methods") for row in rows):
        raise InputError(f"{LOG} has no comparison of methods on block {block}: what was read must be logged")


def log_readings(names: Sequence[str], overrides: Sequence[str]) -> int:
    """Logs that the experiments read an evaluation block, before they do; the block."""
    if any(word.startswith(("evaluation.block=", "size=")) for word in overrides):
        raise InputError("--publish takes the next evaluation block itself, at full size: leave out these settings")
    again = [name for name in names if name in AGAIN]
    if again and len(again) < len(names):
        raise InputError(f"--publish: {again[0]} reads a block that the others have not read: publish it by itself")
    found, now = state([*overrides, *again]), commit()
    block = block_for(read_log(RESULTS / LOG), found)
    for name in names:
        log_reading(RESULTS / LOG, now, block, name, found)
    return block


def published(name: str) -> Chapter | None:
    """What docs/results has of an experiment, with a remark if it was measured on other weights than the package's."""
    path = RESULTS / name / RECORD
    if not path.exists():
        return None
    record = read_record(path)
    model = record.get("model", {"id": "portraits", "sha256": None})
    same = model["sha256"] == load_model(model["id"]).identity.sha256
    command = f"python scripts/reproduce.py {name}"
    return Chapter(name, record, name, command, remark="" if same else "Measured on weights of an earlier version.")


def publish_results(chapters: list[Chapter], output: Path) -> None:
    """Copies the report to docs/results, where other experiments stay as they are.

    Raises:
        InputError: If a chapter was read on block 0.
    """
    for each in chapters:
        if each.record is not None and not each.record["config"]["evaluation"].get("block"):
            raise InputError(f"{each.id} was read on evaluation block 0, which is never published")
    note = "Full sizes on the embedded models; made by `python scripts/reproduce.py … --publish`."
    made = {each.id: each for each in chapters if each.record is not None}
    order = [each for name in PAPER if (each := made.get(name) or published(name)) is not None]
    publish(chapters, output, RESULTS, note, order=order)


def main(arguments: list[str] | None = None) -> int:
    """Runs what was asked for and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="+", help="experiments, or all; key=value overrides for all of them")
    parser.add_argument("--fast", action="store_true", help="few samples")
    parser.add_argument("--from-results", action="store_true", help="table1 from the published scores, without a model")
    parser.add_argument("--join", nargs="+", type=Path, metavar="FOLDER", help="runs of compare_methods that share it")
    parser.add_argument("--publish", action="store_true", help="copy a light report to docs/results")
    parser.add_argument("--output", type=Path, help="default: outputs/reproduce, or outputs/block-N to publish")
    options = parser.parse_intermixed_args(arguments)
    names = [word for word in options.words if "=" not in word]
    overrides = [word for word in options.words if "=" in word] + (["size=fast"] if options.fast else [])
    known = [*PAPER, *BEYOND, *AGAIN, "all"]
    mistaken = [name for name in names if name not in known]
    if mistaken or not names:
        raise InputError(unknown("experiment", mistaken[0] if mistaken else "", known))
    if options.from_results and (names != ["table1"] or overrides or options.publish):
        raise InputError("--from-results is for table1 alone, without settings: all but the table is as published")
    if options.join and names != ["compare_methods"]:
        raise InputError(f"--join is for compare_methods alone, got {', '.join(names)}")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("hspace").setLevel(logging.INFO)
    output = options.output or ROOT / "outputs" / "reproduce"
    if options.from_results:
        chapters = [table_from_results(output)]
    elif options.join:
        folders = [path for path in options.join if "=" not in str(path)]
        if not folders:
            raise InputError(f"--join needs folders of runs, got {' '.join(map(str, options.join))}")
        overrides += [str(path) for path in options.join if "=" in str(path)]
        if options.publish:
            check_logged(configuration("compare_methods", output, overrides).evaluation.block)
        chapters = [table_of_runs(folders, output, overrides)]
    else:
        wanted = list(dict.fromkeys([*(PAPER if "all" in names else ()), *(each for each in names if each != "all")]))
        if options.publish:
            block = log_readings(wanted, overrides)
            output = options.output or ROOT / "outputs" / f"block-{block}"
            overrides.append(f"evaluation.block={block}")
        chapters = [chapter(name, output, overrides) for name in wanted]
    _, page = write_report(chapters, output, FAST if options.fast else "")
    if options.publish:
        publish_results(chapters, output)
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
