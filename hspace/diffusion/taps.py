"""Names of the places where h can be tapped, and the module of each in every kind of network.

before, middle, after     around the mid block of a U-Net; all results of the paper are `after` it
mod                       the embedding of time and condition that modulates all blocks; in a U-Net, of time alone
block:11                  the output of the twelfth transformer block
block:11.attn             the output of its attention; .ff of its feed-forward layer, .mod of its own modulation
module:down_blocks.0[0]   any module by its path; a number chooses one part of an output with several
block:3+block:7           several taps together
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from hspace.diffusion.cut import Tap
from hspace.types import InputError

TAPS = ("before", "middle", "after")
"""Taps of a U-Net."""

GRAMMAR = re.compile(r"before|middle|after|mod|block:(\d+)(?:\.(attn|ff|mod))?|module:([\w.]+)(?:\[(\d+)\])?")

BLOCK_LISTS = ("transformer_blocks", "single_transformer_blocks", "layers")
"""Attributes that hold a transformer's blocks, in the order in which they are run."""

JOINT = {"Flux2SingleTransformerBlock", "Lumina2TransformerBlock", "ZImageTransformerBlock"}
"""Blocks whose output is one sequence of text and image tokens."""

JOINT_INSIDE = JOINT | {"FluxSingleTransformerBlock"}
"""Blocks whose attention and feed-forward layer see one such sequence."""

IMAGE_FIRST = {"ZImageTransformerBlock"}
"""Blocks whose sequence has the image before the text."""

MASKS: dict[str, str] = {"Lumina2TransformerBlock": "encoder_attention_mask"}
"""Masks of text, for blocks whose sequence has the image behind the text that counts and padding behind both."""

WITH_TEXT = {
    "JointTransformerBlock",
    "FluxTransformerBlock",
    "FluxSingleTransformerBlock",
    "Flux2TransformerBlock",
    "QwenImageTransformerBlock",
}
"""Blocks that give text and image, in this order; their attention gives image and text."""

CHILDREN: dict[str, dict[str, str]] = {
    "BasicTransformerBlock": {"attn": "attn1", "ff": "ff", "mod": "norm1.linear"},
    "JointTransformerBlock": {"attn": "attn", "ff": "ff", "mod": "norm1.linear"},
    "FluxTransformerBlock": {"attn": "attn", "ff": "ff", "mod": "norm1.linear"},
    "FluxSingleTransformerBlock": {"attn": "attn", "ff": "act_mlp", "mod": "norm.linear"},
    "Flux2TransformerBlock": {"attn": "attn", "ff": "ff"},
    "Flux2SingleTransformerBlock": {"attn": "attn"},
    "QwenImageTransformerBlock": {"attn": "attn", "ff": "img_mlp", "mod": "img_mod"},
    "SanaTransformerBlock": {"attn": "attn1", "ff": "ff"},
    "Lumina2TransformerBlock": {"attn": "attn", "ff": "feed_forward", "mod": "norm1.linear"},
    "ZImageTransformerBlock": {"attn": "attention", "ff": "feed_forward", "mod": "adaLN_modulation"},
}
"""Module of each tap inside a block, by the block's class; `attn` is the attention of image tokens to each other."""

MODULATIONS: Mapping[str, int | None] = {
    "time_text_embed": None,
    "adaln_single": 0,
    "time_guidance_embed": None,
    "time_embed": 0,
    "time_caption_embed": 0,
    "t_embedder": None,
    "time_embedding": None,
}
"""Modules that give `mod`, and which part of their output it is."""


FORMS = (
    "one of before, middle, after, mod, block:N, block:N.attn, block:N.ff, block:N.mod, module:PATH, "
    "or several of them joined by +"
)
"""What the name of a tap may be, in words."""


def is_tap(name: object) -> bool:
    """Whether this is the name of a tap, or of several, of any network."""
    return isinstance(name, str) and all(GRAMMAR.fullmatch(part) for part in name.split("+"))


def check_name(name: str) -> str:
    """The name of a tap, or of several, after a check of its form.

    Raises:
        InputError: If it is not of the right form.
    """
    if not is_tap(name):
        raise InputError(f"tap must be {FORMS}, got {name}")
    return name


def find_taps(network: nn.Module, name: str, image_tokens: int | None = None) -> tuple[Tap, ...]:
    """The places that a name means in a network.

    Args:
        network: A network of diffusers.
        name: One tap, or several joined by "+" in the order in which they are passed.
        image_tokens: Number of tokens of an image, for taps of sequences that also hold text, which is never edited.

    Raises:
        InputError: If the name is not of the right form, or the network does not have that place.
    """
    names = check_name(name).split("+")
    if len(set(names)) < len(names):
        raise InputError(f"tap {name} names one place twice")
    return tuple(_find(network, part, image_tokens) for part in names)


def _find(network: nn.Module, name: str, image_tokens: int | None) -> Tap:
    match = GRAMMAR.fullmatch(name)
    assert match is not None, "checked before"
    block, inside, path, part = match.groups()
    if path is not None:
        return Tap(path, None if part is None else int(part))
    if block is not None:
        return _in_block(network, name, int(block), inside, image_tokens)
    return _modulation(network) if name == "mod" else _about_mid_block(network, name)


def _about_mid_block(network: nn.Module, name: str) -> Tap:
    mid = getattr(network, "mid_block", None)
    if mid is None:
        raise InputError(f"tap {name}: {type(network).__name__} has no mid block; {_offer(network)}")
    if name == "after":
        return Tap("mid_block")
    if name == "before":
        return Tap(f"down_blocks.{len(network.get_submodule('down_blocks')) - 1}", part=0)  # pyright: ignore[reportArgumentType]
    last = f"mid_block.resnets.{len(mid.resnets) - 1}"
    if type(mid.resnets[-1]).__name__ != "ResnetBlock2D":
        raise InputError("the mid block's last residual block is not a ResnetBlock2D; tap h before or after it")
    return Tap(f"{last}.norm2")


def _modulation(network: nn.Module) -> Tap:
    for module, part in MODULATIONS.items():
        if hasattr(network, module):
            return Tap(module, part)
    raise InputError(f"{type(network).__name__} has no modulation shared by all blocks; tap block:0.mod")


def blocks_of(network: nn.Module) -> list[str]:
    """Paths of a transformer's blocks in the order in which they are run; a U-Net has none."""
    lists = [name for name in BLOCK_LISTS if hasattr(network, name)]
    return [f"{name}.{i}" for name in lists for i in range(len(getattr(network, name)))]


def _in_block(network: nn.Module, name: str, number: int, inside: str | None, image_tokens: int | None) -> Tap:
    blocks = blocks_of(network)
    if number >= len(blocks):
        raise InputError(f"tap {name} is not there; {_offer(network)}")
    kind = type(network.get_submodule(blocks[number])).__name__
    tap = _inside(kind, blocks[number], name, inside)
    if tap.path not in dict(network.named_modules()):
        raise InputError(f"tap {name} is not there: {type(network).__name__} has no module {tap.path}")
    joint = JOINT if inside is None else JOINT_INSIDE if inside != "mod" else ()
    if kind not in joint:
        return tap
    if image_tokens is None:
        raise InputError(f"tap {name} also holds text: the number of image tokens must be given")
    first = kind in IMAGE_FIRST
    tokens = slice(0, image_tokens) if first else slice(-image_tokens, None)
    return replace(tap, tokens=tokens, mask=MASKS.get(kind))


def _inside(kind: str, path: str, name: str, inside: str | None) -> Tap:
    if inside is None:
        return Tap(path, part=1 if kind in WITH_TEXT else None)
    child = CHILDREN.get(kind, {}).get(inside)
    if child is None:
        raise InputError(f"tap {name}: a {kind} has no such place; give it as module:{path}.NAME")
    both = inside == "attn" and kind in WITH_TEXT - JOINT_INSIDE
    return Tap(f"{path}.{child}", part=0 if both else None)


def _offer(network: nn.Module) -> str:
    count = len(blocks_of(network))
    return f"it has block:0 to block:{count - 1}" if count else "tap it before, middle or after the mid block"
