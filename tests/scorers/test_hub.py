from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hspace.directions.masks import make_mask
from hspace.scorers.hub import load_classifier, load_features, load_parser
from hspace.types import Embedder, InputError, LogitScorer, RegionNetwork, Scorer

IMAGES = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_several_questions_are_sigmoids_with_the_ids_of_celeba(make_classifier: Callable[..., Path]) -> None:
    folder = make_classifier(["Smiling", "Young", "Pointy_Nose", "Wearing_Hat"], "multi_label_classification")
    scorer = load_classifier(str(folder))
    assert isinstance(scorer, Scorer) and scorer.id == "hub:classifier"
    assert scorer.attributes == ("smile", "age", "Pointy_Nose", "hat") and scorer.binary == (True,) * 4
    with torch.no_grad():
        expected = scorer.network(scorer.pixels(IMAGES)).logits.sigmoid()
    expected[:, 1] = 1 - expected[:, 1]  # age is the opposite of young
    assert (scorer(IMAGES) - expected).abs().max() < 1e-6
    assert scorer.visible(expected).all()


def test_one_question_shares_a_softmax_and_labels_become_words(make_classifier: Callable[..., Path]) -> None:
    scorer = load_classifier(str(make_classifier(["20-29 years", "happy, very", "sad"])))
    assert scorer.attributes == ("20-29_years", "happy_very", "sad")
    with torch.no_grad():
        expected = scorer.network(scorer.pixels(IMAGES)).logits.softmax(dim=1)
    assert (scorer(IMAGES) - expected).abs().max() < 1e-6 and isinstance(scorer, LogitScorer)
    assert (scorer.logits(IMAGES) - expected.logit()).abs().max() < 1e-5


def test_a_regression_is_a_value(make_classifier: Callable[..., Path]) -> None:
    scorer = load_classifier(str(make_classifier(["years"], "regression")))
    assert scorer.binary == (False,)
    with torch.no_grad():
        assert torch.equal(scorer(IMAGES), scorer.network(scorer.pixels(IMAGES)).logits)


def test_labels_must_differ(make_classifier: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="must have different labels, got a_b, a_b"):
        load_classifier(str(make_classifier(["a b", "a,b"])))


def test_a_backbone_is_an_identity_encoder(tiny_backbone_dir: Path) -> None:
    encoder = load_features(str(tiny_backbone_dir))
    assert isinstance(encoder, Embedder) and (encoder.id, encoder.dim) == ("hub:dino", 16)
    features = encoder(IMAGES)
    assert features.shape == (3, 16) and (features.norm(dim=1) - 1).abs().max() < 1e-5
    with torch.no_grad():
        pooled = encoder.network(encoder.pixels(IMAGES)).pooler_output
    assert (torch.nn.functional.cosine_similarity(features, pooled) - 1).abs().max() < 1e-5
    assert encoder.pixels(IMAGES).shape == (3, 3, 28, 28)


def test_a_backbone_without_one_hidden_size_is_refused(tiny_parser_dir: Path) -> None:
    with pytest.raises(InputError, match="one hidden size, got SegformerModel"):
        load_features(str(tiny_parser_dir))


def test_a_parser_finds_regions_that_make_a_mask(tiny_parser_dir: Path) -> None:
    parser = load_parser(str(tiny_parser_dir))
    assert isinstance(parser, RegionNetwork)
    assert parser.regions == ("background", "skin", "u_lip", "l_lip", "l_eye", "mouth", "eyes")
    found = parser(IMAGES)
    single = torch.stack([found[name] for name in parser.regions[:5]])
    assert torch.equal(single.sum(dim=0), torch.ones(3, 40, 40, dtype=torch.long))
    assert torch.equal(found["mouth"], found["u_lip"] | found["l_lip"]) and torch.equal(found["eyes"], found["l_eye"])
    mask = make_mask("mouth", (20, 20), image=IMAGES[:1], network=parser)
    assert mask.any() and not mask.all()
