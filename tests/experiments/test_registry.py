"""What is written of an experiment, whatever it measures."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.experiments import registry
from hspace.output.tables import Table
from hspace.runs.lab import Lab, Result
from hspace.runs.parsing import parse
from hspace.scorers.factory import load_identity, load_scorer
from hspace.system.files import package_path


@pytest.mark.parametrize("judge", ["portraits-judge", "portraits-annotator"])
def test_a_judge_that_annotated_is_marked_in_every_table(
    tiny_model: DiffusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judge: str
) -> None:
    roles = [f"evaluation.judge={judge}", "evaluation.allow_same_scorer=true", f"output_dir={tmp_path}"]
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        cfg = parse(compose("config", overrides=["experiment=fig3", *roles]))
    lab = Lab(cfg, tiny_model, load_scorer("portraits-annotator"), load_scorer(judge), load_identity(), None)
    table = Table(("edit", "effect"), (("smile", 1.0), ("hat", 2.0)), "Effects.")
    monkeypatch.setitem(registry.EXPERIMENTS, "fig3", lambda lab: Result("It moves.", {}, tables={"effects": table}))
    result, record = registry.run(lab)
    kept = [(tmp_path / "tables" / f"effects.{kind}").read_text() for kind in ("csv", "md")] + [record["conclusion"]]
    mark = "portraits-annotator (NOT INDEPENDENT: also the annotator)"
    assert [mark in text for text in kept] == [judge == "portraits-annotator"] * 3
    assert result.conclusion == record["conclusion"] and "It moves." in record["conclusion"]
