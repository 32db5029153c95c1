"""The demo: what it cannot draw is one line, before anything is sampled."""

from pathlib import Path

import pytest

from hspace.cli import main


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("study.target=0", "study.target must not be 0"),
        ("study.attributes=[smile]", "unknown study.attributes 'smile': there is age, glasses, hat, yaw"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    word: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experiment=demo", "tracking.mode=disabled", f"output_dir={tmp_path / 'out'}", word]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in told and told.startswith("hspace: error")
