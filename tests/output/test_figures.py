from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from hspace.metrics.effect import EffectMatrix
from hspace.output.charts import curve_figure, curve_grid, effect_heatmap, map_figure
from hspace.output.drawing import vector_copies
from hspace.output.figures import LABEL_WIDTH, TILE, _wrapped, grid_figure, strip_figure
from hspace.types import InputError

X = [-2.0, 0.0, 2.0]
CURVE = (X, [-1.0, 0.0, 1.0], [-1.5, -0.2, 0.5], [-0.5, 0.2, 1.5])


def _images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _matrix(scale: float = 1.0) -> EffectMatrix:
    effect = np.array([[0.5, -0.25, np.nan], [1.0, 0.05, -0.001]]) * scale
    return EffectMatrix(("yaw", "smile", "hat"), ("component 0", "component 1: yaw"), **_around(effect))


def _around(effect: np.ndarray) -> dict[str, np.ndarray]:
    """Effects that are known to .1."""
    rows, columns = effect.shape
    numbers = {
        "p": np.ones_like(effect),
        "n": np.full(effect.shape, 30),
        "covariance": np.zeros((rows, columns, columns)),
    }
    return {"effect": effect, "low": effect - 0.1, "high": effect + 0.1, **numbers}


FIGURES: dict[str, Callable[[Path], Path]] = {
    "strip": lambda path: strip_figure(_images(2, 3, 3, 8, 8), ["a: yaw\n+1 sd", "b"], X, "Title", path),
    "people": lambda path: strip_figure(_images(2, 3, 3, 3, 8, 8), ["a", "b"], ("-", 0, "+"), "Title", path, 64),
    "grid": lambda path: grid_figure(_images(5, 3, 8, 8), 3, path, titles=list("abcde")),
    "heatmap": lambda path: effect_heatmap(_matrix(), path),
    "maps": lambda path: map_figure(
        _images(5, 2, 4).abs(), list("abcde"), path, unit="share", outline=torch.eye(8).bool()
    ),
    "curve": lambda path: curve_figure({"yaw": CURVE, "hat": CURVE}, path, x_label="strength", y_label="effect"),
    "curves": lambda path: curve_grid(
        {"effect": {"early": {"yaw": CURVE}, "late": {"hat": CURVE}}, "identity": {"late": {"yaw": CURVE}}},
        path,
        x_label="block",
    ),
}


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.int64)


@pytest.mark.parametrize("name", FIGURES)
def test_same_drawing_same_bytes_and_nothing_else_on_disk(name: str, tmp_path: Path) -> None:
    first = FIGURES[name](tmp_path / "new" / "first.png")
    with matplotlib.rc_context({"font.size": 30, "figure.dpi": 31, "savefig.bbox": "standard"}):
        second = FIGURES[name](tmp_path / "second.png")
    kinds = [".pdf", ".png", ".svg"] if name in ("heatmap", "maps", "curve", "curves") else [".png"]
    assert sorted(file.name for file in first.parent.iterdir()) == [f"first{kind}" for kind in kinds]
    for kind in kinds:
        assert first.with_suffix(kind).read_bytes() == second.with_suffix(kind).read_bytes(), kind
    assert b"matplotlib" not in first.read_bytes().lower()
    assert vector_copies(first) == [first.with_suffix(kind) for kind in kinds if kind != ".png"]


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_touches_the_edge_of_the_page(name: str, tmp_path: Path) -> None:
    pixels = _read(FIGURES[name](tmp_path / "figure.png"))
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge == 255).all()


@pytest.mark.parametrize(("tile", "factor"), [(TILE, -(-TILE // 32)), (70, 3)])
def test_images_are_enlarged_by_a_whole_factor_and_in_place(tile: int, factor: int, tmp_path: Path) -> None:
    # Images of one colour survive any filter: each tile is a block of it.
    colors = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1]])[:, :, None, None].expand(-1, -1, 32, 32)
    pixels = _read(grid_figure(colors, 2, tmp_path / "grid.png", tile=tile))
    centres = []
    for color in np.eye(3, dtype=np.int64) * 255:
        rows, columns = np.nonzero((pixels == color).all(axis=-1))
        assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == factor * 32
        centres.append((rows.mean(), columns.mean()))
    assert centres[0][0] == centres[1][0] < centres[2][0]
    assert centres[0][1] == centres[2][1] < centres[1][1]


def test_large_and_grey_images_are_drawn_as_they_are(tmp_path: Path) -> None:
    image = _images(1, 1, 256, 256)
    pixels = _read(grid_figure(image, 1, tmp_path / "grid.png"))
    expected = ((image[0, 0] + 1) * 127.5).round().numpy()[..., None].repeat(3, axis=-1)
    margin = (pixels.shape[0] - 256) // 2
    assert np.abs(pixels[margin : margin + 256, margin : margin + 256] - expected).max() == 0


def test_unedited_column_is_marked(tmp_path: Path) -> None:
    white = torch.ones(1, 3, 3, 8, 8)
    marked = _read(strip_figure(white, ["a"], X, "", tmp_path / "marked.png"))
    plain = _read(strip_figure(white, ["a"], [-2.0, 1.0, 2.0], "", tmp_path / "plain.png"))
    # The edges of letters have a few pixels of the band's colour.
    marked_pixels, plain_pixels = ((pixels == 0xEC).all(axis=-1) for pixels in (marked, plain))
    assert marked_pixels.sum() > 5000 and plain_pixels.sum() < 100
    band = np.nonzero(marked_pixels.sum(axis=0) > 50)[0]
    assert TILE < np.ptp(band) < 1.2 * TILE and abs(band.mean() - marked.shape[1] / 2) < 100


def test_a_label_is_one_line_where_it_fits() -> None:
    assert _wrapped("component 3: hair_length (+ gender)") == "component 3: hair_length (+ gender)"
    lines = _wrapped("a: yaw\n" + 8 * "several words ").split("\n")
    assert lines[0] == "a: yaw" and len(lines) > 3 and max(map(len, lines)) <= LABEL_WIDTH


def test_samples_side_by_side_stand_apart(tmp_path: Path) -> None:
    alone = _read(strip_figure(torch.ones(1, 3, 3, 8, 8), ["a"], X, "", tmp_path / "alone.png"))
    three = _read(strip_figure(-torch.ones(1, 3, 3, 3, 8, 8), ["a"], X, "", tmp_path / "three.png"))
    assert three.shape[0] == alone.shape[0] and three.shape[1] > alone.shape[1] + 6 * TILE
    black = (three == 0).all(axis=-1)
    row = black[three.shape[0] * 3 // 4]
    starts = np.nonzero(row & ~np.roll(row, 1))[0]
    gaps = np.diff(starts) - TILE
    assert len(starts) == 9 and gaps[[2, 5]].min() > 2 * gaps[[0, 1, 3, 4, 6, 7]].max()


def test_colours_are_centred_at_zero(tmp_path: Path) -> None:
    for sign, strong, weak in ((1, 0, 2), (-1, 2, 0)):
        effect = np.full((1, 1), 2.0 * sign)
        matrix = EffectMatrix(("yaw",), ("a",), **_around(effect))
        pixels = _read(effect_heatmap(matrix, tmp_path / "heat.png"))
        # The cell is the largest area that is not white: red above zero, blue below.
        colored = pixels[(pixels.min(axis=-1) < 150) & (np.ptp(pixels, axis=-1) > 60)]
        assert np.median(colored[:, strong]) > np.median(colored[:, weak]) + 50


def test_bad_input_is_named(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    with pytest.raises(InputError, match=r"2 rows of 3, got \(1, 3\)"):
        strip_figure(_images(1, 3, 3, 8, 8), ["a", "b"], X, "", path)
    with pytest.raises(InputError, match="1 or 3 channels"):
        grid_figure(_images(1, 2, 8, 8), 1, path)
    with pytest.raises(InputError, match="finite"):
        grid_figure(_images(1, 3, 8, 8) * torch.nan, 1, path)
    with pytest.raises(InputError, match="titles must be 2"):
        grid_figure(_images(2, 3, 8, 8), 1, path, titles=["a"])
    with pytest.raises(InputError, match="columns must be at least 1"):
        grid_figure(_images(2, 3, 8, 8), 0, path)
    with pytest.raises(InputError, match="curve 'yaw' must be"):
        curve_figure({"yaw": CURVE[:3]}, path, x_label="", y_label="")
    with pytest.raises(InputError, match="at least one curve"):
        curve_figure({}, path, x_label="", y_label="")
    with pytest.raises(InputError, match="at least one panel"):
        curve_grid({"effect": {}}, path, x_label="")
    assert not path.exists()


@pytest.mark.parametrize("name", ["$x_{1", "costs $5 and $6", "$\\frac{", "\\$", "笑う 😀"])
def test_a_dollar_sign_in_a_name_begins_no_formula(name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    matrix = EffectMatrix((name,), (name,), **_around(np.ones((1, 1))))
    paths = [
        strip_figure(torch.zeros(1, 1, 3, 4, 4), [f"{name}\n{name}"], [1.0], name, tmp_path / "strip.png"),
        grid_figure(torch.zeros(1, 3, 4, 4), 1, tmp_path / "grid.png", titles=[name]),
        effect_heatmap(matrix, tmp_path / "heatmap.png"),
        curve_figure({name: [[1.0]] * 4}, tmp_path / "curve.png", x_label=name, y_label=name, title=name, log_x=True),
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


@pytest.mark.parametrize("name", ["x.pdf", "x", "x.jpg"])
def test_only_png_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.png, got .*x"):
        grid_figure(torch.zeros(1, 3, 4, 4), 1, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_regions_border_lies_around_its_pixels(tmp_path: Path) -> None:
    """The top half of a map that is dark everywhere: the white line runs across its middle."""
    region = torch.zeros(8, 8, dtype=torch.bool)
    region[:4] = True
    maps = np.zeros((1, 4, 4))
    maps[0, 3, 3] = 1.0
    plain, outlined = (
        _read(map_figure(maps, ["a"], tmp_path / "map.png", unit="share", outline=each)) for each in (None, region)
    )
    rows, columns = np.nonzero((plain != outlined).any(-1))
    dark = np.argwhere((plain == (68, 1, 84)).all(-1))
    top, left, bottom, right = *dark.min(0), *dark.max(0)
    across = rows[(columns > left + (right - left) // 4) & (columns < right - (right - left) // 2)]
    inside = across[(across > top + 8) & (across < bottom - 8)]
    assert len(inside) and abs(inside.mean() - (top + bottom) / 2) < 4
