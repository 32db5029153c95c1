"""What the page can ask of a session, as JSON: read, checked, and answered; this module does not know the web."""

from collections.abc import Callable, Iterator
from typing import Any

from hspace.studio.session import Edit, Session, read_mask, sprite
from hspace.types import InputError

MAX_JSON = 4 * 2**20
"""Largest request in bytes."""
NOTE = "Edited by hspace studio: {terms}; model {model}. It shows no real event."
Body = dict[str, Any]


def answer_state(session: Session, body: Body) -> Body:
    """All that the page needs at first."""
    return session.state()


def answer_source(session: Session, body: Body) -> Body:
    """The image of a source."""
    source = session.source(text_of(body, "source"))
    return {"image": sprite(source.x_0), "error": source.error, "generated": source.generated}


def answer_find(session: Session, body: Body) -> Body:
    """Sliders for the painted region."""
    source, edit = session.source(text_of(body, "source")), _edit(session, body)
    found = session.find(source, edit.mask, _whole(body, "step", 0), _whole(body, "count", 2))
    return {"sliders": [session.describe(number) for number in found]}


def answer_keep(session: Session, body: Body) -> Body:
    """A slider that holds a sum of others."""
    number = session.save_direction(_edit(session, body), text_of(body, "name"))
    return {"sliders": [session.describe(number)]}


def answer_save(session: Session, body: Body) -> Body:
    """The file of a picture that was written."""
    source, edit = session.source(text_of(body, "source")), _edit(session, body)
    *_, image = session.exact(source, edit)
    terms = ", ".join(f"{name} at {strength:g}" for name, strength in session.told(edit)) or "nothing"
    note = NOTE.format(terms=terms, model=session.bench.model.model_id)
    return {"file": str(session.save_picture(source, edit, image, note))}


def frames_of(session: Session, kind: str, body: Body) -> Iterator[Body]:
    """The frames of a stream, `strip` or `exact`, computed as they are asked for; mistakes are found before."""
    source, edit = session.source(text_of(body, "source")), _edit(session, body)
    if kind == "strip":
        images = session.strip(source, _whole(body, "slider", -1), edit.start, edit.stop)
    else:
        images = session.exact(source, edit)
    total = session.steps

    def frames() -> Iterator[Body]:
        image = None
        for step, image in enumerate(images, start=1):
            yield {"step": step, "steps": total, "image": sprite(image)}
        extra = session.read(source, image) if kind == "exact" and image is not None else {}
        yield {"done": True, **extra}

    return frames()


def _edit(session: Session, body: Body) -> Edit:
    """The edit that a request describes.

    Raises:
        InputError: If a number, a window or the mask is wrong.
    """
    terms, steps = body.get("terms", {}), session.steps
    if not isinstance(terms, dict) or not all(_is_term(*term) for term in terms.items()):
        raise InputError("terms are finite strengths by the number of the slider")
    start, stop = _whole(body, "start", 0), _whole(body, "stop", steps)
    if not 0 <= start < stop <= steps:
        raise InputError(f"the edited steps must satisfy 0 <= start < stop <= {steps}, got {start} to {stop}")
    _, height, width = session.bench.model.image_shape
    mask = read_mask(text_of(body, "mask"), height, width) if body.get("mask") else None
    return Edit({int(number): float(strength) for number, strength in terms.items()}, start, stop, mask)


def text_of(body: Body, key: str) -> str:
    """A text of the request.

    Raises:
        InputError: If it is missing, empty, too long, or no text.
    """
    value = body.get(key)
    # A lone surrogate is text for JSON, but cannot be written anywhere.
    if not isinstance(value, str) or not value or len(value.encode("utf-8", "surrogatepass")) > MAX_JSON:
        raise InputError(f"{key} must be text")
    return value.encode("utf-8", "replace").decode()


def _whole(body: Body, key: str, default: int) -> int:
    value = body.get(key, default)
    if type(value) is not int or abs(value) > 10_000:
        raise InputError(f"{key} must be a whole number")
    return value


def _is_term(number: str, strength: Any) -> bool:
    right = isinstance(number, str) and number.isdecimal() and number.isascii() and len(number) < 6
    return right and type(strength) in (int, float) and abs(strength) <= 1e4


ANSWERS: dict[str, Callable[[Session, Body], Body]] = {
    "source": answer_source, "find": answer_find, "keep": answer_keep, "save": answer_save,
}  # fmt: skip
"""Answers to what is posted, by the last part of the path."""
