"""A cut network gives the bits of the whole one, plain and edited, at every kind of tap, and computes nothing twice."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import NETWORKS, Network
from pipelines import PIPELINES
from torch import Tensor, nn

from hspace.diffusion.cut import Cut, Tap, entries_per_row, forward_derivatives
from hspace.diffusion.taps import find_taps, is_tap
from hspace.types import InputError

EVERY = ["block:0", "block:1", "block:1.attn", "block:0+block:1"]
MORE = {
    "dit": ["block:3.ff", "block:1.mod", "module:pos_embed"],
    "pixart": ["block:3.ff", "mod", "module:transformer_blocks.2.attn2"],
    "sd3": ["block:3", "block:3.attn", "block:3.ff", "block:3.mod", "mod", "block:0+block:1+block:3.attn"],
    "flux": [
        "block:1.ff",
        "block:1.mod",
        "block:3",
        "block:3.attn",
        "block:3.ff",
        "block:3.mod",
        "mod",
        "block:0+block:3",
    ],
    "flux2": ["block:1.ff", "block:2", "block:3.attn", "mod"],
    "qwen": ["block:1.ff", "block:1.mod", "mod"],
    "sana": ["block:1.ff", "mod"],
    "lumina2": ["block:1.ff", "block:1.mod", "mod"],
    "zimage": ["block:1.ff", "block:1.mod", "mod"],
}
CASES = [(name, tap) for name in NETWORKS for tap in EVERY + MORE[name]]


def first(output: Any) -> Tensor:
    return torch.stack(output[0]) if isinstance(output[0], list) else output[0]


def adding(deltas: list[Tensor]) -> list[Callable[[Tensor], Tensor]]:
    return [lambda h, delta=delta: h + delta for delta in deltas]


@pytest.mark.parametrize(("name", "tap"), CASES)
def test_plain_and_edited_passes_are_bitwise_those_of_the_whole_network_with_hooks(name: str, tap: str) -> None:
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


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "zimage"])
def test_text_tokens_are_left_alone(name: str) -> None:
    network, inputs, image_tokens = NETWORKS[name]()
    for block in ("block:1", "block:1.attn"):
        [h] = Cut(network, find_taps(network, block, image_tokens)).encode(**inputs).h
        assert h.shape[:2] == (2, image_tokens)


def of_classes() -> Network:
    """A U-Net of ADM's kind."""
    inputs = {"sample": torch.randn(2, 3, 16, 16), "timestep": torch.tensor([500, 500])}
    network = PIPELINES["classes"]().unet.requires_grad_(False)
    return network, {**inputs, "class_labels": torch.tensor([1, 3]), "return_dict": False}, 0


COUNTED = {**NETWORKS, "classes": of_classes}
PLACES = [(name, tap) for name in NETWORKS for tap in ("block:1", "block:1.attn")]
PLACES += [("classes", tap) for tap in ("before", "middle", "after")]


@pytest.mark.parametrize(("name", "tap"), PLACES)
def test_nothing_is_computed_twice(name: str, tap: str) -> None:
    """Both halves together compute what the whole network does, and another edit only what is behind the tap."""
    network, inputs, image_tokens = COUNTED[name]()
    counts: Counter[str] = Counter()
    for path, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.LayerNorm | nn.GroupNorm | nn.Embedding | nn.Conv2d):
            module.forward = counting(module.forward, path, counts)
    network(**inputs)
    whole = counts.copy()
    counts.clear()
    cut = Cut(network, find_taps(network, tap, image_tokens))
    record = cut.encode(**inputs)
    before = counts.copy()
    for edited in (lambda h: h, lambda h: 2 * h):
        counts.clear()
        cut.decode(record, [edited])
        assert counts + before == whole and before and counts


def counting(forward: Any, path: str, counts: Counter[str]) -> Any:
    def counted(*args: Any, **kwargs: Any) -> Any:
        counts[path] += 1
        return forward(*args, **kwargs)

    return counted


@pytest.mark.parametrize("name", ["dit", "pixart", "sd3", "flux", "flux2", "sana"])
def test_selected_rows_go_on_as_they_do_among_the_others(name: str) -> None:
    """Rotary embeddings have as many entries for one row as for two, and are left whole."""
    network, inputs, image_tokens = NETWORKS[name]()
    cut = Cut(network, find_taps(network, "block:1", image_tokens))
    per_row = entries_per_row(*(cut.encode(**rows_of(inputs, list(range(n)))) for n in (1, 2)))
    record = cut.encode(**inputs)
    together = first(cut.decode(record, [lambda h: h]))
    selected = first(cut.decode(record.select(torch.tensor([1, 0, 1]), per_row), [lambda h: h]))
    assert (selected - together[[1, 0, 1]]).abs().max() <= 1e-5


def rows_of(inputs: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    unbatched = ("txt_ids", "img_ids")
    batched = lambda name, value: isinstance(value, Tensor) and (name not in unbatched or value.ndim == 3)  # noqa: E731
    return {name: value[rows] if batched(name, value) else value for name, value in inputs.items()}


@pytest.mark.parametrize("name", ["dit", "pixart", "sd3", "flux", "flux2", "sana"])
def test_derivatives_pass_through_both_halves_and_are_adjoint(name: str) -> None:
    network, inputs, image_tokens = NETWORKS[name]()
    network.double()
    inputs = {k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in inputs.items()}
    cut, generator = Cut(network, find_taps(network, "block:1", image_tokens)), torch.Generator().manual_seed(2)

    def to_h(x: Tensor) -> Tensor:
        return cut.encode(**(inputs | {"hidden_states": x})).h[0]

    record = cut.encode(**inputs)

    def to_output(h: Tensor) -> Tensor:
        return first(cut.decode(record, [lambda _: h]))

    check_adjoint(network, to_h, inputs["hidden_states"], generator)
    check_adjoint(network, to_output, record.h[0], generator)


def check_adjoint(network: nn.Module, function: Any, at: Tensor, generator: torch.Generator) -> None:
    def product_with(v: Tensor) -> Tensor:
        return torch.func.jvp(function, (at,), (v,))[1]

    v = torch.randn(at.shape, generator=generator, dtype=at.dtype)
    with forward_derivatives(network):
        product, many = product_with(v), torch.vmap(product_with)(torch.stack([v, 2 * v]))
    u = torch.randn(product.shape, generator=generator, dtype=at.dtype)
    (back,) = torch.func.vjp(function, at)[1](u)
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
    flux, _, _ = NETWORKS["flux2"]()
    with pytest.raises(InputError, match="number of image tokens must be given"):
        find_taps(flux, "block:3")


def test_names() -> None:
    assert all(map(is_tap, ("after", "block:11.attn", "block:0+block:1", "module:a.b[1]", "mod")))
    assert not any(map(is_tap, ("", "block", "block:x", "after+", "module:", "block:1.norm", 3)))


def test_networks_are_what_the_table_says() -> None:
    assert set(MORE) == set(NETWORKS) and all(isinstance(make(), tuple) for make in NETWORKS.values()), Network
