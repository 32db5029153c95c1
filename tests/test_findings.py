"""Every finding carries its numbers, intervals, n and file, and the file says the same."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NUMBER = r"-?(?:\d+\.\d+|\.\d+|\d+)"
SOURCE = re.compile(r" \(n = (\d+); \[\w+\]\((results/(\w+)/[\w./]+)\)\)\.$")
INTERVAL = re.compile(rf"({NUMBER})(?: sd)? \[({NUMBER}), ({NUMBER})\]")
ONE_IMAGE = {"fig6"}
"""Experiments whose figures are of one image."""
NAMES = re.compile(r"eq\. \d+|fig\. \d+\w?|table I|x_T")


def claims() -> list[str]:
    """The items of the lists below the first heading, each on one line."""
    body = (DOCS / "findings.md").read_text(encoding="utf-8").partition("\n## ")[2]
    items = re.findall(r"^- .*(?:\n  .*)*", body, re.M)
    return [" ".join(item.split())[2:] for item in items]


def other_lines() -> list[str]:
    body = (DOCS / "findings.md").read_text(encoding="utf-8").partition("\n## ")[2]
    return [line for line in re.sub(r"^- .*(?:\n  .*)*", "", body, flags=re.M).splitlines() if line.strip()]


def sequences(path: Path) -> Iterator[list[float]]:
    """Numbers that stand together: a row of a table, or a list of a record."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                yield [float(value) for value in row.values() if re.fullmatch(r"-?[\d.]+(e-?\d+)?", value)]
    else:
        yield from _lists(json.loads(path.read_text(encoding="utf-8")))


def _lists(value: Any) -> Iterator[list[float]]:
    if isinstance(value, dict):
        yield from _lists(list(value.values()))
    elif isinstance(value, list):
        yield [float(each) for each in value if type(each) in (int, float)]
        for each in value:
            yield from _lists(each)
    elif isinstance(value, str):
        yield [float(each) for each in re.findall(NUMBER, value)]


def rounds_to(value: float, text: str) -> bool:
    """Whether a printed number is this one, rounded; half a unit of the last digit either way."""
    digits = len(text.partition(".")[2])
    return abs(value - float(text)) <= 0.5 * 10.0**-digits * (1 + 1e-9)


def has_together(found: list[list[float]], texts: tuple[str, ...]) -> bool:
    """Whether numbers stand side by side in one of the sequences."""
    return any(
        all(map(rounds_to, row[start : start + len(texts)], texts))
        for row in found
        for start in range(len(row) - len(texts) + 1)
    )


def says_n(path: Path) -> bool:
    """Whether a table has the number of visible samples beside each interval."""
    return path.suffix == ".csv" and "_n," in path.read_text(encoding="utf-8").partition("\n")[0]


def fault(claim: str) -> str | None:
    """What is wrong with a finding; None where it is right."""
    source = SOURCE.search(claim)
    if source is None:
        return "must end in (n = N; [name](results/FILE))."
    n, file, experiment = source.groups()
    if not (DOCS / file).is_file():
        return f"{file} is not there"
    text = NAMES.sub("", claim[: source.start()])
    if not INTERVAL.search(text) and "no interval" not in text:
        return 'must have an interval, or say "no interval"'
    found = list(sequences(DOCS / file))
    for texts in INTERVAL.findall(text):
        if not has_together(found, texts):
            return f"{file} does not have {texts[0]} [{texts[1]}, {texts[2]}]"
    record = json.loads((DOCS / "results" / experiment / "run.json").read_text(encoding="utf-8"))
    samples = record["config"]["evaluation"]["num_samples"] * record["config"]["study"]["repeats"]
    samples = 1 if experiment in ONE_IMAGE else samples
    if experiment == "features":
        # What is explained is read off the last fifth of the samples of h, names off all of them.
        samples = record["config"]["method"]["num_samples"] // (5 if "held-out" in text else 1)
    intervals = INTERVAL.findall(text) if says_n(DOCS / file) else []
    for texts in intervals:
        if not has_together(found, (*texts, n)):
            return f"{file} has another n than {n} for {texts[0]} [{texts[1]}, {texts[2]}]"
    if not intervals and int(n) != samples:
        return f"n is {samples}, not {n}"
    everything = found + list(_lists(record))
    for number in re.findall(rf"(?<![\w.]){NUMBER}", INTERVAL.sub("", text)):
        if not has_together(found if "." in number else everything, (number,)):
            return f"{file} does not have {number}"
    return None


@pytest.mark.parametrize("claim", claims())
def test_a_finding_is_what_its_file_says(claim: str) -> None:
    assert fault(claim) is None


def test_nothing_but_findings_has_numbers() -> None:
    assert len(claims()) > 20
    assert not [line for line in other_lines() if re.search(r"\d", NAMES.sub("", line)) and not line.startswith("#")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("[.43, .54]", "[.44, .54]"), r"does not have .48 \[.44, .54\]"),
        (("n = 5", "n = 6"), "another n than 6"),
        (("methods.csv", "method.csv"), "is not there"),
        ((" (n = 5;", " (n: 5;"), "must end in"),
        ((".48 [.43, .54] over all judged attributes at an effect of .55 [.49, .61] sd", "surely"), "must have an int"),
        (("Trained offsets", "Trained offsets of 1.234 sd"), "does not have 1.234"),
    ],
)
def test_a_false_finding_is_seen(change: tuple[str, str], reason: str) -> None:
    claim = claims()[0]
    assert fault(claim) is None and change[0] in claim
    found = fault(claim.replace(*change))
    assert found is not None and re.search(reason, found)


def test_a_finding_without_interval_has_the_number_of_samples() -> None:
    claim = next(each for each in claims() if "no interval" in each and "results/fig3/run.json" in each)
    assert fault(claim) is None
    found = fault(re.sub(r"n = \d+", "n = 1234", claim))
    assert found is not None and "not 1234" in found


def test_the_index_of_figures_has_the_numbers_of_the_findings() -> None:
    index, findings = ((DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("figures", "findings"))
    intervals = re.findall(r"\S+(?: sd)? \[[^]]+, [^]]+\](?!\()", index)
    assert len(intervals) > 5
    assert [each for each in intervals if each.replace(" sd", "") not in findings.replace(" sd", "")] == []
