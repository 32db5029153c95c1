"""The models that the page offers: each has a session of its own, which is opened when it is first asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hspace.studio.session import Session
from hspace.types import InputError


@dataclass(frozen=True)
class Choice:
    """A model that can be chosen.

    Attributes:
        name: Name for people.
        open: Function that loads the model, and gives its session.
    """

    name: str
    open: Callable[[], Session]


class Shelf:
    """Models by their number; a page can name nothing else, so that no path of its own is opened.

    Attributes:
        choices: The models, in the order of the page.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        self.choices: tuple[Choice, ...] = tuple(choices)
        self._opened: dict[int, Session] = {}

    @property
    def names(self) -> list[str]:
        """Names of the models."""
        return [choice.name for choice in self.choices]

    def session(self, number: int) -> Session:
        """The session of a model, which is loaded at its first use.

        Raises:
            InputError: If there is no such model, or it cannot be loaded.
        """
        if not 0 <= number < len(self.choices):
            raise InputError(f"there is no model {number}: they are 0 to {len(self.choices) - 1}")
        if number not in self._opened:
            self._opened[number] = self.choices[number].open()
        return self._opened[number]
