"""Small changes of a checkpoint's files, each of which changes what is computed from them."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file


def set_value(path: Path, **changes: Any) -> None:
    """Other values in a file of JSON."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def move_tensor(path: Path) -> None:
    """Another number in a file of tensors."""
    tensors = load_file(path)
    tensors[min(tensors)].view(-1)[0] += 1e-2
    save_file(tensors, path, metadata={"format": "pt"})


def swap_words(path: Path) -> None:
    """Two words of a tokenizer in each other's place."""
    text = path.read_text()
    a, d = ('"a</w>"', '"d</w>"') if "</w>" in text else ('"a"', '"d"')
    path.write_text(text.replace(a, '"?"').replace(d, a).replace('"?"', d))
