"""What the tables of analysis by synthesis say, on readings whose errors are known."""

from pathlib import Path

import pytest
import synthesis
import torch

from hspace.worlds.portraits.faces import JUDGED, PORTRAITS, sample_factors
from hspace.worlds.portraits.synthesis import Fit

N = 400


def test_figures_are_those_of_readings_made_with_known_errors() -> None:
    true = PORTRAITS.labels(sample_factors(torch.Generator().manual_seed(0), N))
    noise = torch.randn(3, N, len(JUDGED), generator=torch.Generator().manual_seed(1))
    common, first, second = noise * true.std(0)
    seen = torch.ones_like(true, dtype=torch.bool)
    seen[: N // 2, 0] = False
    ours, theirs = true + common + first, true + common + second
    shares = synthesis.shared(ours, theirs, true, seen)
    assert all(share == pytest.approx(0.5, abs=0.15) for share in shares)
    binary = [attribute.kind == "binary" for attribute in JUDGED]
    for figure, is_binary in zip(synthesis.recovered(true + 0.5 * common, true, seen), binary, strict=True):
        assert is_binary or figure == pytest.approx(0.75, abs=0.1)
    assert synthesis.recovered(true, true, seen) == [1.0] * len(JUDGED)
    wrong = true.clone()
    wrong[: N // 2, 0] = 1 - true[: N // 2, 0]  # where it is hidden
    assert synthesis.recovered(wrong, true, seen)[0] == 1.0 == synthesis.alike(wrong, true, seen)[0]
    for figure, is_binary in zip(synthesis.alike(true + common, true, seen), binary, strict=True):
        assert is_binary or figure == pytest.approx(0.5**0.5, abs=0.1)


def test_the_best_fit_of_each_image_is_the_synthesis() -> None:
    factors = [sample_factors(torch.Generator().manual_seed(seed), 2) for seed in (0, 1)]
    fits = [Fit(factors[0], torch.tensor([0.1, 0.3])), Fit(factors[1], torch.tensor([0.2, 0.2]))]
    readings, errors = synthesis.together({}, dict(zip(synthesis.STARTS, fits, strict=True)))
    expected = torch.stack([PORTRAITS.labels(factors[0])[0], PORTRAITS.labels(factors[1])[1]])
    assert torch.equal(readings["synthesis"], expected)
    assert torch.equal(errors, torch.tensor([0.1, 0.2]))


def test_an_effect_is_the_mean_change_of_the_edits_own_attribute() -> None:
    before = {name: torch.zeros(4, len(JUDGED)) for name in (*synthesis.THREE, *synthesis.STARTS)}
    after = {name: torch.arange(len(JUDGED)).float().expand(4, -1) for name in before}
    table = synthesis.effect_table(before, {"hat": after, "yaw": after})
    ids = [attribute.id for attribute in JUDGED]
    assert table.rows == tuple((name, *[float(ids.index(name))] * 3) for name in ("hat", "yaw"))


@pytest.mark.slow
def test_the_script_writes_its_tables_and_every_reading(tmp_path: Path) -> None:
    assert synthesis.main(["--renders", "2", "--samples", "2", "--output", str(tmp_path)]) == 0
    text = (tmp_path / "synthesis.md").read_text()
    assert all(f"| {attribute.id} |" in text for attribute in JUDGED) and "2 fresh renders" in text
    assert "8 edited samples" in text
    rows = (tmp_path / "readings.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * (5 + 5 + 4 * 4), "a row for each image and reading"
