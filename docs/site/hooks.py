"""What the site needs beside Markdown: equations as MathML, links into the repository, tables made from the code."""

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

ROOT = Path(__file__).parents[2]
EQUATION = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$([^$\n]+?)\$(?![\d$])", re.DOTALL)
CODE = re.compile(r"(```.*?```|`[^`\n]*`|^    .*$)", re.DOTALL | re.MULTILINE)
OUTSIDE = re.compile(
    r"(\[[^\]]*\])\((?:\.\./)+((?:scripts|conf|tests|hspace)/[^)\s]+|README\.md|CHANGELOG\.md|LICENSE)\)"
)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Equations become MathML, which browsers draw by themselves; links out of docs/ become the file's path."""
    del page, config, files
    markdown = OUTSIDE.sub(lambda match: f"{match[1][1:-1]} (`{match[2]}`)", markdown)
    parts = CODE.split(markdown)
    return "".join(part if i % 2 else EQUATION.sub(_mathml, part) for i, part in enumerate(parts))


def _mathml(match: re.Match[str]) -> str:
    block = match[1] is not None
    mathml = convert((match[1] or match[2]).strip(), display="block" if block else "inline")
    return f"\n\n{mathml}\n\n" if block else mathml
