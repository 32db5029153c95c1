"""A cut network gives the bits of the whole one, plain and edited, at every kind of tap, and computes nothing twice."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import NETWORKS
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from hspace.diffusion.cut import Cut, Tap, entries_per_row, forward_derivatives
from hspace.diffusion.taps import find_taps, is_tap
from hspace.types import InputError

KINDS = ("before", "middle", "after", "block", "attn", "ff", "block mod", "mod", "module", "several")
U_NET = {"before": "before", "middle": "middle", "after": "after", "mod": "mod", "several": "before+after"}
U_NET |= {"module": "module:up_blocks.0.resnets.0"}
BLOCKS = {"block": "block:0 block:1", "attn": "block:1.attn", "ff": "block:1.ff"}
SINGLE = {"block": "block:0 block:1 block:3", "attn": "block:1.attn block:3.attn"}
HELD: dict[str, dict[str, str]] = {
    **dict.fromkeys(("pixel", "grey", "classes", "latent", "stable_diffusion", "sdxl"), U_NET),
    "dit": {**BLOCKS, "block mod": "block:1.mod", "module": "module:pos_embed", "several": "block:0+block:1"},
    "pixart": {
        **BLOCKS, "mod": "mod", "module": "module:transformer_blocks.2.attn2", "several": "block:0.attn+block:1",
    },
    "sd3": {
        **SINGLE, "ff": "block:3.ff", "block mod": "block:3.mod", "mod": "mod",
        "module": "module:transformer_blocks.1[1]", "several": "block:0+block:1+block:3.attn",
    },
    "flux": {
        **SINGLE, "ff": "block:1.ff block:3.ff", "block mod": "block:1.mod block:3.mod", "mod": "mod",
        "module": "module:x_embedder", "several": "block:0+block:3",
    },
    "flux2": {
        "block": "block:0 block:1 block:2", "attn": "block:1.attn block:3.attn", "ff": "block:1.ff", "mod": "mod",
        "module": "module:x_embedder", "several": "block:0+block:3",
    },
    "qwen": {
        **BLOCKS, "block mod": "block:1.mod", "mod": "mod", "module": "module:img_in", "several": "block:0+block:1",
    },
    "sana": {**BLOCKS, "mod": "mod", "module": "module:transformer_blocks.1.attn2", "several": "block:0+block:1"},
    "lumina2": {
        **BLOCKS, "block mod": "block:1.mod", "mod": "mod", "module": "module:x_embedder", "several": "block:0+block:1",
    },
    "zimage": {
        **BLOCKS, "block mod": "block:1.mod", "mod": "mod", "module": "module:noise_refiner.0",
        "several": "block:0+block:1",
    },
}  # fmt: skip
"""The taps of each kind at which each network is tried; a network does not have the other kinds."""
OF_TIME = ("mod", "block mod")
"""Kinds whose h does not depend on the image."""
CASES = [
    pytest.param(name, tap, kind, id=f"{name}-{tap}")
    for name, kinds in HELD.items()
    for kind, taps in kinds.items()
    for tap in taps.split()
]
TABLE = Path(__file__).parents[2] / "docs" / "models.md"


def test_the_table_of_the_docs_says_where_each_network_is_cut() -> None:
    assert set(HELD) == set(NETWORKS) and all(set(kinds) <= set(KINDS) for kinds in HELD.values())
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    start = lines.index("| network | " + " | ".join(f"`{kind}`" for kind in KINDS) + " |")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start + 2 : start + 2 + len(HELD)]]
    assert {row[0].strip("`"): row[1:] for row in rows} == {
        name: ["held" if kind in kinds else "" for kind in KINDS] for name, kinds in HELD.items()
    }


EXAMPLES = {"block": "block:0", "attn": "block:0.attn", "ff": "block:0.ff", "block mod": "block:0.mod"}
ABSENT = [(name, EXAMPLES.get(kind, kind)) for name, kinds in HELD.items() for kind in KINDS if kind not in kinds]


@pytest.mark.parametrize(("name", "tap"), ABSENT)
def test_a_kind_of_tap_that_a_network_does_not_have_is_refused(name: str, tap: str) -> None:
    network, _, image_tokens = NETWORKS[name]()
    with pytest.raises(InputError, match=f"tap {tap}|no modulation shared|has no mid block") as caught:
        find_taps(network, tap, image_tokens)
    assert "\n" not in str(caught.value)


def first(output: Any) -> Tensor:
    return torch.stack(output[0]) if isinstance(output[0], list) else output[0]


def adding(deltas: list[Tensor]) -> list[Callable[[Tensor], Tensor]]:
    return [lambda h, delta=delta: h + delta for delta in deltas]


@pytest.mark.parametrize(("name", "tap", "kind"), CASES)
def test_plain_and_edited_passes_are_bitwise_those_of_the_whole_network_with_hooks(
    name: str, tap: str, kind: str
) -> None:
    network, inputs, image_tokens = NETWORKS[name]()
    taps = find_taps(network, tap, image_tokens)
    cut, generator = Cut(network, taps), torch.Generator().manual_seed(1)
    whole = first(network(**inputs))
    record = cut.encode(**inputs)
    assert torch.equal(first(cut.decode(record, [lambda h: h] * len(taps))), whole)

    deltas = [torch.randn(h.shape, generator=generator) for h in record.h]
    edited = first(cut.decode(record, adding(deltas)))
    hooks = []
    for place, edit in zip(taps, adding(deltas), strict=True):
        hook = lambda _, __, output, place=place, edit=edit: place.write(output, edit(place.read(output)))  # noqa: E731
        hooks.append(network.get_submodule(place.path).register_forward_hook(hook))
    hooked = first(network(**inputs))
    for hook in hooks:
        hook.remove()
    assert torch.equal(edited, hooked)
    assert (edited - whole).abs().max() > 1e-3
    assert torch.equal(first(network(**inputs)), whole), "the network is left as it was"


@pytest.mark.parametrize("name", [name for name in NETWORKS if "block" in HELD[name] and name != "zimage"])
def test_text_tokens_are_left_alone(name: str) -> None:
    network, inputs, image_tokens = NETWORKS[name]()
    for block in ("block:1", "block:1.attn"):
        [h] = Cut(network, find_taps(network, block, image_tokens)).encode(**inputs).h
        assert h.shape[:2] == (2, image_tokens)


@pytest.mark.parametrize(("name", "tap", "kind"), CASES)
def test_nothing_before_the_tap_is_computed_twice(name: str, tap: str, kind: str) -> None:
    """Up to the tap and behind it a pass computes what the whole one does, and another edit only what is behind."""
    network, inputs, image_tokens = NETWORKS[name]()
    counts: Counter[str] = Counter()
    for path, module in network.named_modules():
        if not list(module.children()):
            module.forward = counting(module.forward, path, counts)
    network(**inputs)
    whole = counts.copy()
    taps = find_taps(network, tap, image_tokens)
    counts.clear()
    Cut(network, taps[:1]).encode(**inputs)
    before = counts.copy()
    cut = Cut(network, taps)
    record = cut.encode(**inputs)
    for edited in (lambda h: h, lambda h: 2 * h):
        counts.clear()
        cut.decode(record, [edited] * len(taps))
        assert counts + before == whole and before and counts


def counting(forward: Any, path: str, counts: Counter[str]) -> Any:
    def counted(*args: Any, **kwargs: Any) -> Any:
        counts[path] += 1
        return forward(*args, **kwargs)

    return counted


NOT_BY_ROWS = ("qwen", "lumina2", "zimage")


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in NOT_BY_ROWS])
def test_selected_rows_go_on_as_they_do_among_the_others(name: str) -> None:
    """Rotary embeddings have as many entries for one row as for two, and are left whole."""
    network, inputs, image_tokens = NETWORKS[name]()
    cut = Cut(network, find_taps(network, "block:1" if image_tokens else "after", image_tokens))
    per_row = entries_per_row(*(cut.encode(**rows_of(inputs, list(range(n)))) for n in (1, 2)))
    record = cut.encode(**inputs)
    together = first(cut.decode(record, [lambda h: h]))
    selected = first(cut.decode(record.select(torch.tensor([1, 0, 1]), per_row), [lambda h: h]))
    assert (selected - together[[1, 0, 1]]).abs().max() <= 1e-5


@pytest.mark.parametrize("name", NOT_BY_ROWS)
def test_rows_that_a_network_keeps_in_lists_are_refused_in_one_line(name: str) -> None:
    network, inputs, image_tokens = NETWORKS[name]()
    cut = Cut(network, find_taps(network, "block:1", image_tokens))
    with pytest.raises(InputError, match="state depends on the batch size, so that its rows cannot be selected"):
        entries_per_row(*(cut.encode(**rows_of(inputs, list(range(n)))) for n in (1, 2)))


def rows_of(inputs: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    """The inputs of some rows; what has two entries on its first axis is by row."""

    def taken(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: taken(each) for name, each in value.items()}
        if isinstance(value, list):
            return [value[row] for row in rows]
        return value[rows] if isinstance(value, Tensor) and len(value) == 2 else value

    return {name: taken(value) for name, value in inputs.items()}


def reads_numbers_in_derivatives() -> bool:
    """Whether torch lets a function that it derives read numbers of other tensors, which torch 2.6 does not."""
    try:
        torch.func.vjp(lambda x: x * sum(torch.ones(1).sum(0, keepdim=True).tolist()), torch.ones(1))
    except RuntimeError:
        return False
    return True


OFTEN = {"pixel-middle", "stable_diffusion-after", *(f"{name}-block:1" for name in HELD)}
"""Cases that the fast tests derive; all others are slow."""


@pytest.mark.parametrize(
    ("name", "tap", "kind"),
    [pytest.param(*case.values, id=case.id, marks=() if case.id in OFTEN else pytest.mark.slow) for case in CASES],
)
def test_derivatives_pass_through_both_halves_and_are_adjoint(name: str, tap: str, kind: str) -> None:
    if name == "lumina2" and not reads_numbers_in_derivatives():
        pytest.skip("Lumina2 reads the lengths of prompts, which this torch does not allow in what it derives")
    network, inputs, image_tokens = NETWORKS[name]()
    network.double()
    inputs = tree_map_only(Tensor, lambda value: value.double() if value.is_floating_point() else value, inputs)
    cut, generator = Cut(network, find_taps(network, tap, image_tokens)), torch.Generator().manual_seed(2)
    record = cut.encode(**inputs)
    given = next(name for name in ("hidden_states", "sample", "x") if name in inputs)
    image = inputs[given] if isinstance(inputs[given], Tensor) else torch.stack(inputs[given])

    def to_h(x: Tensor) -> Tensor:
        h = cut.encode(**(inputs | {given: x if isinstance(inputs[given], Tensor) else list(x)})).h
        return torch.cat([each.flatten() for each in h])

    def to_output(h: Tensor) -> Tensor:
        return first(cut.decode(record, [lambda _: h, *[lambda later: 2 * later] * (len(record.h) - 1)]))

    check_adjoint(network, to_h, image, generator, constant=kind in OF_TIME)
    check_adjoint(network, to_output, record.h[0], generator)


def check_adjoint(
    network: nn.Module, function: Any, at: Tensor, generator: torch.Generator, constant: bool = False
) -> None:
    def product_with(v: Tensor) -> Tensor:
        return torch.func.jvp(function, (at,), (v,))[1]

    v = torch.randn(at.shape, generator=generator, dtype=at.dtype)
    with forward_derivatives(network):
        product, many = product_with(v), torch.vmap(product_with)(torch.stack([v, 2 * v]))
    u = torch.randn(product.shape, generator=generator, dtype=at.dtype)
    (back,) = torch.func.vjp(function, at)[1](u)
    assert (product.norm() == 0) == constant
    assert abs((product * u).sum() - (v * back).sum()) <= 1e-6 * (product.norm() * u.norm())
    assert (many[1] - 2 * product).abs().max() <= 1e-9 * product.abs().max()


def test_hooks_of_others_act_once() -> None:
    network, inputs, _ = NETWORKS["dit"]()
    for name in ("pos_embed", "transformer_blocks.0", "transformer_blocks.1", "norm_out"):
        network.get_submodule(name).register_forward_hook(lambda _, __, output: 1.5 * output + 1)
    cut, calls = Cut(network, [Tap("transformer_blocks.1")]), []
    network.pos_embed.register_forward_hook(lambda *_: calls.append("before the tap"))
    network.norm_out.register_forward_hook(lambda *_: calls.append("after the tap"))
    record = cut.encode(**inputs)
    decoded = first(cut.decode(record, [lambda h: h]))
    assert calls == ["before the tap", "after the tap"]
    assert torch.equal(decoded, first(network(**inputs)))


def test_a_failed_edit_leaves_the_network_as_it_was() -> None:
    network, inputs, _ = NETWORKS["dit"]()
    cut = Cut(network, [Tap("transformer_blocks.1")])
    record, whole = cut.encode(**inputs), first(network(**inputs))

    def fail(h: Tensor) -> Tensor:
        raise RuntimeError("no such edit")

    with pytest.raises(RuntimeError, match="no such edit"):
        cut.decode(record, [fail])
    assert torch.equal(first(network(**inputs)), whole)
    assert all(module._compiled_call_impl is None for module in network.modules())


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        ("block:9", "tap block:9 is not there; it has block:0 to block:3"),
        ("deep", "tap must be one of before, middle, after, .* got deep"),
        ("after", "tap after: DiTTransformer2DModel has no mid block; it has block:0 to block:3"),
        ("mod", "no modulation shared by all blocks; tap block:0.mod"),
        ("module:nowhere", "has no module 'nowhere'"),
    ],
)
def test_places_that_are_not_there(tap: str, message: str) -> None:
    network, _, _ = NETWORKS["dit"]()
    with pytest.raises(InputError, match=message):
        Cut(network, find_taps(network, tap, 16))


def test_an_output_with_parts_and_taps_out_of_order() -> None:
    network, inputs, tokens = NETWORKS["sd3"]()
    with pytest.raises(InputError, match=r"gives 2 parts; tap one tensor, as module:transformer_blocks.1\[0\]"):
        Cut(network, find_taps(network, "module:transformer_blocks.1")).encode(**inputs)
    with pytest.raises(InputError, match="does not call its modules in this order"):
        Cut(network, find_taps(network, "block:1+block:0", tokens)).encode(**inputs)
    with pytest.raises(InputError, match=r"transformer_blocks.1 gives 2 parts, so that there is no part \[7\]"):
        Cut(network, find_taps(network, "module:transformer_blocks.1[7]")).encode(**inputs)
    with pytest.raises(InputError, match=r"tap block:1\+block:1 names one place twice"):
        find_taps(network, "block:1+block:1", tokens)
    flux, _, _ = NETWORKS["flux2"]()
    with pytest.raises(InputError, match="number of image tokens must be given"):
        find_taps(flux, "block:3")


@pytest.mark.parametrize("tap", ["block:1", "block:1.attn", "module:x_embedder+block:1.ff"])
def test_lumina_with_prompts_of_unequal_length_has_the_image_on_other_tokens(tap: str) -> None:
    network, inputs, tokens = NETWORKS["lumina2"]()
    cut, mask = Cut(network, find_taps(network, tap, tokens)), inputs["encoder_attention_mask"].clone()
    mask[:, 3:] = False
    cut.encode(**inputs | {"encoder_attention_mask": mask})
    mask[0, 2:] = False
    with pytest.raises(InputError, match="has the image on other tokens in every row: give prompts of equal length"):
        cut.encode(**inputs | {"encoder_attention_mask": mask})
    Cut(network, find_taps(network, "block:1.mod", tokens)).encode(**inputs | {"encoder_attention_mask": mask})


def test_an_example_of_a_part_is_there() -> None:
    network, inputs, _ = NETWORKS["pixel"]()
    [h] = Cut(network, find_taps(network, "module:down_blocks.0[0]")).encode(**inputs).h
    assert h.shape == (2, 8, 8, 8)


def test_names() -> None:
    assert all(map(is_tap, ("after", "block:11.attn", "block:0+block:1", "module:a.b[1]", "mod")))
    assert not any(map(is_tap, ("", "block", "block:x", "after+", "module:", "block:1.norm", 3)))
