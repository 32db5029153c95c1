"""Directions and operators on the Hugging Face hub: one file and its card, uploaded and downloaded by `owner/name`."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from hspace.diffusion.identity import WEIGHTS
from hspace.directions.metadata import DirectionsMeta
from hspace.directions.operators import Found, Operator, load_found
from hspace.directions.shipped import READY, ready_path
from hspace.output.tables import written
from hspace.types import InputError, one_line

PREFIX = "hub:"
FILE = "directions.safetensors"
"""Name of the file in every repository."""
OWNER_AND_NAME = r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}"
RESPONSIBLE = (
    "Edits of faces can deceive and demean. A direction shows what its model's training images show, biases included; "
    "it says nothing about a person. Ask before you edit a picture of someone, and say that it was edited."
)
T = TypeVar("T")


def local_path(path: str | Path) -> Path:
    """A path as it is, or the file that `ready:MODEL` names, or a local copy of that of `hub:OWNER/NAME`.

    Raises:
        InputError: If the name is not of that form, the model has no ready-made directions, or the hub cannot be
            reached or does not have the file.
    """
    text = path.as_posix() if isinstance(path, Path) else path
    if text.startswith(READY):
        return ready_path(text.removeprefix(READY))
    if not text.startswith(PREFIX):
        return Path(path)
    repository = _checked(text.removeprefix(PREFIX))
    return Path(_asked(repository, lambda: hf_hub_download(repository, FILE, etag_timeout=10)))


def push(repository: str, file: Path, *, strip: Path | None = None, private: bool = False) -> str:
    """Uploads directions with their card, and a picture, as one commit; makes the repository if it does not exist.

    Args:
        repository: Id of the repository, `owner/name`.
        file: File of directions or of an operator, which is read and checked first.
        strip: PNG for the card.
        private: Whether only its owner sees a new repository.

    Returns:
        The commit's address.

    Raises:
        InputError: If the id or a file is wrong, nobody is logged in, or the hub cannot be reached.
    """
    _checked(repository)
    text = card(load_found(file), repository, strip)
    parts: dict[str, str | bytes] = {FILE: str(file), "README.md": text.encode()}
    if strip is not None:
        if strip.suffix.lower() != ".png" or not strip.is_file():
            raise InputError(f"--strip must be a PNG file, got {strip}")
        parts["strip.png"] = str(strip)
    adding = [CommitOperationAdd(name, content) for name, content in parts.items()]

    def send() -> str:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        return api.create_commit(repository, adding, commit_message="Share directions of hspace").commit_url

    return _asked(repository, send)


def card(found: Found, repository: str, strip: Path | None = None) -> str:
    """All that a stranger must know about the directions or the operator, as Markdown with the hub's header."""
    meta, model = found.meta, _public(found.meta.model_id)
    what = "An operator" if isinstance(found, Operator) else "Editing directions"
    header = ["---", "library_name: hspace", "tags: [hspace, diffusion, image-editing]", "---", f"# {repository}", ""]
    about = [
        f"{what} in the {meta.space}-space of `{model}` "
        f"({len(meta.timesteps)} steps), found by: {_plain(meta.method)}. A strength is in {_plain(meta.unit)}.",
        "",
        *(["![Edits at several strengths](strip.png)", ""] if strip else []),
        f"    hspace edit photo.jpg --direction {PREFIX}{repository}:0 --strength 1 model.path={model}",
        f"    hspace method=file method.path={PREFIX}{repository} model.path={model}",
        "",
    ]
    rows = [f"| {i} | {_plain(name)} | {_measured(meta, name)} |" for i, name in enumerate(meta.names)]
    table = ["| number | name | effect, 95% interval, safe strengths |", "|---|---|---|", *rows, ""]
    weights = meta.provenance.model.get(WEIGHTS, "unknown")
    fit = f"The model's weights have SHA-256 `{_plain(weights)}`; directions fit no other."
    return "\n".join([*header, *about, *table, fit, "", "## Responsible use", "", RESPONSIBLE, ""])


def _measured(meta: DirectionsMeta, name: str) -> str:
    """The range of a direction that the file holds, and the effect of the strongest safe edit of which it is known."""
    record: Any = (meta.calibration or {}).get(name)
    try:
        if "range" not in record:
            found = record["calibration"]
            effect = _effect(found["effect"], found["low"], found["high"], found["n"])
            moved = f"{_plain(str(found['attribute']))} {effect}"
            return f"{moved} at {written(found['strength'], '.3g')}{_made(found, meta)}; not measured"
        found = record["range"]
        numbers = found.get("shown") or [len(found["seeds"])] * len(found["tried"])
        tried = zip(found["tried"], found["effect"], numbers, strict=True)
        known = [each for each in tried if found["low"] <= each[0] <= found["high"] and each[1][0] is not None]
        at, (effect, low, high), n = max(known, key=lambda each: (abs(each[0]), each[0]))
        moved = f"{_plain(str(found['attribute']))} {_effect(effect, low, high, n)}"
        said = "no attribute surely" if found["attribute"] is None else moved
        ends = [written(found[end], ".3g") for end in ("low", "high")]
        return f"{said} at {written(at, '.3g')}; {ends[0]} to {ends[1]}{_made(found, meta)}"
    except (TypeError, AttributeError, KeyError, IndexError, ValueError, OverflowError):
        return "not measured"


def _effect(effect: float, low: float | None, high: float | None, n: Any) -> str:
    """An effect with its interval, which is not known where all samples change alike."""
    interval = "no interval" if low is None or high is None else f"{written(low)} to {written(high)}"
    return f"{written(effect)} sd ({interval}, n = {_plain(str(n))})"


def _made(found: dict[str, Any], meta: DirectionsMeta) -> str:
    """The settings of the edits that were measured, but for those that an edit has unless told otherwise."""
    usual = {"injection": (None, "symmetric"), "start": (None, 0), "stop": (None, len(meta.timesteps))}
    other = [f"{key}={_plain(str(found[key]))}" for key, values in usual.items() if found.get(key) not in values]
    eta = meta.provenance.eta
    if eta is None and found.get("eta") is not None:  # what the directions do not tell
        other.insert(0, f"eta={_plain(str(found['eta']))}")
    return f" with {', '.join(other)}" if other else ""


def _public(model_id: str) -> str:
    """A model's name within a code span: of a local folder only its own name, since its place is nobody's business."""
    local = re.match(r"[./~\\]|\w:", model_id) or Path(model_id).expanduser().exists()
    shown = Path(model_id.replace("\\", "/")).name if local else model_id
    return re.sub(r"[`\s]+", " ", shown).strip() or "unknown"


def _plain(text: str) -> str:
    """A stranger's text that cannot become markup."""
    return re.sub(r"([\\`*_{}\[\]<>()#|~!&$])", r"\\\1", " ".join(text.split()))


def _checked(repository: str) -> str:
    if not re.fullmatch(OWNER_AND_NAME, repository):
        raise InputError(f"a repository of the hub is written OWNER/NAME, got {repository!r}")
    return repository


def _asked(repository: str, question: Callable[[], T]) -> T:
    """The hub's answer, or one line that says what is wrong."""
    try:
        return question()
    # Without a network httpx, without a login or offline huggingface_hub, each of its own kind.
    except Exception as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{repository} on the hub: {_why(error)}") from error


def _why(error: Exception) -> str:
    # To who is not logged in the hub says 401 of what it does not have, too.
    if isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError):
        return "there is none, or it is not yours to see"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None
    if status in (401, 403):
        return f"no permission ({status}): log in with hf auth login, as someone who may"
    if status == 404:
        return "there is none, or it is not yours to see"
    reason = one_line(error)
    return f"the hub cannot be reached, or is told not to be: {reason}" if status is None else reason
