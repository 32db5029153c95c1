"""The sections of the model card, each kept once it is measured; metrics.json and the pictures."""

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from configuration import training_configuration
from safetensors.torch import load_file, save_file
from torch import Tensor

from card import generated, semantics
from card.base import Sizes, evaluation_seeds
from card.carried import carried_by_h
from card.moved import choose, moved_figures, moved_images, together
from card.subject import Subject, subject_of
from card.swapped import swapped_shares
from hspace.diffusion.checkpoints import DiffusionModel, load_model
from hspace.evaluation.readings import score
from hspace.metrics.identity import true_accept_rate
from hspace.output.charts import effect_heatmap
from hspace.output.figures import grid_figure
from hspace.scorers.embedded import (
    WorldFeatures,
    WorldIdentity,
    WorldScorer,
    load_annotator,
    load_encoder,
    load_judge,
    load_regions,
)
from hspace.system.cache import cached, key_sha256
from hspace.system.files import package_path, sha256_file, write_bytes, write_json
from hspace.worlds.rendered import Rendered, from_bytes, rendered, rendered_pairs

log = logging.getLogger(__name__)

VERSION, VERSIONS = 6, {"moved": 7}
"""Part of the cache key of every section, or of one, which is raised when its figures are measured in another way."""
REFERENCE_SEED, FRESH_SEED, INDEPENDENT_SEED, PEOPLE_SEED, PAIRS_SEED = 70, 71, 72, 73, 74
"""Streams of renders that no training draws from."""
TILE, SHEET, COLUMNS = 96, 24, 6
NUM_NEAREST, NUM_EDITED = 8, 2


@dataclass(frozen=True)
class Bench:
    """All that is measured, and with what.

    Attributes:
        subject: The world.
        model: At the steps of the edits, which the generated pictures have too.
        annotator: Chooses.
        judge: Reads.
        encoders: Of what stays, by role.
        sizes: How much is measured.
        renders_dir: Where renders are kept.
        training_dir: Where the renders of the training lie, or are painted to.
    """

    subject: Subject
    model: DiffusionModel
    annotator: WorldScorer
    judge: WorldScorer
    encoders: dict[str, WorldIdentity]
    sizes: Sizes
    renders_dir: Path
    training_dir: Path

    def renders(self, n: int, seed: int, *, correlated: bool = True) -> Rendered:
        """Fresh renders of the model's size."""
        return rendered(
            self.subject.world, n, self.model.image_shape[-1], seed, self.renders_dir, correlated=correlated
        )

    def reference(self) -> Rendered:
        """The renders that stand for the renderer."""
        return self.renders(self.sizes.reference, REFERENCE_SEED)


def measure(model: str, name: str, sizes: Sizes, output: Path, training_dir: Path) -> dict[str, Any]:
    """Measure the card's figures and write them to metrics.json; sections that are known are read, not measured.

    Args:
        model: What `load_model` takes.
        name: Embedded model whose world, training and page the measured one has.
        sizes: How much is measured.
        output: Folder of metrics.json, of the sections and of the pictures, in `images`.
        training_dir: Folder of the training's renders.

    Returns:
        What metrics.json holds. Shares are fractions; a figure that does not exist is None.
    """
    subject = subject_of(name)
    world = subject.world.id
    encoders = {role: load_encoder(world, role) for role in subject.world.pairs}
    bench = Bench(
        subject, load_model(model, num_steps=sizes.steps), load_annotator(world), load_judge(world), encoders,
        sizes, output / "renders", training_dir,
    )  # fmt: skip
    drawn = _section(output, "generated", bench, _generated, scorers=False)
    images = load_file(drawn / "images.safetensors")
    sections: dict[str, Callable[[Bench, Path], dict[str, Any]]] = {
        "pictures": lambda bench, folder: _pictures(bench, folder, images["generated"], images["untrained"]),
        "scorers": _scorers,
        "components": _components,
        "moved": _moved,
        "carried": lambda bench, _: {
            "carried": carried_by_h(bench.model, bench.judge, subject, sizes.pairs, PAIRS_SEED)
        },
        "swapped": lambda bench, _: {
            "swapped": swapped_shares(bench.model, bench.judge, subject, sizes.swaps, batch_size=sizes.batch_size)
        },
        # Last, since it may have the whole training set to paint.
        "nearest": lambda bench, folder: _nearest(bench, folder, images["generated"]),
    }
    figures: dict[str, Any] = {}
    for section, build in sections.items():
        folder = _section(output, section, bench, build)
        figures |= json.loads((folder / "figures.json").read_text(encoding="utf-8"))
        for picture in folder.glob("*.png"):
            write_bytes(output / "images" / picture.name, picture.read_bytes())
    figures["kept"] = list(subject.kept)
    figures["bottleneck_ratio"] = math.prod(bench.model.h_shape) / math.prod(bench.model.image_shape)
    of = {"card": name, "world": world, "model_sha256": bench.model.identity.sha256, "sizes": asdict(sizes)}
    metrics = _summary(figures) | of
    write_json(output / "metrics.json", metrics)
    return metrics


def _section(
    output: Path, name: str, bench: Bench, build: Callable[[Bench, Path], dict[str, Any]], *, scorers: bool = True
) -> Path:
    """The folder of a section, measured unless it is known."""
    started = time.perf_counter()

    def write(folder: Path) -> None:
        log.info("%s …", name)
        write_json(folder / "figures.json", _plain(build(bench, folder)))
        log.info("%s: %.0f s", name, time.perf_counter() - started)

    return cached(output / "sections", name, _key(bench, VERSIONS.get(name, VERSION), scorers), write)


def _key(bench: Bench, version: int, scorers: bool) -> dict[str, Any]:
    """What a section depends on."""
    sizes = {name: value for name, value in asdict(bench.sizes).items() if name != "batch_size"}
    key = {"version": version, "sizes": sizes, "model": bench.model.identity.sha256}
    key |= {"schedule": key_sha256(asdict(bench.model.process))}
    if scorers:
        world = bench.subject.world
        folder, roles = package_path("weights") / world.id, ("annotator", "judge", *world.pairs, "regions")
        files = sorted(path for role in roles for path in (folder / role).iterdir())
        key |= {"scorers": {str(path.relative_to(folder)): sha256_file(path) for path in files}}
    return key


def _plain(value: Any) -> Any:
    """JSON has no nan, which is what a figure of nothing is."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _generated(bench: Bench, folder: Path) -> dict[str, Any]:
    """Images of the model and of an untrained one."""
    seeds, size = evaluation_seeds(bench.sizes.generated), bench.sizes.batch_size
    images = {
        name: generated.displayed(generated.generate(model, seeds, batch_size=size))
        for name, model in (("generated", bench.model), ("untrained", generated.untrained(bench.model)))
    }
    save_file(images, folder / "images.safetensors")
    return {}


def _pictures(bench: Bench, folder: Path, drawn: Tensor, untrained: Tensor) -> dict[str, Any]:
    """Generated pictures beside renders."""
    n, reference, images = len(drawn), bench.reference(), from_bytes(drawn)
    features: Any = WorldFeatures(bench.judge)
    compared = {
        "generated": images,
        "floor": from_bytes(bench.renders(n, FRESH_SEED).images),
        "independent": from_bytes(bench.renders(n, INDEPENDENT_SEED, correlated=False).images),
        "untrained": from_bytes(untrained),
    }
    distances = generated.distances(features, from_bytes(reference.images), compared)
    grid_figure(compared["floor"][:SHEET], COLUMNS, folder / f"{bench.subject.stem}_rendered.png", tile=TILE)
    grid_figure(images[:SHEET], COLUMNS, folder / f"{bench.subject.stem}_generated.png", tile=TILE)
    attributes = generated.attribute_figures(bench.judge, bench.annotator, images, reference)
    fids = {f"fid_{name}": distance for name, distance in distances.items()}
    return fids | {"attributes": attributes}


def _nearest(bench: Bench, folder: Path, drawn: Tensor) -> dict[str, dict[str, float]]:
    """Distances to the nearest render of the training, of generated pictures and of fresh renders; and a picture."""
    fresh = bench.renders(len(drawn), FRESH_SEED)
    compared = from_bytes(torch.cat([drawn[:NUM_NEAREST], fresh.images[:NUM_NEAREST]]))
    size, world = bench.model.image_shape[-1], bench.subject.world
    trained = training_configuration(bench.subject.training, [f"world={world.id}"])
    n = bench.sizes.training_renders or trained.train_images
    training = rendered(world, n, size, trained.seed, bench.training_dir)
    rows, distances = generated.nearest(compared, training.images)
    ours, usual = distances.split(NUM_NEAREST)
    titles = [f"sample {i}" for i in range(NUM_NEAREST)] + [f"{distance:.2f}" for distance in ours]
    pairs = torch.cat([compared[:NUM_NEAREST], training.batch(rows[:NUM_NEAREST])])
    grid_figure(pairs, NUM_NEAREST, folder / f"{bench.subject.stem}_nearest.png", titles, tile=TILE)
    return {"nearest": {"generated": float(ours.mean()), "rendered": float(usual.mean())}}


def _scorers(bench: Bench, folder: Path) -> dict[str, Any]:
    """Verification of unseen pairs, and what the training measured of the regions."""
    world, size = bench.subject.world, bench.model.image_shape[-1]
    found = {}
    for role, encoder in bench.encoders.items():
        pairs = rendered_pairs(world, bench.sizes.people, size, PEOPLE_SEED, role)
        first, second = (score(encoder, from_bytes(images)) for images in pairs)
        found[f"{role}_tar"] = true_accept_rate(first, second)
    held_out = load_regions(world.id).config.held_out
    return found | {"regions": {name.removeprefix("iou/"): value for name, value in held_out.items()}}


def _components(bench: Bench, folder: Path) -> dict[str, Any]:
    """Principal components of h."""
    (directions,) = semantics.components(bench.model, bench.sizes, folder)
    names, matrix = semantics.component_effects(
        bench.model, directions, bench.annotator, bench.judge, bench.encoders["identity"], bench.sizes
    )
    effect_heatmap(matrix, folder / f"{bench.subject.stem}_components.png")
    return {"components": semantics.semantic_components(names, matrix)}


def _moved(bench: Bench, folder: Path) -> dict[str, Any]:
    """Edits of one attribute."""
    moved, kept = bench.subject.moved, bench.subject.kept
    thresholds = dict(zip(moved, _thresholds(bench), strict=True))
    chosen = choose(bench.model, bench.annotator, bench.subject, thresholds, bench.sizes)
    original, edited = moved_images(bench.model, together(chosen), [each.strength for each in chosen], bench.sizes)
    shown = original[None, :NUM_EDITED].expand(len(moved), -1, -1, -1, -1)
    rows = torch.stack([edited[:, 0, :NUM_EDITED], shown, edited[:, 1, :NUM_EDITED]], dim=2).flatten(0, 2)
    titles = [text for name in moved for text in [f"{name} \N{MINUS SIGN}", "unedited", f"{name} +"] * shown.shape[1]]
    grid_figure(rows, 3 * shown.shape[1], folder / f"{bench.subject.stem}_moved.png", titles, tile=TILE)
    encoders = {role: bench.encoders[role] for role in kept}
    figures = moved_figures(original, edited, bench.judge, encoders, thresholds)
    return {
        "moved": {
            name: figures[name] | {"method": each.method, "strength": each.strength, "threshold": thresholds[name]}
            for name, each in zip(moved, chosen, strict=True)
        }
    }


def _thresholds(bench: Bench) -> list[float]:
    """By moved attribute: a score above it has the attribute, a half or the median of renders."""
    labels, attributes = bench.reference().labels, {each.id: each for each in bench.subject.world.judged}
    columns = list(attributes)
    return [
        0.5 if attributes[name].kind == "binary" else float(labels[:, columns.index(name)].median())
        for name in bench.subject.moved
    ]


def _summary(figures: dict[str, Any]) -> dict[str, Any]:
    """The card's figures under their names, and what they are taken from."""
    binary = [row for row in figures["attributes"].values() if "decided" in row]
    continuous = [row for row in figures["attributes"].values() if "decided" not in row]
    floor, untrained = figures["fid_floor"], figures["fid_untrained"]
    mistaken = [row for row in continuous if row["error_correlation"] is not None]
    semantic = [row for row in figures["components"] if row["semantic"]]
    rows = figures["moved"]
    same = figures["kept"][0]
    by_attribute = {
        f"moved_{key}": {attribute: row[name] for attribute, row in rows.items()}
        for key, name in (
            ("before", "before"),
            ("after", "after"),
            ("identity", same),
            ("method", "method"),
            ("strength", "strength"),
        )
    }
    judged = [row["share"] for name, row in figures["swapped"].items() if name != "background"]
    return {
        "bottleneck_ratio": figures["bottleneck_ratio"],
        **{f"swap_{name}": row["share"] for name, row in figures["swapped"].items() if name == "background"},
        "swap_judged": None if None in judged else median(judged),
        "error_correlation": _extreme(max, mistaken, "error_correlation"),
        "decided_share": _extreme(min, binary, "decided"),
        "marginal_error_max": _extreme(max, binary, "error"),
        "mean_error_max": _extreme(max, continuous, "error"),
        **{name: value for name, value in figures.items() if name.startswith("fid_")},
        "fid_share": (figures["fid_generated"] - floor) / (untrained - floor),
        "judge_accuracy_min": _extreme(min, binary, "judge"),
        "judge_r2_min": _extreme(min, continuous, "judge"),
        "agreement_min": _extreme(min, binary, "agreement"),
        **{name: value for name, value in figures.items() if name.endswith("_tar")},
        "semantic_components": len(semantic),
        "semantic_attributes": sorted({row["attribute"] for row in semantic}),
        **by_attribute,
        **{
            name: figures[name]
            for name in ("kept", "nearest", "regions", "attributes", "components", "moved", "carried", "swapped")
        },
    }


def _extreme(pick: Callable[[Sequence[float]], float], rows: list[dict[str, Any]], name: str) -> float | None:
    """The least or the largest of a figure over attributes; None without any, or where one has none."""
    values = [row[name] for row in rows]
    return None if not values or None in values else pick(values)
