"""Runs everything on a device that obeys a GPU's rules, to find tensors that would meet on two devices.

    python scripts/fake_cuda.py                                     all of it: hours of one core
    python scripts/fake_cuda.py --models pixel,flux --works pca,edits
    python scripts/fake_cuda.py --models portraits --works fig6,photograph

A model is one of the smallest pipelines of every family (tests/support/pipelines.py), with random weights; or
`portraits`, which has the experiments of the paper, photographs and the studio; or `making-WORLD`, which has the
trainings of a world and its card. A line says how each work went: `ok`, or the fault and where it is. It exits with 1
after a fault, and with 2 where a model or a work is not one of these. At the end it says what the device cannot show;
see `scripts/fake_device.py`.
"""

import argparse
import contextlib
import io
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import torch  # noqa: E402
from fake_device import fake_device  # noqa: E402
from fake_making import making_of  # noqa: E402
from hydra import compose, initialize_config_dir  # noqa: E402
from PIL import Image  # noqa: E402
from pipelines import PIPELINES, PROMPTS, save  # noqa: E402

from hspace.cli import main as hspace  # noqa: E402
from hspace.diffusion import checkpoints  # noqa: E402
from hspace.diffusion.checkpoints import DiffusionModel, load_model  # noqa: E402
from hspace.diffusion.inversion import ddim_inversion, edit_friendly_inversion  # noqa: E402
from hspace.diffusion.recording import collect  # noqa: E402
from hspace.diffusion.sampler import Sampler  # noqa: E402
from hspace.diffusion.sampling import sample  # noqa: E402
from hspace.directions.record import Directions  # noqa: E402
from hspace.edits.mixing import arithmetic, interpolate, swap  # noqa: E402
from hspace.evaluation.manifold import off_manifold, own_gaussian  # noqa: E402
from hspace.metrics.fid import FID  # noqa: E402
from hspace.metrics.kid import KID  # noqa: E402
from hspace.runs.errors import guarded  # noqa: E402
from hspace.runs.memory import row_bytes  # noqa: E402
from hspace.runs.parsing import parse  # noqa: E402
from hspace.scorers import factory  # noqa: E402
from hspace.studio.session import Edit, Session  # noqa: E402
from hspace.studio.sliders import load_bench  # noqa: E402
from hspace.system.files import package_path  # noqa: E402
from hspace.system.registry import unknown  # noqa: E402
from hspace.types import InputError  # noqa: E402

LEFT_OUT = """\
autocast, since torch has no casts for a device in Python: the precision of a training is the CPU's
torch.save of a training's checkpoint and its reading: a checkpoint holds the device's own tensors
torch.compile, CUDA graphs, TF32, fused attention, channels_last kernels: only a GPU has them
memory: out-of-memory errors, and what is free
ready_directions.py, whose calibrations take enough samples to reach 1 sd
experiment=transformer and the trainings train_latent and train_transformer, which start from trained networks
several processes: torchrun's transport between GPUs"""

METHODS: dict[str, tuple[str, ...]] = {
    "pca": (), "local_pca": (), "pca_per_step": (), "random": (), "jacobian": (), "supervised": (), "boundary": (),
    "whitened": (), "regression": (), "erase": (), "switch": (), "transport": (),
    "counter": ("method.num_samples=24", "evaluation.calibration_samples=24"),
    "self_discovered": ("method.updates=2",), "trained": ("method.updates=1", "method.batch=1"),
    "trained_network": ("method.updates=1", "method.batch=1"),
    "sae": ("method.updates=3",), "pullback": ("method.onto=1",), "prompt_pairs": (),
}  # fmt: skip
NAMED = ("supervised", "boundary", "whitened", "regression", "counter", "erase", "switch", "transport",
         "self_discovered", "trained", "trained_network")  # fmt: skip
"""Methods that need an attribute: a number, since of random images none may have glasses."""
OTHER = {"classes": "1", "dit": "kind 1"}
"""Other conditions, for pairs; "a dog" of models with prompts."""
EXPERIMENTS = ("demo", "fig2", "fig3", "fig4", "fig5", "fig6", "fig7", "fig8a", "fig8b", "fig9", "table1", "fig11",
               "fig13", "fig17", "fig18", "compare_methods")  # fmt: skip
SMALL = (
    "study.index=64", "study.examples=2", "study.repeats=2", "method.num_samples=12", "method.k=3",
    "diffusion.num_steps=4", "evaluation.num_samples=6", "evaluation.reference_samples=24",
    "evaluation.calibration_samples=8", "batch_size=64",
)  # fmt: skip
"""Words of experiments, whose own sizes would take hours."""
FEWER = {
    "compare_methods": (
        "study.methods=[mean difference,transport,PCA,mean difference of x_T]", "study.attributes=[gender,yaw]",
        "evaluation.num_samples=12",
    ),
}  # fmt: skip
"""Further words of an experiment that would take too long, or could not be read, otherwise."""
OTHERS = ("portraits", "making-portraits", "making-rooms")
Work = Callable[[Path, torch.device], None]


def run(words: list[str], folder: Path, debug: bool = True) -> None:
    """One command of `hspace`, whose output is held back.

    Raises:
        InputError: If it reports a mistake.
    """
    shutil.rmtree(folder / "out", ignore_errors=True)
    places = [f"output_dir={folder / 'out'}", f"cache_dir={folder / 'cache'}", "tracking.mode=disabled"]
    code = hspace([*words, *(["debug=default"] if debug else []), *places])
    if code:
        raise InputError(f"exit code {code}")


def by_method(folder: Path, device: torch.device, name: str, method: str) -> None:
    """A method on a family, from the command line: found, named, applied, measured and drawn."""
    words = [f"model.path={save(name, folder / name)}", f"method={method}", *METHODS[method]]
    words += [f"model.prompt='{PROMPTS[name]}'"] if name in PROMPTS else []
    words += ["method.attribute=skin"] if method in NAMED else []
    words += [f"method.prompt='{OTHER.get(name, 'a dog')}'"] if method == "prompt_pairs" else []
    run(words, folder)


def edits(folder: Path, device: torch.device, name: str) -> None:
    """What no method above reaches: injections, swaps, arithmetic, interpolation, inversions, distances of x_T."""
    model = loaded(folder, name)
    assert model.device == device, "the device was not taken"
    first, second = model.latents([1, 2]), model.latents([3, 4])
    h = sample(model, first, record_h=True).h
    assert h is not None
    for injection in ("symmetric", "asyrp"):
        sample(model, first, delta_h=0.1 * h.cpu(), sampler=Sampler(injection=injection, start=1))
    sample(model, first, replace_h=h[:1])
    swap(model, first, second)
    arithmetic(model, first, second.select([0]), second.select([1]), strengths=[0.2])
    for space in ("h", "x_T", "both"):
        interpolate(model, first, second, weights=[0.0, 0.5], space=space)
    directions = Directions.of(model, torch.ones(1, *model.sample_shape), space="x_T")
    gaussian = own_gaussian(collect(model, range(4), folder / "h.npy"))
    off_manifold(model, directions, gaussian, [3, 4], component=0, strength=0.1)
    images = sample(model, first).x_0.float().cpu().clamp(-1, 1)
    for found in (
        ddim_inversion(model, images, refine=1, record_h=True),
        edit_friendly_inversion(model, images, record_h=True),
    ):
        found.save(folder / "inverted.safetensors")
    row_bytes(model)


def loaded(folder: Path, name: str) -> DiffusionModel:
    """A family's model on the device."""
    return load_model(str(save(name, folder / name)), num_steps=3, prompt=PROMPTS.get(name, ""), guidance=4.0)


def features(folder: Path, device: torch.device) -> None:
    """Scorers, encoders and distances, on images of the device and on those of the CPU."""
    judge = factory.load_scorer("portraits-judge")
    networks = [judge, factory.load_identity(), factory.features_of(judge), factory.load_regions()]
    images = torch.rand(4, 3, 64, 64) * 2 - 1
    for metric in (FID(networks[2], min_samples=2), KID(networks[2], subset_size=2)):  # pyright: ignore
        metric.update(images, real=True)
        metric.update(images.flip(0), real=False)
        metric.compute()
    for network in networks:
        assert network is not None
        network(images)


def photograph(folder: Path, device: torch.device) -> None:
    """A photograph inverted, edited and put back, and a generated sample beside it."""
    path = folder / "photo.png"
    Image.new("RGB", (80, 64), (180, 140, 120)).save(path)
    words = [*edited_along(folder), "--samples", "10", "--inversions", str(folder / "inversions")]
    for source in (str(path), "2000000"):
        for region in ([], ["--keep-outside", "0.2,0.2,0.8,0.8"]):
            code = hspace(["edit", source, *words, *region, "--output", str(folder / f"edited{len(region)}")])
            assert code == 0, f"exit code {code}"


def edited_along(folder: Path) -> list[str]:
    """Words of `hspace edit` for a direction that is found first."""
    run(["method=random"], folder)
    settings = ["diffusion.num_steps=6", f"cache_dir={folder / 'cache'}"]
    return ["--direction", f"{folder / 'out' / 'directions.safetensors'}:0", *settings]


def studio(folder: Path, device: torch.device) -> None:
    """A session of the studio: a slider's strip, a masked edit, directions of a region, a picture that is kept."""
    _, direction, *settings = edited_along(folder)
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        bench = load_bench(parse(compose("config", overrides=settings)), [direction])
    photo = folder / "photo.png"
    Image.new("RGB", (80, 64), (180, 140, 120)).save(photo)
    session = Session(bench, folder / "studio", (2_000_000,), (photo,))
    mask = torch.zeros(bench.model.image_shape[1:], dtype=torch.bool)
    mask[16:48, 16:48] = True
    for name in ("seed-2000000", "photo-0"):
        source, edit = session.source(name), Edit({0: 1.0}, mask=mask)
        list(session.strip(source, 0, 0, None))
        image = list(session.exact(source, edit))[-1]
        session.read(source, image)
        session.save_picture(source, edit, image, "a note")
    session.find(session.source("photo-0"), mask, 3, 1)


def works_of(name: str) -> dict[str, Work]:
    """What can be run with a model."""
    if name.startswith("making-"):
        return making_of(name.removeprefix("making-"))
    if name == "portraits":
        experiments: dict[str, Work] = {
            each: lambda folder, _, each=each: run([f"experiment={each}", *SMALL, *FEWER.get(each, ())], folder)
            for each in EXPERIMENTS
        }
        masked = lambda folder, _: run(["method=jacobian", "method.mask=mouth"], folder)  # noqa: E731
        shipped = lambda folder, _: run(["method=ready", "diffusion.num_steps=10"], folder)  # noqa: E731
        return {
            **experiments, "mask": masked, "ready": shipped, "features": features,
            "photograph": photograph, "studio": studio,
        }  # fmt: skip
    methods = [method for method in METHODS if method != "prompt_pairs" or name in PROMPTS]
    found: dict[str, Work] = {each: partial(by_method, name=name, method=each) for each in methods}
    return {"edits": partial(edits, name=name), **found}


def tried(work: Work, folder: Path) -> str:
    """How a work went: ok, or the fault and the lines of this project that it passed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with fake_device() as device, silent():
            checkpoints._find_device = lambda _: device
            work(folder, device)
    except Exception as error:
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__) if str(ROOT / "hspace") in frame.filename
        ]
        where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[:-5:-1])
        return f"{type(error).__name__}: {str(error).splitlines()[0]} [{where}]"
    return "ok"


@contextlib.contextmanager
def silent() -> Any:
    """What commands print is held back."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def chosen_works(models: list[str], wanted: list[str] | None) -> list[tuple[str, str, Work]]:
    """Models with their works, those that are wanted; None is all.

    Raises:
        InputError: If there is no such model, or none of the models has a wanted work.
    """
    for name in models:
        if name not in (*PIPELINES, *OTHERS):
            raise InputError(unknown("--models", name, [*PIPELINES, *OTHERS]))
    works = [(name, each, work) for name in models for each, work in works_of(name).items()]
    known = {each for _, each, _ in works}
    for each in wanted or ():
        if each not in known:
            raise InputError(unknown("--works", each, known))
    return [found for found in works if wanted is None or found[1] in wanted]


def main() -> int:
    """Runs what is asked for.

    Raises:
        InputError: If there is no such model or work.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join([*PIPELINES, *OTHERS]), help="all: %(default)s")
    parser.add_argument("--works", help="names of methods, experiments, edits, …; all of a model where none is named")
    arguments = parser.parse_args()
    chosen = chosen_works(arguments.models.split(","), arguments.works.split(",") if arguments.works else None)
    os.environ["HSPACE_DEBUG"] = "1"
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, each, work in chosen:
            started = time.perf_counter()
            said = tried(work, Path(folder) / name)
            faults += said != "ok"
            print(f"{name} {each}: {said} ({time.perf_counter() - started:.1f} s)", flush=True)
    print(f"left out:\n{LEFT_OUT}")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(guarded(main))
