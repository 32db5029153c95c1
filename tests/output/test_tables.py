import csv
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from hspace.metrics.interval import Interval
from hspace.output.tables import (
    Table,
    escape_markdown,
    format_number,
    read_markdown,
    to_latex,
    to_markdown,
    write_csv,
    write_table,
)
from hspace.types import InputError

NAN = float("nan")
TABLE = Table(
    columns=("edit", "strength", "yaw", "note"),
    rows=(
        ("component 0: a|b", -1.5, Interval(0.42, 0.31, 0.5298765, 100), None),
        ("component 1", 3, Interval(NAN, NAN, NAN, 7), "first\nsecond"),
        ("component 2", np.float64(1 / 3), None, "x, y"),
    ),
    caption="Effects.",
    judge="portraits-judge",
    bold=frozenset({(0, 2)}),
)


def test_csv_gives_every_number_back_exactly(tmp_path: Path) -> None:
    path = write_table(TABLE, tmp_path / "new" / "table")[0]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["edit", "strength", "yaw", "yaw_low", "yaw_high", "yaw_n", "note", "judge"]
    assert float(rows[0]["yaw_high"]) == 0.5298765 and float(rows[2]["strength"]) == 1 / 3 and rows[0]["yaw_n"] == "100"
    assert rows[1]["yaw"] == "nan" and rows[1]["note"] == "first\nsecond" and rows[2]["yaw_low"] == ""
    assert rows[0]["edit"] == "component 0: a|b" and rows[2]["judge"] == "portraits-judge"


def test_markdown_is_for_people_and_says_who_judged_how_many(tmp_path: Path) -> None:
    path = write_table(TABLE, tmp_path / "table")[1]
    assert path.read_text() == (
        "| edit | strength | yaw | note |\n"
        "| :-- | --: | --: | :-- |\n"
        "| component 0: a\\|b | -1.50 | **.42 ± .11** |  |\n"
        "| component 1 | 3 | n/a | first second |\n"
        "| component 2 | .33 |  | x, y |\n"
        "\n"
        "Effects. Judge: portraits-judge. n (visible) = 7 to 100.\n"
    )


def test_a_column_has_the_same_decimals_in_every_row() -> None:
    rows = (
        (Interval(0.5312, 0.49, 0.57, 50), 0.5),
        (Interval(-1.2, -1.24, -1.16, 50), -3.0),
        (Interval(0.0, -0.04, 0.04, 50), 2),
    )
    lines = to_markdown(Table(("effect", "strength"), rows, "")).splitlines()[2:5]
    assert lines == ["| .53 ± .04 | .5 |", "| -1.20 ± .04 | -3.0 |", "| .00 ± .04 | 2 |"]


def test_a_column_with_an_uneven_interval_shows_the_limits_of_all() -> None:
    rows = ((Interval(0.9, 0.7, 0.95, 12),), (Interval(0.5, 0.4, 0.6, 12),), (Interval(0.3, NAN, NAN, 12),))
    lines = to_markdown(Table(("share",), rows, "")).splitlines()[2:]
    assert (
        lines[:3] == ["| .90 [.70, .95] |", "| .50 [.40, .60] |", "| .30 [n/a] |"] and lines[-1] == "n (visible) = 12."
    )


def test_latex_compiles_as_a_booktabs_table(tmp_path: Path) -> None:
    text = to_latex(TABLE)
    assert r"component 0: a|b & -1.50 & \textbf{.42 $\pm$ .11} &  \\" in text and r"\toprule" in text
    assert r"\caption{Effects. Judge: portraits-judge." in text
    strange = to_latex(Table(("a_b",), (("50% & #1 {x} \\ ~^",),), "$"))
    assert r"50\% \& \#1 \{x\} \textbackslash{} \textasciitilde{}\textasciicircum{}" in strange
    if shutil.which("pdflatex"):
        page = r"\documentclass{article}\usepackage{booktabs}\begin{document}" + text + strange + r"\end{document}"
        (tmp_path / "page.tex").write_text(page)
        subprocess.run(["pdflatex", "-interaction=batchmode", "page"], cwd=tmp_path, check=True)


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


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [(0.4249, 2, ".42"), (-0.001, 2, ".00"), (-1.0, 1, "-1.0"), (7, 2, "7"), (NAN, 2, "n/a"), (0.6, 0, "1")],
)
def test_numbers_have_fixed_decimals(value: float, decimals: int, text: str) -> None:
    assert format_number(value, decimals) == text


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
