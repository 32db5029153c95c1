"""What the site needs beside Markdown: equations as MathML, links into the repository, tables made from the code."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

from hspace.directions.method import get_method
from hspace.directions.settings import METHODS
from hspace.runs.config import Config
from hspace.runs.wording import fields_of, rule_of

ROOT = Path(__file__).parents[2]
EQUATION = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$([^$\n]+?)\$(?![\d$])", re.DOTALL)
CODE = re.compile(r"(```.*?```|`[^`\n]*`|^    .*$)", re.DOTALL | re.MULTILINE)
OUTSIDE = re.compile(
    r"(\[[^\]]*\])\((?:\.\./)+((?:scripts|conf|tests|hspace)/[^)\s]+|README\.md|CHANGELOG\.md|LICENSE)\)"
)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Equations become MathML, which browsers draw by themselves; links out of docs/ become the file's path."""
    del page, config, files
    markdown = markdown.replace("<!-- every setting -->", "\n".join(_settings()))
    markdown = OUTSIDE.sub(lambda match: f"{match[1][1:-1]} (`{match[2]}`)", markdown)
    parts = CODE.split(markdown)
    return "".join(part if i % 2 else EQUATION.sub(_mathml, part) for i, part in enumerate(parts))


def _mathml(match: re.Match[str]) -> str:
    block = match[1] is not None
    mathml = convert((match[1] or match[2]).strip(), display="block" if block else "inline")
    return f'\n\n<div class="equation">{mathml}</div>\n\n' if block else mathml


def _settings() -> Iterator[str]:
    """Tables of all keys with their rules, a section each: those of the configuration, then those of each method."""
    yield from _table("General", Config, "")
    for name, field in (fields_of(Config) or {}).items():
        if fields_of(field.annotation):
            yield from _table(name, field.annotation, f"{name}.")
    for name in METHODS.names():
        yield from _table(f"method={name}", get_method(name).settings, "method.")


def _table(title: str, record: Any, prefix: str) -> Iterator[str]:
    meanings = dict(re.findall(r"^ {4,8}(\w+): (.+?)(?=\n {4,8}\w+: |\n\n|\Z)", record.__doc__ or "", re.M | re.S))
    fields = {
        name: field
        for name, field in (fields_of(record) or {}).items()
        if not fields_of(field.annotation) and not (prefix == "method." and name == "name")
    }
    if fields:
        yield f"\n## {title}\n\n| key | what it is | must be |\n|---|---|---|"
    for name, field in fields.items():
        meaning = " ".join((field.description or meanings.get(name, "")).split())
        yield f"| `{prefix}{name}` | {meaning.replace('|', '&#124;')} | {rule_of(field).replace('|', '&#124;')} |"
