"""The page of the model card: the measured figures beside their targets, between two marks of the text."""

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hspace.output.tables import Cell, Table, format_number, to_markdown
from hspace.system.files import write_bytes, write_text
from hspace.types import InputError

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
KEPT = {
    "likeness": "likeness, of features alone,",
    "identity": "identity, of all that stays from scene to scene",
}
"""What an encoder reads, by its role."""
WORDS = {
    "boundary": "linear boundary", "whitened": "whitened difference", "regression": "regression",
    "trained": "trained offsets",
}  # fmt: skip
"""Methods that find edits, in words."""
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "≥": operator.ge,
    "≤": operator.le,
    "<": operator.lt,
    ">": operator.gt,
}


def refresh(docs: Path, metrics: dict[str, Any], pictures: Path) -> None:
    """Put the figures between the model's marks on its world's page, such as portraits.md, and the pictures beside it.

    Args:
        docs: Folder of the page, whose pictures lie in `images`.
        metrics: From `measure`.
        pictures: Folder of new pictures.

    Raises:
        InputError: If the page does not have the two marks, once each and in order.
    """
    put(docs / f"{metrics['world']}.md", marks(metrics), figures(metrics))
    for picture in sorted(pictures.glob("*.png")):
        write_bytes(docs / "images" / picture.name, picture.read_bytes())


def put(page: Path, marks: tuple[str, str], text: str) -> None:
    """Put a text between two marks of a page, in the place of what is there.

    Raises:
        InputError: If the page does not have the two marks, once each and in order.
    """
    first, last = marks
    before, begin, rest = page.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end) or first in rest or last in before + after:
        raise InputError(f"{page} must have {first} and then {last}, once each")
    write_text(page, f"{before}{first}\n\n{text}\n{last}{after}")


def marks(metrics: dict[str, Any]) -> tuple[str, str]:
    """Between what the figures stand: those of a model that does not have its world's name have its own."""
    name = metrics["card"]
    return (BEGIN, END) if name == metrics["world"] else (f"<!-- {name}: begin -->", f"<!-- {name}: end -->")


def figures(metrics: dict[str, Any]) -> str:
    """All tables, as Markdown."""
    tables = tuple(
        table(metrics) for table in (targets, _attributes, _components, _moved, _carried, _swapped, _regions)
    )
    return "\n".join(map(to_markdown, tables))


def targets(metrics: dict[str, Any]) -> Table:
    """Every figure that has a target, with whether it is met."""
    world, same = metrics["world"], metrics["kept"][0]
    asked = (
        ("bottleneck_ratio", "numbers of h, as a share of the image's", "≤ .34"),
        ("swap_background", "share of the background's difference that a swap of h carries", "≤ .3"),
        ("swap_judged", "share of a judged attribute's difference that a swap of h carries, in the median", "≥ .7"),
        ("decided_share", f"generated {world} that the judge decides on, against renders", "≥ .9"),
        ("marginal_error_max", "largest error of a binary attribute's share", "≤ .05"),
        ("mean_error_max", "largest error of a continuous attribute's mean, in sd", "≤ .2"),
        ("fid_floor", "FID of fresh renders", ""),
        ("fid_generated", f"FID of generated {world}", ""),
        ("fid_independent", "FID of renders with independent factors", ""),
        ("fid_untrained", "FID of an untrained model", ""),
        ("fid_share", f"FID of generated {world}: share of the way from floor to untrained", "≤ .05"),
        ("judge_accuracy_min", "judge on renders: accuracy, worst binary attribute", "≥ .97"),
        ("judge_r2_min", "judge on renders: R², worst continuous attribute", "≥ .95"),
        (
            "error_correlation",
            "errors of judge and annotator on renders: largest correlation of a continuous attribute",
            "",
        ),
        ("agreement_min", f"judge and annotator agree on generated {world}", "≥ .95"),
        ("identity_tar", "identity: true accepts of unseen pairs at 1% false accepts", "≥ .95"),
        ("likeness_tar", "likeness: the same of features alone", ""),
        ("semantic_components", "rotated components, of ten, that move one attribute", "≥ 5"),
        ("semantic_attributes", "different attributes among them", "≥ 4"),
        ("moved_before", "share having the attribute at \N{MINUS SIGN}s, worst of five", "< .2"),
        ("moved_after", "share having the attribute at +s, worst of five", "> .8"),
        ("moved_identity", f"{same} to the unedited sample at both, worst of five", "≥ .5"),
    )
    rows = tuple(_row(metrics, *each) for each in asked if each[0] in metrics)
    sizes = metrics["sizes"]
    caption = (
        f"{sizes['generated']:,} {world} at the {sizes['steps']} steps of the edits, eta = 1; edits read by the "
        f"judge on {sizes['judged']} evaluation samples."
    )
    return Table(("figure", "key", "measured", "target", "met"), rows, caption)


def _row(metrics: dict[str, Any], key: str, text: str, target: str) -> tuple[Cell, ...]:
    if not target:
        return text, key, metrics[key], "", ""
    comparison, bound = target.split()
    value = worst(metrics[key], comparison)
    met = value is not None and COMPARISONS[comparison](value, float(bound))
    measured = None if value is None else format_number(value)
    return text, key, measured, target, "yes" if met else "no"


def worst(value: Any, comparison: str) -> float | int | None:
    """The one number of a figure that has to meet the target: of several the worst, of a list its length.

    It does not exist if one of several does not.
    """
    if isinstance(value, list):
        return len(value)
    if isinstance(value, dict) and None in value.values():
        return None
    if isinstance(value, dict):
        return max(value.values()) if comparison in "<≤" else min(value.values())
    return value


def _attributes(metrics: dict[str, Any]) -> Table:
    """What the judge reads."""
    columns = ("judge", "error", "decided", "agreement")
    rows = tuple((name, *(row.get(column) for column in columns)) for name, row in metrics["attributes"].items())
    caption = (
        "By attribute. judge: accuracy (binary) or R² (continuous) on fresh renders; error: of the share (binary) or "
        "of the mean in sd (continuous) of generated pictures, against the labels of renders; decided: share of "
        "generated pictures with a probability under .1 or over .9, divided by that of renders; agreement: of judge "
        "and annotator on generated pictures."
    )
    return Table(("attribute", *columns), rows, caption)


def _components(metrics: dict[str, Any]) -> Table:
    """Rotated principal components with a name."""
    columns = ("component", "attribute", "effect", "low", "ratio")
    rows = tuple(
        (*(row[column] for column in columns), "yes" if row["semantic"] else "no") for row in metrics["components"]
    )
    sizes = metrics["sizes"]
    caption = (
        f"Principal components of h, of all steps together, rotated by varimax, from {sizes['discovery']} samples, "
        "that the annotator gives a name. effect: change of the attribute from \N{MINUS SIGN}2 to +2, in sd, by the "
        "judge; low: lower end of its 95% interval; ratio: to the next attribute's effect. Semantic: low ≥ .5 and "
        "ratio ≥ 1.5."
    )
    return Table((*columns, "semantic"), rows, caption)


def _moved(metrics: dict[str, Any]) -> Table:
    """Edits of one attribute."""
    columns = ("strength", "unedited", "before", "after", *metrics["kept"])
    rows = tuple(
        (name, WORDS[row["method"]], *(row[column] for column in columns)) for name, row in metrics["moved"].items()
    )
    sizes = metrics["sizes"]
    kept = " and ".join(KEPT[role] for role in metrics["kept"])
    trained = [name for name, row in metrics["moved"].items() if row["method"] == "trained"]
    better = f", for {', '.join(trained)} trained offsets, which move it more" if trained else ""
    caption = (
        f"Whitened differences of up to {sizes['examples']} + {sizes['examples']} of {sizes['annotated']} annotated "
        f"samples{better}. At one strength s each, which the annotator chooses on {sizes['calibration']} calibration "
        f"samples; on {sizes['judged']} samples, no interval: share of samples having the attribute (a "
        "continuous one: above the renderer's median) unedited, at \N{MINUS SIGN}s and at +s, and the mean cosine to "
        f"the unedited samples over both: {kept}."
    )
    return Table(("attribute", "method", *columns), rows, caption)


def _carried(metrics: dict[str, Any]) -> Table:
    """What h carries."""
    columns = ("log_snr", "by_h")
    rows = tuple((name, *(row[column] for column in columns)) for name, row in metrics["carried"].items())
    caption = (
        "Pairs of renders that differ in one attribute, with the same noise. log_snr: log alpha_bar / (1 - alpha_bar) "
        "at which the prediction of the clean image shows half of the difference, by the judge; by_h: the share of it "
        "that comes from h, the rest comes through the skip connections."
    )
    return Table(("attribute", *columns), rows, caption)


def _swapped(metrics: dict[str, Any]) -> Table:
    """What a swap of h carries."""
    caption = (
        "Samples with the h of another sample at every step: share of the difference of the two that comes along, by "
        "the judge"
    )
    caption += "; that of the background by the colours of the upper corners." * ("background" in metrics["swapped"])
    counted = f"those of {metrics['sizes']['swaps']} samples that show the attribute before, after and in the donor"
    caption = f"{caption.rstrip('.')}; se: its standard error over {counted}."
    rows = tuple((name, row["share"], row["se"]) for name, row in metrics["swapped"].items())
    return Table(("attribute", "carried", "se"), rows, caption)


def _regions(metrics: dict[str, Any]) -> Table:
    """The segmentation network."""
    caption = "Segmentation network: intersection over union with the exact masks of held-out renders."
    return Table(("region", "IoU"), tuple(metrics["regions"].items()), caption)
