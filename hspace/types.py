# pyright: strict, reportUnknownMemberType=false
"""Names shared by all modules: axis names of arrays, the user's error, and the protocols of scorers and embedders.

Axis order is always batch, steps, channel, height, width. Step index 0 is the noisiest.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex, runtime_checkable

from jaxtyping import Bool, Float

if TYPE_CHECKING:
    from torch import Tensor
else:
    # The command line prints help and reports mistakes without loading torch, so the aliases below check the shape
    # and dtype of whatever array they meet.
    Tensor = Any

Images = Float[Tensor, "batch channel height width"]
"""Images, or the model's own space, (batch, channel, height, width); clean images are in [-1, 1]."""

HBatch = Float[Tensor, "batch *h_shape"]
"""h of one step, (batch, ...): of a U-Net (batch, channel, height, width), of a transformer (batch, token, channel)."""

HTrajectory = Float[Tensor, "batch steps *h_shape"]
"""h of all steps, (batch, steps, ...)."""

HForBatch = Float[Tensor, "#batch steps *h_shape"]
"""h of all steps for each sample of a batch, or one for all of them."""

Scores = Float[Tensor, "batch attributes"]
"""One row of scores per image: a probability for a binary attribute, a value in its unit for a continuous one."""

Features = Float[Tensor, "batch dim"]
"""One feature vector per image."""


Seeds = Sequence[SupportsIndex]
"""Seeds of samples, integers >= 0; numpy's integers are seeds too."""


class InputError(ValueError):
    """A user's mistake; its message is one line with the given value and what would be right."""


def one_line(error: Exception) -> str:
    """The message of another library's error, on one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextmanager
def in_one_line(what: str) -> Generator[None]:
    """Turns any error that a stranger's file causes in this block into one line that names the file.

    HSPACE_DEBUG=1 shows the traceback behind it.

    Args:
        what: Name of the file, or of the model.

    Raises:
        InputError: If the block raises any error, in a library or here.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{what} cannot be used: {type(error).__name__}: {one_line(error)}") from error


@runtime_checkable
class Scorer(Protocol):
    """Reads attributes off images; always in evaluation mode."""

    id: str
    attributes: tuple[str, ...]
    binary: tuple[bool, ...]

    def __call__(self, images: Images) -> Scores:
        """Scores of images in [-1, 1], (batch, attributes)."""
        ...

    def visible(self, scores: Scores) -> Bool[Tensor, "batch attributes"]:
        """Which attributes an image with these scores shows, bool; all figures leave out the scores of the others."""
        ...


@runtime_checkable
class LogitScorer(Scorer, Protocol):
    """A scorer that can also order images whose probabilities are all 0 or 1."""

    def logits(self, images: Images) -> Scores:
        """Log-odds of binary attributes and the scores of the others, (batch, attributes).

        The score of a binary attribute is the sigmoid of its log-odds.
        """
        ...


@runtime_checkable
class TextScorer(Scorer, Protocol):
    """A scorer that compares images with texts, such as CLIP; all its embeddings have unit norm.

    A torch module that keeps `prompts` in a buffer needs a property of that name: from Python 3.12 on `isinstance` does
    not see what a module hands out by `__getattr__`.

    Attributes:
        prompts: Embeddings of having each attribute and of not having it, (attributes, 2, dim).
    """

    prompts: Float[Tensor, "attributes 2 dim"]

    def embed(self, images: Images) -> Features:
        """Embeddings of images in [-1, 1], (batch, dim), through which gradients pass."""
        ...

    def encode(self, texts: Sequence[str]) -> Features:
        """Embeddings of texts, (texts, dim).

        Raises:
            InputError: If the tokenizer cannot tell two of them apart.
        """
        ...


@runtime_checkable
class Embedder(Protocol):
    """Maps images to feature vectors; those of an identity embedder have unit norm."""

    id: str
    dim: int

    def __call__(self, images: Images) -> Features:
        """Features of images in [-1, 1], (batch, dim)."""
        ...


@runtime_checkable
class RegionNetwork(Protocol):
    """Finds named regions, such as `mouth`, in images."""

    id: str
    regions: tuple[str, ...]

    def __call__(self, images: Images) -> dict[str, Bool[Tensor, "batch height width"]]:
        """Masks of the regions, true inside, of images in [-1, 1]."""
        ...
