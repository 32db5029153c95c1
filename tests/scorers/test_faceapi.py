"""Face-api's networks against the original's numbers (scripts/making/face_networks.py), and the scorers on them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from face_networks import pictures, random_package
from torch import Tensor

from hspace.cli import main
from hspace.scorers import facenets
from hspace.scorers.faceapi import FaceIdentity, FaceRegions, FaceScorer, openings, pose, to_pixels
from hspace.scorers.facefiles import embedded, in_torch, read_network
from hspace.scorers.facenets import SIZES, views
from hspace.scorers.factory import load_identity, load_regions, load_scorer
from hspace.types import InputError, LogitScorer

TOLD = json.loads((Path(__file__).parent / "faceapi.json").read_text())
PICTURES = {name: torch.from_numpy(picture).permute(2, 0, 1).float() for name, picture in pictures().items()}


@pytest.fixture(scope="module")
def scorer() -> FaceScorer:
    return FaceScorer()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An identity network of random numbers in the form of the npm package."""
    return random_package(tmp_path_factory.mktemp("package") / "model")


@pytest.fixture
def astronaut() -> Tensor:
    return PICTURES["astronaut"][None] / 127.5 - 1


@pytest.fixture
def face(astronaut: Tensor) -> Tensor:
    return astronaut[..., 0:260, 80:340]


def whole(name: str, network: str) -> Tensor:
    """A picture as a network reads it."""
    height, width = PICTURES[name].shape[1:]
    box = torch.tensor([[0.0, 0.0, width, height]])
    return views(PICTURES[name][None], box, SIZES[network], centre=network != "detector")


def differ(found: Tensor, told: list[float]) -> float:
    return float((found.double().flatten() - torch.tensor(told, dtype=torch.float64)).abs().max())


@pytest.mark.parametrize("name", ["face", "pattern"])
def test_every_network_gives_the_originals_numbers(name: str):
    height, width = PICTURES[name].shape[1:]
    points = facenets.landmarks(whole(name, "landmarks"), embedded("landmarks"))[0]
    sides = torch.tensor([width, height])
    points = (points - 0.5) * max(height, width) / sides + 0.5
    assert differ(points, TOLD[name]["landmarks"]) < 1e-5
    logits = facenets.expressions(whole(name, "expressions"), embedded("expressions"))
    assert differ(logits, TOLD[name]["expressions"]) < 1e-4
    assert differ(facenets.age(whole(name, "age"), embedded("age")), [TOLD[name]["age"]]) < 1e-4


@pytest.mark.parametrize("name", ["face", "pattern"])
def test_the_detector_gives_the_originals_numbers(name: str):
    """Of the first row of cells: the boxes, for which the original's raw numbers are decoded in float64, one by one."""
    logits, boxes = facenets.detect(whole(name, "detector"), embedded("detector"))
    told = np.array(TOLD[name]["detector"]).reshape(13, 5, 5)
    assert differ(logits[0, :65], told[..., 4].ravel().tolist()) < 1e-4
    sigmoid = 1 / (1 + np.exp(-told[..., :2]))
    for column in range(13):
        for kind, (width, height) in enumerate(facenets.ANCHORS):
            x, y = column + sigmoid[column, kind, 0], sigmoid[column, kind, 1]
            half = np.exp(told[column, kind, 2:4]) * [width, height] / 2
            box = np.array([x - half[0], y - half[1], x + half[0], y + half[1]]) / 13
            assert np.abs(boxes[0, 5 * column + kind].numpy() - box).max() < 1e-5


@pytest.mark.parametrize("name", ["face", "pattern"])
def test_the_identity_network_gives_the_originals_numbers_for_any_weights(name: str, package: Path):
    weights = {key: in_torch(key, each) for key, each in read_network(package, "identity").items()}
    assert differ(facenets.identity(whole(name, "identity"), weights)[0], TOLD[name]["random"]) < 1e-5


def test_the_identity_encoder_gives_the_originals_descriptors(astronaut: Tensor):
    encoder = load_identity("faceapi")
    assert isinstance(encoder, FaceIdentity)
    for name in ("face", "pattern"):
        found = facenets.identity(whole(name, "identity"), encoder.network.weights)
        assert differ(found[0], TOLD[name]["identity"]) < 1e-5
    told = torch.tensor(TOLD["astronaut"]["identity"])
    assert float(encoder(astronaut)[0] @ told / told.norm()) > 0.999
    other = torch.nn.functional.interpolate(astronaut[..., 20:400, 60:400].flip(-1), scale_factor=0.8)
    assert float((encoder(astronaut) * encoder(other)).sum()) > 0.914


def test_a_face_in_a_photograph_is_read_as_by_the_original(scorer: FaceScorer, astronaut: Tensor):
    """To a pixel or two, since the original cuts boxes to whole pixels before each network."""
    told = TOLD["astronaut"]
    faces = scorer.finder(to_pixels(astronaut))
    assert abs(float(faces.logits[0].sigmoid()) - told["score"]) < 1e-5
    points = torch.tensor(told["landmarks"]).reshape(68, 2)
    assert (faces.points[0] - points).abs().max() < 2 and (faces.points[0] - points).mean(0).abs().max() < 1
    scores = dict(zip(scorer.attributes, scorer(astronaut)[0].tolist(), strict=True))
    assert abs(scores["smile"] - told["happy"]) < 1e-3 and abs(scores["age"] - told["age"]) < 1
    assert abs(scores["yaw"]) < 0.1 and abs(scores["roll"]) < 5 and 0.05 < scores["mouth"] < 0.3
    assert bool(scorer.visible(scorer(astronaut)).all())


def test_scores_are_probabilities_whose_logits_order_what_is_certain(scorer: FaceScorer, face: Tensor):
    assert isinstance(scorer, LogitScorer) and len(scorer.attributes) == len(scorer.binary)
    scores, logits = scorer(face), scorer.logits(face)
    binary = torch.tensor(scorer.binary)
    assert torch.allclose(scores[:, binary], logits[:, binary].sigmoid())
    assert torch.equal(scores[:, ~binary], logits[:, ~binary])
    assert abs(float(scores[0, 1:8].sum()) - 1) < 1e-5


def test_a_score_does_not_depend_on_the_images_beside_it(scorer: FaceScorer, face: Tensor):
    beside = scorer(torch.cat([face.flip(-1), face, torch.zeros_like(face)]))
    assert torch.allclose(beside[1], scorer(face)[0], atol=1e-3)
    grey = face.mean(1, keepdim=True)
    both = scorer(grey), scorer(grey.expand(-1, 3, -1, -1))
    assert torch.equal(*both)


def test_the_mirrored_face_tilts_the_other_way(scorer: FaceScorer, face: Tensor):
    both = scorer(torch.cat([face, face.flip(-1)]))
    first, mirrored = (dict(zip(scorer.attributes, scores.tolist(), strict=True)) for scores in both)
    assert first["roll"] * mirrored["roll"] < 0 and abs(first["roll"] + mirrored["roll"]) < 2
    assert abs(first["smile"] - mirrored["smile"]) < 0.05 and abs(first["eyes"] - mirrored["eyes"]) < 0.05


def test_without_a_face_only_that_is_visible(scorer: FaceScorer):
    noise = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    scores = scorer(noise)
    assert scores.isfinite().all() and (scores[:, 0] < 0.5).all()
    assert scorer.visible(scores).sum(1).tolist() == [1, 1]
    assert not any(mask.any() for mask in FaceRegions()(noise).values())


def test_all_of_it_can_be_differentiated(astronaut: Tensor):
    """A random sum of all scores along a direction, against a quotient of differences, in float64."""
    scorer, draw = FaceScorer().double(), torch.Generator().manual_seed(0)
    image = torch.nn.functional.interpolate(astronaut[..., 30:230, 110:310], size=(96, 96)).double() * 0.9
    # Without noise equal pixels meet in poolings, where one of several derivatives is as good as another.
    image += 1e-3 * torch.randn(image.shape, generator=draw, dtype=torch.float64)
    along = torch.randn(image.shape, generator=draw, dtype=torch.float64)
    shares = torch.randn(len(scorer.attributes), generator=draw, dtype=torch.float64)
    image.requires_grad_()
    (gradient,) = torch.autograd.grad((scorer.logits(image)[0] * shares).sum(), image)
    slope = float((gradient * along).sum())
    with torch.no_grad():
        ends = scorer.logits(torch.cat([image + 1e-8 * along, image - 1e-8 * along]))
    quotient = float(((ends[0] - ends[1]) * shares).sum() / 2e-8)
    assert abs(slope) > 1 and abs(slope - quotient) < 1e-3 * abs(slope)


def head() -> Tensor:
    """Points of a symmetric face, the eyes half open and the mouth shut."""
    points = torch.zeros(68, 2)
    points[2], points[14], points[30] = torch.tensor([-50.0, 0]), torch.tensor([50.0, 0]), torch.tensor([0.0, 0])
    eye = torch.tensor([[-10.0, 0], [-4, -3], [4, -3], [10, 0], [4, 3], [-4, 3]])
    points[36:42], points[42:48] = eye + torch.tensor([-25.0, -20]), eye + torch.tensor([25.0, -20])
    points[60], points[64] = torch.tensor([-12.0, 40]), torch.tensor([12.0, 40])
    for above, below, x in ((61, 67, -6.0), (62, 66, 0.0), (63, 65, 6.0)):
        points[above] = points[below] = torch.tensor([x, 40.0])
    return points


def test_pose_and_openings_are_those_of_a_drawn_face():
    yaw, pitch, roll = pose(head()[None])
    mouth, eyes = openings(head()[None])
    assert [float(each) for each in (yaw, pitch, roll, mouth)] == [0, 0, 0, 0] and abs(float(eyes) - 0.3) < 1e-6
    points = head()
    points[30] += torch.tensor([10.0, -5.0])
    points[65:68] += torch.tensor([0.0, 6.0])
    angle = torch.tensor(0.3)
    rotation = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    moved = 2 * points @ rotation.T + torch.tensor([100.0, 70.0])
    measured = [float(each) for each in (*pose(moved[None]), *openings(moved[None]))]
    assert np.allclose(measured, [0.2, 0.1, np.degrees(0.3), 0.25, 0.3], atol=1e-5)


def test_regions_lie_in_the_face_and_where_they_belong(astronaut: Tensor):
    masks = {name: mask[0] for name, mask in FaceRegions()(astronaut).items()}
    centres = {name: mask.nonzero().float().mean(0) for name, mask in masks.items()}
    assert centres["brows"][0] < centres["eyes"][0] < centres["nose"][0] < centres["mouth"][0]
    assert all((mask & masks["face"]).sum() > 0.9 * mask.sum() > 0 for mask in masks.values())
    assert masks["mouth"][144, 222] and not masks["mouth"][100, 222]  # between the lips, and on the nose


def test_names_load_them():
    assert load_scorer("faceapi").id == load_regions("faceapi").id == "faceapi"
    encoder = load_identity("faceapi")
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    assert encoder(image).shape == (2, encoder.dim) and torch.allclose(encoder(image).norm(dim=1), torch.ones(2))


def test_a_short_or_long_file_of_the_npm_package_is_refused(package: Path, tmp_path: Path):
    copy = Path(shutil.copytree(package, tmp_path / "copy"))
    (file,) = copy.glob("*.bin")
    whole = file.read_bytes()
    for wrong in (whole[:-1], whole + b"0"):
        file.write_bytes(wrong)
        with pytest.raises(InputError, match="copy"):
            read_network(copy, "identity")


def test_it_never_annotates_and_judges_at_once(capsys: pytest.CaptureFixture[str]):
    words = ["evaluation=faceapi", "evaluation.judge=faceapi", "evaluation.allow_same_scorer=true"]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "both faceapi" in told and told.count("\n") == 1
