import csv
import re
from pathlib import Path

import numpy as np
import pytest

from hspace.metrics.interval import Interval
from hspace.output.tables import (
    Table,
    escape_markdown,
    format_number,
    read_markdown,
    to_markdown,
    write_csv,
    write_markdown,
)
from hspace.types import InputError

TABLE = Table(
    columns=("edit", "strength", "yaw", "note"),
    rows=(
        ("component 0: a|b", -1.5, Interval(0.42, 0.31, 0.5298765), None),
        ("component 1", 3, Interval(float("nan"), float("nan"), float("nan")), "first\nsecond"),
        ("component 2", np.float64(1 / 3), None, "x, y"),
    ),
    caption="Effects.",
)


def test_csv_gives_every_number_back_exactly(tmp_path: Path) -> None:
    path = write_csv(TABLE, tmp_path / "new" / "table.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["edit", "strength", "yaw", "yaw_low", "yaw_high", "note"]
    assert float(rows[0]["yaw_high"]) == 0.5298765 and float(rows[2]["strength"]) == 1 / 3
    assert rows[1]["yaw"] == "nan" and rows[1]["note"] == "first\nsecond" and rows[2]["yaw_low"] == ""
    assert rows[0]["edit"] == "component 0: a|b" and rows[2]["note"] == "x, y"


def test_markdown_is_for_people(tmp_path: Path) -> None:
    path = write_markdown(TABLE, tmp_path / "table.md")
    assert path.read_text() == (
        "| edit | strength | yaw | note |\n"
        "| :-- | --: | --: | :-- |\n"
        "| component 0: a\\|b | -1.5 | .42 [.31, .53] |  |\n"
        "| component 1 | 3 | n/a | first second |\n"
        "| component 2 | .333 |  | x, y |\n"
        "\n"
        "Effects.\n"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.42, ".42"),
        (-0.4567, "-.457"),
        (0.0, "0"),
        (1.0, "1"),
        (12.345, "12.3"),
        (12345.6, "12346"),
        (12345, "12345"),
        (2e-6, "2e-06"),
        (1e-7, "0"),
        (-2e-12, "0"),
        (float("nan"), "n/a"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert format_number(value) == text  # type: ignore[arg-type]


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "+.12 / -.3"]


@pytest.mark.parametrize("text", FORMULAS)
def test_text_is_no_formula_in_a_csv(text: str, tmp_path: Path) -> None:
    path = write_csv(Table((text, "x"), ((text, -1.5), ("-1.5", 2)), "Formulas."), tmp_path / "t.csv")
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    kept = "'" + text.replace("\r", "\n")
    assert rows == [[kept, "x"], [kept, "-1.5"], ["-1.5", "2"]]


@pytest.mark.parametrize("text", ["a*b", "`x` | y", "<b>&amp;</b>", "_a_ a_b", "\\[x]\\", "~~a~~", "\\_", "a\\*"])
def test_markdown_shows_text_as_it_is(text: str) -> None:
    escaped = escape_markdown(text)
    assert read_markdown(escaped) == text
    assert "<" not in escaped and not re.search(r"(?<!\\)(\\\\)*[*`|\[~]", escaped)


def test_a_table_without_rows_keeps_its_header() -> None:
    assert to_markdown(Table(("a", "b"), (), "None.")).splitlines()[0] == "| a | b |"


def test_bad_tables_are_named() -> None:
    with pytest.raises(InputError, match="must have 2 cells, got 1"):
        Table(("a", "b"), (("x",),), "")
    with pytest.raises(InputError, match="columns must differ"):
        Table(("a", "a"), (), "")
