"""The embedded scorers, on renders that no training saw."""

import pytest
import torch

from hspace.scorers import factory
from hspace.scorers.embedded import WorldFeatures, WorldScorer, load_annotator, load_encoder, load_judge, load_regions
from hspace.types import Embedder, InputError, RegionNetwork, Scorer
from hspace.worlds.portraits.faces import (
    JUDGED,
    PORTRAITS,
    REGIONS,
    region_masks,
    render,
    resample_looks,
    resample_scene,
    sample_factors,
    visibility,
)

N = 512
LOADERS = {"portraits-annotator": load_annotator, "portraits-judge": load_judge}
BINARY = [attribute.kind == "binary" for attribute in JUDGED]


def load_scorer(name: str) -> WorldScorer:
    return LOADERS[name]("portraits")


@pytest.fixture(scope="module")
def people() -> dict[str, torch.Tensor]:
    return sample_factors(torch.Generator().manual_seed(777), N)


@pytest.fixture(scope="module")
def images(people: dict[str, torch.Tensor]) -> torch.Tensor:
    return render(people, 64)


@pytest.mark.parametrize("name", LOADERS)
def test_scores_agree_with_the_exact_labels(name: str, people: dict[str, torch.Tensor], images: torch.Tensor) -> None:
    scorer = load_scorer(name)
    assert isinstance(scorer, Scorer) and scorer.id == name
    assert scorer.attributes == tuple(attribute.id for attribute in JUDGED) and list(scorer.binary) == BINARY
    scores, true, seen = scorer(images), PORTRAITS.labels(people), visibility(people)
    for j, attribute in enumerate(JUDGED):
        predicted, exact = scores[seen[:, j], j], true[seen[:, j], j]
        if attribute.kind == "binary":
            assert predicted.min() >= 0 and predicted.max() <= 1
            assert ((predicted > 0.5) == (exact > 0.5)).float().mean() >= 0.97, attribute.id
        else:
            assert 1 - (predicted - exact).square().mean() / exact.var() >= 0.95, attribute.id


@pytest.mark.parametrize("name", LOADERS)
def test_a_score_does_not_depend_on_the_batch_even_in_training_mode(name: str, images: torch.Tensor) -> None:
    scorer = load_scorer(name).train()
    assert (scorer(images[:8])[3] - scorer(images[3:4])[0]).abs().max() < 1e-5


def test_annotator_and_judge_are_unlike(images: torch.Tensor) -> None:
    annotator, judge = (load_scorer(name) for name in LOADERS)
    assert type(annotator.network) is not type(judge.network)
    assert not torch.equal(annotator(images[:4]), judge(images[:4]))


def test_visibility_follows_the_scores(people: dict[str, torch.Tensor], images: torch.Tensor) -> None:
    judge = load_scorer("portraits-judge")
    agreement = (judge.visible(judge(images)) == visibility(people)).float().mean()
    assert agreement > 0.98


def test_identity_tells_people_apart_across_scenes(people: dict[str, torch.Tensor], images: torch.Tensor) -> None:
    identity = load_encoder("portraits", "identity")
    assert isinstance(identity, Embedder)
    first, second = identity(images), identity(render(resample_scene(people, torch.Generator().manual_seed(1)), 64))
    assert first.shape == (N, identity.dim) and (first.norm(dim=1) - 1).abs().max() < 1e-5
    cosine = first @ second.T
    others = cosine[~torch.eye(N, dtype=torch.bool)]
    threshold = others.sort().values[int(0.99 * len(others))]
    assert (cosine.diagonal() > threshold).float().mean() >= 0.95


def test_likeness_tells_features_apart_whatever_else_changes(people: dict[str, torch.Tensor]) -> None:
    likeness = load_encoder("portraits", "likeness")
    views = [likeness(render(resample_looks(people, torch.Generator().manual_seed(seed)), 64)) for seed in (1, 2)]
    cosine = views[0] @ views[1].T
    others = cosine[~torch.eye(N, dtype=torch.bool)]
    threshold = others.sort().values[int(0.99 * len(others))]
    assert (cosine.diagonal() > threshold).float().mean() >= 0.5
    with pytest.raises(InputError, match="portraits-likeness"):
        factory.load_identity("portraits-likness")


def test_features_are_the_hidden_layer_of_the_judge(images: torch.Tensor) -> None:
    judge = load_scorer("portraits-judge")
    features = WorldFeatures(judge)
    assert isinstance(features, Embedder)
    hidden = features(images[:4])
    assert hidden.shape == (4, features.dim)
    assert torch.equal(judge.network.head(hidden), judge.network(images[:4]))


def test_an_unknown_scorer_is_one_clear_line() -> None:
    with pytest.raises(InputError, match="did you mean 'portraits-judge'"):
        factory.load_scorer("portraits-jugde")


def test_regions_of_renders_are_found(people: dict[str, torch.Tensor], images: torch.Tensor) -> None:
    network = load_regions("portraits")
    assert isinstance(network, RegionNetwork)
    few = {name: values[:128] for name, values in people.items()}
    found, exact = network(images[:128]), region_masks(few, 64)
    assert tuple(found) == REGIONS
    for region in REGIONS:
        overlap, union = (found[region] & exact[region]).sum(), (found[region] | exact[region]).sum()
        assert overlap / union >= 0.8, region
    assert network(images[:1].repeat_interleave(2, 2).repeat_interleave(2, 3))["mouth"].shape == (1, 128, 128)
