from pathlib import Path

import pytest
import torch

from hspace.scorers.clip import PROMPTS, load_clip
from hspace.types import InputError, Scorer

IMAGES = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_scores_are_those_of_the_model_itself(tiny_clip_dir: Path) -> None:
    transformers = pytest.importorskip("transformers")
    scorer = load_clip(str(tiny_clip_dir))
    assert isinstance(scorer, Scorer) and scorer.id == "clip:clip" and scorer.attributes == tuple(PROMPTS)
    model = transformers.CLIPModel.from_pretrained(tiny_clip_dir).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_clip_dir)
    scores = scorer(IMAGES)
    for column, pair in enumerate(PROMPTS.values()):
        tokens = tokenizer(list(pair), padding=True, return_tensors="pt")
        with torch.no_grad():
            logits = model(**tokens, pixel_values=scorer.pixels(IMAGES)).logits_per_image
        assert (scores[:, column] - logits.softmax(dim=1)[:, 0]).abs().max() < 1e-5
    assert scores.std(dim=0).min() > 0 and scorer.visible(scores).all()


def test_a_score_does_not_depend_on_the_images_beside_it(tiny_clip_dir: Path) -> None:
    scorer = load_clip(str(tiny_clip_dir))
    assert (scorer(IMAGES)[:1] - scorer(IMAGES[:1])).abs().max() < 1e-5


def test_a_model_without_a_tokenizer_is_refused(tiny_clip_dir: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((tiny_clip_dir / name).read_bytes())
    with pytest.raises(InputError, match=r"the tokenizer of .* does not tell the prompts apart") as caught:
        load_clip(str(tmp_path))
    assert "\n" not in str(caught.value)
