"""`hspace calibrate`, `range` and `directions`: measure what strengths do, keep it in files, and list it."""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path

from omegaconf import DictConfig
from torch import Tensor

from hspace.diffusion.latents import seed_range
from hspace.diffusion.sampler import Sampler
from hspace.directions.hub import PREFIX, local_path
from hspace.directions.operators import Operator, load_found
from hspace.directions.shipped import READY, ready_models, ready_path
from hspace.evaluation.calibration import MORE
from hspace.evaluation.calibration import calibrate as find_strength
from hspace.evaluation.ranges import facts_about, range_of, range_unlike, with_ranges
from hspace.evaluation.safe_ranges import Limits, check_tried, slider_range
from hspace.output.tables import written
from hspace.runs.parsing import parse
from hspace.runs.unedited import unit_of_effects
from hspace.studio.sliders import Bench, Slider, load_bench
from hspace.system import workers
from hspace.system.progress import bar
from hspace.types import InputError, Scorer

NAMES = ("directions*.safetensors", "operator.safetensors")
"""Files that runs leave."""
Compose = Callable[[list[str]], DictConfig]


def calibrate(options: argparse.Namespace, compose: Compose) -> int:
    """Prints the strength at which each direction, or operator, has the wanted effect, and keeps it in the file.

    Raises:
        InputError: If an option or a file is wrong, or nothing can be read.
    """
    bench, scorer = _bench(options, compose, "calibrate")
    with _sharing(bench):
        unit = _unit(bench, scorer)
        for slider in bench.sliders:
            _calibrate(options, bench, scorer, slider, unit)
    return 0


def _calibrate(options: argparse.Namespace, bench: Bench, scorer: Scorer, slider: Slider, unit: Tensor) -> None:
    seeds = seed_range("calibration", MORE * options.samples)
    found = find_strength(
        bench.model, slider.found, slider.component, options.attribute, scorer, target=options.effect,
        seeds=seeds, unit=unit, sampler=bench.cfg.sampler, least=options.samples,
    )  # fmt: skip
    _keep(slider, {"calibration": asdict(found)})
    end = "" if found.reached else f", the nearest to {written(options.effect)} sd that it reaches"
    ends = [None if each is None else written(each) for each in (found.low, found.high)]
    shown = "n/a" if None in ends else f"{ends[0]} to {ends[1]}"
    print(
        f"{slider.name}: {options.attribute} changes by {written(found.effect)} sd ({shown}, n = {found.n}) "
        f"at strength {found.strength:g}{end}"
    )


def range(options: argparse.Namespace, compose: Compose) -> int:
    """Measures the safe range of each direction, or operator, and keeps it in the file.

    Raises:
        InputError: If an option or a file is wrong.
    """
    limits = Limits(options.others)
    bench, scorer = _bench(options, compose, "range")
    for slider in bench.sliders:
        check_tried(slider.found, options.samples, options.most)
    with _sharing(bench):
        unit = _unit(bench, scorer)
        for slider in bar(bench.sliders, stage="range"):
            _range(options, limits, bench, scorer, slider, unit)
    return 0


def _range(
    options: argparse.Namespace, limits: Limits, bench: Bench, scorer: Scorer, slider: Slider, unit: Tensor
) -> None:
    seeds = seed_range("calibration", options.samples)
    found = slider_range(
        bench.model, slider.found, slider.component, scorer, bench.identity, seeds=seeds, unit=unit,
        most=options.most, limits=limits, sampler=bench.cfg.sampler,
    )  # fmt: skip
    with_ranges(load_found(slider.path), {slider.component: found}).save(slider.path)
    why = "" if isinstance(slider.found, Operator) else f" ({found.low_because})"
    print(
        f"{slider.name}: {written(found.low, '.3g')}{why} to {written(found.high, '.3g')} ({found.high_because}), "
        f"moves {found.attribute or 'no attribute surely'}"
    )


def directions(options: argparse.Namespace, compose: Compose) -> int:
    """Lists the contents of files of directions and operators; without a file, of what comes with the package.

    Raises:
        InputError: If a file does not exist, or holds neither.
    """
    for path in _files(options.inputs) if options.inputs else [f"{READY}{name}" for name in ready_models()]:
        found = load_found(local_path(path))
        meta = found.meta
        print(f"{path}: {meta.method} of {meta.model_id}, {len(meta.timesteps)} steps, strengths in {meta.unit}")
        for component, name in enumerate(meta.names):
            safe = range_of(found, component)
            ends = "" if safe is None else f"safe from {written(safe.low, '.3g')} to {written(safe.high, '.3g')}"
            other = range_unlike(found, component, Sampler())
            ends += f" with {other}" if other else ""
            print(f"  {component:>3}  {name:<24}{ends}")
    return 0


def _bench(options: argparse.Namespace, compose: Compose, command: str) -> tuple[Bench, Scorer]:
    if not options.direction:
        raise InputError(f"hspace {command} needs --direction FILE[:NAME]; without a name it takes all of the file")
    if options.inputs:
        raise InputError(f"hspace {command} does not take the word {options.inputs[0]!r}")
    shared = next((each for each in options.direction if each.startswith((READY, PREFIX))), None)
    if shared is not None:
        raise InputError(f"{shared} is not to be changed: hspace {command} writes into the file; copy it first")
    cfg = parse(compose(options.settings))
    if cfg.allow:
        allowed = ", ".join(cfg.allow)
        raise InputError(f"hspace {command} measures directions as they were found: leave out allow=[{allowed}]")
    bench, ready = load_bench(cfg, options.direction), {ready_path(name) for name in ready_models()}
    for slider in bench.sliders:
        if slider.path in ready:
            raise InputError(f"{slider.name} is ready-made and not to be changed: copy {slider.path} first")
    if bench.annotator is None:
        raise InputError(
            f"{bench.cfg.evaluation.annotator} cannot read images of {bench.model.model_id}: set evaluation=clip or "
            "evaluation=faceapi"
        )
    return bench, bench.annotator


def _sharing(bench: Bench) -> AbstractContextManager[None]:
    """Lets the processes that a run would have share the samples."""
    return workers.sharing(workers.processes_for(bench.cfg.workers, bench.model.device))


def _unit(bench: Bench, scorer: Scorer) -> Tensor:
    """The unit of effects, as a run has it for the annotator."""
    seeds = seed_range("calibration", bench.cfg.evaluation.reference_samples)
    return unit_of_effects(bench.cfg, bench.model, scorer, seeds)


def _keep(slider: Slider, record: dict[str, object]) -> None:
    """Adds to the file's facts about a slider; reads it anew, since another one of it may just have been kept."""
    kept = load_found(slider.path)
    records = dict(kept.meta.calibration or {})
    records[slider.name] = facts_about(kept, slider.name) | json.loads(json.dumps(record))
    replace(kept, meta=replace(kept.meta, calibration=records)).save(slider.path)


def _files(words: list[str]) -> Iterator[Path]:
    """Files, and those below folders."""
    for word in words:
        path = local_path(word).expanduser()
        found = (each for name in NAMES for each in path.rglob(name))
        below = sorted(found) if path.is_dir() else [path]
        if not below:
            raise InputError(f"no {' or '.join(NAMES)} below {path}")
        yield from below
