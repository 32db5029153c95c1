"""The command line: its errors through real processes, the rest in this one."""

import csv
import logging
import os
import subprocess
import sys
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hspace.cli import main
from hspace.runs.config import Config, to_dict
from hspace.system.files import write_json

ROOT = Path(__file__).parents[1]


def hspace(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hspace.cli", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
    )


def one_line(text: str) -> str:
    assert text.startswith("hspace: error: ") and text.count("\n") == 1 and text.endswith("\n")
    return text


def test_a_reader_that_has_enough_is_no_mistake() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "hspace.cli", "list", "methods"]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["edit.strenghts=[1]"], "did you mean 'edit.strengths'"),
        (["edit.strengths=[a]"], "got 'a'"),
        (["model.path=NOWHERE"], "NOWHERE"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, words: list[str], hint: str):
    done = hspace("output_dir=out", "cache_dir=cache", *words, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert hint in one_line(done.stderr)
    assert not list(tmp_path.iterdir())


def test_debugging_shows_the_traceback(tmp_path: Path):
    done = hspace("seed=-1", cwd=tmp_path, HSPACE_DEBUG="1")
    assert done.returncode == 1 and "Traceback" in done.stderr and "InputError" in done.stderr


def test_help_and_mistakes_load_no_torch(tmp_path: Path):
    code = "import sys; from hspace.cli import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for words in (["list", "models", "methods", "scorers", "experiments"], ["seed=-1"], ["device=gpu"]):
        assert subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, env=env).returncode == 0


def test_the_script_is_the_same_command(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "run.py", "edit.strengths=[-3,0,x]"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "edit.strengths[2]" in one_line(done.stderr)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["lst"], "unknown command 'lst'"),
        (["list", "model"], "did you mean 'models'"),
        (["--colour"], "unrecognized arguments: --colour"),
        (["--cfg", "all"], "--cfg"),
        (["seed=1", "word"], "cannot read 'word'"),
        (["output_dir=a=b"], "cannot read 'output_dir=a=b'"),
        (["edit.strengths=[1"], "cannot read"),
        (["method=pcaa"], "unknown method 'pcaa': did you mean 'pca'"),
        (["model=xyz"], "there is adm, bedroom, celebahq, church, dit, flux, ldm_celebahq, local, pixart"),
        (["experiment=dem"], "unknown experiment 'dem': did you mean 'demo'"),
        (["methd=pca"], "unknown key 'methd': did you mean 'method'"),
        (["method.mask=face.png"], "method.mask is not a setting of the chosen method"),
        (["edit=5"], "Got int"),
        (["model.h_space=after"], "model.h_space is not a setting any more: write model.tap"),
        (["tracking=none"], "write tracking.mode=disabled"),
        (["method=supervised", "method.classifier=svm"], "write method=boundary method.classifier"),
        (["list", "method=pcaa"], "unknown method 'pcaa': did you mean 'pca'"),
        (["seed=0,1"], "--multirun"),
        (["name=${nothing}"], "nothing"),
        (["edit.strengths=" + "[" * 400 + "]" * 400], "the settings cannot be put together: maximum recursion"),
        (["edit=[1]"], "the settings cannot be put together: argument of type 'int'"),
        (["-m", "edit=[1]"], "the settings cannot be put together: argument of type 'int'"),
        (["model=celebahq"], "makes photographs, and evaluation.annotator=portraits-annotator"),
        (["model=local"], "model.path is missing"),
        (["-m", "seed=0,1", "output_dir=x"], "hydra.sweep.dir"),
        (["-m", "seed=0,1", "hydra/launcher=slurm"], "pip install hydra-joblib-launcher"),
    ],
)
def test_every_kind_of_mistake(
    words: list[str], hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and hint in one_line(err)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("hspace.commands.run.run", lambda config: (config.output_dir / "x").mkdir(parents=True))
    assert main([f"output_dir={tmp_path / 'file'}"]) == 2
    assert "file" in one_line(capsys.readouterr().err)


def test_an_interrupt_is_exit_code_130(monkeypatch: pytest.MonkeyPatch):
    def interrupted(config: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hspace.commands.run.run", interrupted)
    assert main(["seed=1"]) == 130


INTERRUPT = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[-1] and os.environ.pop("WANTED", None):
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("module", ["numpy", "omegaconf", "torch"])
def test_an_interrupt_during_an_import_is_at_most_a_line(module: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT.replace("sys.argv[-1]", repr(module)))
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = hspace("debug=default", "output_dir=out", "cache_dir=cache", cwd=tmp_path, PYTHONPATH=path, WANTED="1")
    assert (done.returncode, done.stdout) == (130, "") and done.stderr.count("\n") <= 1
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()


def test_a_defect_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hspace.commands.run.run", lambda config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["seed=1"])


def test_the_shown_configuration_is_what_would_run(capsys: pytest.CaptureFixture[str]):
    assert main(["--cfg", "job", "model.path=FOLDER", "edit.strengths=[-3,0,3]"]) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    assert shown.model == {
        "name": "local", "path": "FOLDER", "tap": None, "prompt": None, "guidance": 7.5, "family": None,
        "revision": None,
    }  # fmt: skip
    assert shown.edit.strengths == [-3, 0, 3]


def test_a_path_beside_a_chosen_model_keeps_the_choice(capsys: pytest.CaptureFixture[str]):
    assert main(["--cfg", "job", "model=celebahq", "model.path=COPY"]) == 0
    assert OmegaConf.create(capsys.readouterr().out).model.name == "celebahq"


def test_the_figure_is_what_a_run_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("hspace.commands.run.run", lambda config: config.output_dir / "figure.png")
    assert main(["output_dir=there"]) == 0
    assert capsys.readouterr().out == f"{Path('there/figure.png')}\n"


@pytest.mark.parametrize(
    ("options", "told"), [(["--quiet"], ["warned"]), ([], ["told", "warned"]), (["-v"], ["detail", "told", "warned"])]
)
def test_quiet_prints_less_and_verbose_more(
    options: list[str], told: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def run(config: Config) -> Path:
        log = logging.getLogger("hspace.runs")
        for level, message in ((logging.DEBUG, "detail"), (logging.INFO, "told"), (logging.WARNING, "warned")):
            log.log(level, message)
        return config.output_dir / "figure.png"

    monkeypatch.setattr("hspace.commands.run.run", run)
    level = logging.getLogger("hspace").level
    try:
        assert main(options) == 0
    finally:
        logging.getLogger("hspace").setLevel(level)
    assert caplog.messages == told


def test_list_help_and_version(capsys: pytest.CaptureFixture[str]):
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert all(
        name in listed
        for name in ("portraits", "celebahq", "pca", "random", "boundary", "demo", "glasses", "yaw", "clip")
    )
    assert "Launch" not in listed
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("hspace 0.")
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0 and "experiment=demo" in capsys.readouterr().out


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The jobs that sweeps run from now on, in a folder of their own: each leaves a record, but seed=3 has a defect."""
    configs: list[Config] = []

    def run(config: Config) -> Path:
        configs.append(config)
        if config.seed == 3:
            raise ZeroDivisionError("a defect")
        record = {"config": to_dict(config), "findings": {"mean/effect": config.seed}, "seconds": 1200.0}
        write_json(config.output_dir / "run.json", record)
        return config.output_dir / "figure.png"

    monkeypatch.setattr("hspace.commands.sweep.run", run)
    monkeypatch.chdir(tmp_path)
    return configs


def test_a_sweep_has_a_folder_per_job_and_one_failure_stops_no_other(
    ran: list[Config], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, logger="hspace"):
        assert main(["-m", "method=pca,random", "seed=0,1"]) == 0
    began = [line for line in caplog.messages if line.startswith("job ")]
    assert began == [
        "job 1/4: method=pca seed=0",
        "job 2/4, at most about 1 h 0 min left if the others take as long: method=pca seed=1",
        "job 3/4, at most about 40 min 0 s left if the others take as long: method=random seed=0",
        "job 4/4, at most about 20 min 0 s left if the others take as long: method=random seed=1",
    ]
    folders = {config.output_dir for config in ran}
    (sweep,) = {folder.parent for folder in folders}
    assert len(folders) == 4 and sweep.parent == Path("outputs/sweeps")
    assert {config.tracking.group for config in ran} == {sweep.name}
    with (sweep / "collected.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method.name"], row["seed"], row["mean/effect"]) for row in rows] == [
        (method, seed, seed) for method in ("pca", "random") for seed in ("0", "1")
    ]
    assert (sweep / "collected.md").read_text().startswith("| run ")
    with (sweep / "collected_seeds.csv").open() as file:
        means = list(csv.DictReader(file))
    found = [(row["method.name"], row["n"], float(row["mean/effect"]), float(row["mean/effect sd"])) for row in means]
    assert found == [(method, "2", 0.5, pytest.approx(0.5**0.5)) for method in ("pca", "random")]
    # Every job asks its own record whether it is finished.
    ran.clear()
    assert main(["-m", "seed=0,1", "method=pca,random"]) == 0
    assert {config.output_dir for config in ran} == folders
    capsys.readouterr()
    ran.clear()
    assert main(["-m", "seed=0,-1,2,3", "experiment=demo"]) == 1
    assert [config.seed for config in ran] == [0, 2, 3]
    err = capsys.readouterr().err
    last = err.splitlines()[-3:]
    assert last[0] == "hspace: 2 of 4 jobs failed:"
    assert "seed=-1" in last[1] and "seed must be a whole number" in last[1]
    assert "seed=3" in last[2] and "ZeroDivisionError: a defect" in last[2] and "Traceback" in err
    ran.clear()
    assert main(["-m", "method=pca,randm"]) == 2
    assert not ran and "did you mean 'random'" in one_line(capsys.readouterr().err)


def test_a_sweep_over_every_choice_counts_them(ran: list[Config], caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="hspace"):
        assert main(["-m", "size=glob(*)", "seed=0,1"]) == 0
    began = [line for line in caplog.messages if line.startswith("job ")]
    assert began[0] == "job 1/2: size=fast seed=0"


def test_jobs_that_may_run_at_once_tell_no_time(ran: list[Config], caplog: pytest.LogCaptureFixture):
    launched = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1"]  # which stays in this process
    with caplog.at_level(logging.INFO, logger="hspace"):
        assert main(["-m", "seed=0,1", *launched]) == 0
    began = [line for line in caplog.messages if line.startswith("job ")]
    assert len(ran) == 2 and began == ["job 1/2: seed=0", "job 2/2: seed=1"]


def test_a_worker_that_dies_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def die(*arguments: object, **options: object) -> None:
        raise BrokenExecutor("a process was terminated")

    monkeypatch.setattr("hydra._internal.hydra.Hydra.multirun", die)
    assert main(["-m", "seed=0,1"]) == 2
    assert "a worker process died" in one_line(capsys.readouterr().err)


def test_torchrun_starts_no_sweep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["-m", "seed=0,1"]) == 2
    assert "leave out -m" in one_line(capsys.readouterr().err)
