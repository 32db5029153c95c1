"""The ways to find an edit of an attribute that `compare_methods` compares, one record each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hspace.directions.disentangle import disentangle
from hspace.directions.operators import Found
from hspace.directions.pca import PER_STEP
from hspace.directions.random import random
from hspace.runs.config import Config
from hspace.runs.lab import Lab
from hspace.runs.parsing import settings_of
from hspace.system.registry import unknown
from hspace.types import InputError

Finder = Callable[[Lab, str], Sequence[Found]]
"""What a method offers for an attribute on a draw: a direction, many in one or several forms, or an operator."""
Count = Callable[[Config], int]


def _none(cfg: Config) -> int:
    return 0


@dataclass(frozen=True)
class Contender:
    """One way to find an edit of an attribute.

    Attributes:
        name: Name in tables.
        find: Function that finds what the method offers. The annotator chooses among several directions.
        samples: Number of generated samples that it learns from, by the configuration.
        annotated: Whether it learns from the annotator's scores of them.
        scored: Number of further images, edited or predicted, that the annotator scores while the method works.
        sign: 1, or -1 of what can only take an attribute off: it changes other samples than what gives it, so that the
            two are not compared.
        aimed: Whether it finds one edit, which raises the attribute; else the annotator chooses one and its sign.
    """

    name: str
    find: Finder
    samples: Count
    annotated: bool = False
    scored: Count = _none
    sign: int = 1
    aimed: bool = True


def found(lab: Lab, **method: Any) -> Found:
    """What a method of the command line finds: directions, or an operator."""
    return replace(lab, cfg=replace(lab.cfg, method=settings_of(method))).found()


def learnt(name: str, others: str | None = None, **options: Any) -> Finder:
    """A method that learns from annotated samples.

    Args:
        name: Name of the method.
        others: Setting that takes the other attributes of the comparison; None has none.
        **options: Further settings.
    """

    def find(lab: Lab, attribute: str) -> Sequence[Found]:
        study = lab.cfg.study
        if others is not None and not _others(lab, attribute):
            raise InputError("it needs another attribute than the edited one in study.attributes")
        rest = {} if others is None else {others: _others(lab, attribute)}
        sizes = {"k": study.examples, "num_samples": study.index}
        return [found(lab, name=name, attribute=attribute, **sizes, **rest, **options)]

    return find


def components(*forms: Mapping[str, Any]) -> Finder:
    """Directions without an attribute, `method.k` of `method.num_samples` samples, in each of some forms."""

    def find(lab: Lab, attribute: str) -> Sequence[Found]:
        sizes = {"k": lab.pca.k, "num_samples": lab.pca.num_samples}
        return [found(lab, **{**sizes, **form}) for form in forms]

    return find


PCA_FORMS: tuple[Mapping[str, Any], ...] = (
    PER_STEP, {"name": "pca", "joint": True, "rotation": None}, {"name": "pca", "joint": True, "rotation": "varimax"},
)  # fmt: skip


def _random(lab: Lab, attribute: str) -> Sequence[Found]:
    """As many as PCA offers in all its forms; no two draws or forms share a seed."""
    components, forms = lab.components(), len(PCA_FORMS)
    return [random(components, seed=forms * lab.cfg.seed + form) for form in range(forms)]


def _orthogonal(lab: Lab, attribute: str) -> Sequence[Found]:
    """Eq. 12, from mean differences that each serve several attributes."""
    return [disentangle(lab.attribute(attribute), [lab.attribute(name) for name in _others(lab, attribute)])]


def _neighbours(lab: Lab, attribute: str) -> Sequence[Found]:
    return [found(lab, name="local_pca", k=lab.pca.k, num_samples=_near(lab.cfg), sample=lab.cfg.seed)]


def _jacobian(lab: Lab, attribute: str) -> Sequence[Found]:
    return [found(lab, name="jacobian", k=lab.pca.k, sample=lab.cfg.seed, steps=[_middle(lab)])]


def _pullback(lab: Lab, attribute: str) -> Sequence[Found]:
    return [found(lab, name="pullback", k=lab.pca.k, sample=lab.cfg.seed, step=_middle(lab))]


def _features(lab: Lab, attribute: str) -> Sequence[Found]:
    return [found(lab, name="sae", k=lab.pca.k, num_samples=lab.cfg.study.index)]


def _others(lab: Lab, attribute: str) -> list[str]:
    return [name for name in lab.cfg.study.attributes if name != attribute]


def _middle(lab: Lab) -> int:
    return len(lab.model.process.timesteps) // 2


def _index(cfg: Config) -> int:
    return cfg.study.index


def _many(cfg: Config) -> int:
    return getattr(cfg.method, "num_samples", cfg.study.index)


def _near(cfg: Config) -> int:
    """A quarter of the samples, all around one."""
    return max(_many(cfg) // 4, 2)


def _one(cfg: Config) -> int:
    return 1


def _mixtures(cfg: Config) -> int:
    """Edits of method=counter: each direction and every mixture with both signs, and the unedited samples."""
    return _mixed(cfg, len(cfg.study.attributes))


def _profiles(cfg: Config) -> int:
    """The same where one direction and each of its steps are mixed."""
    return _mixed(cfg, 1 + cfg.diffusion.num_steps)


def _mixed(cfg: Config, vectors: int) -> int:
    rounds = settings_of({"name": "counter"}).model_dump()["rounds"]
    return cfg.evaluation.calibration_samples * (1 + 2 * vectors + 2 * rounds)


def _predictions(method: str) -> Count:
    """Predicted images of a trained method, edited and unedited, at every step of every update."""
    settings = settings_of({"name": method}).model_dump()
    return lambda cfg: 2 * settings["updates"] * settings["batch"] * cfg.diffusion.num_steps


CONTENDERS: tuple[Contender, ...] = (
    Contender("mean difference", learnt("supervised"), _index, annotated=True),
    Contender("matched examples", learnt("supervised", "match"), _index, annotated=True),
    Contender("disentangled", _orthogonal, _index, annotated=True),
    Contender("disentangled by LEACE", learnt("supervised", "conditions", removal="leace"), _index, annotated=True),
    Contender("whitened difference", learnt("whitened"), _index, annotated=True),
    Contender("regression", learnt("regression"), _index, annotated=True),
    Contender("linear boundary", learnt("boundary"), _index, annotated=True),
    Contender("linear boundary by SVM", learnt("boundary", classifier="svm"), _index, annotated=True),
    Contender("counter-edit", learnt("counter", "conditions"), _index, annotated=True, scored=_mixtures),
    Contender("erase", learnt("erase", one_sided=True), _index, annotated=True, sign=-1),
    Contender("switch", learnt("switch", one_sided=True), _index, annotated=True, sign=-1),
    Contender("transport", learnt("transport"), _index, annotated=True),
    Contender("trained", learnt("trained"), _index, annotated=True, scored=_predictions("trained")),
    Contender("self-discovered", learnt("self_discovered"), _index, annotated=True, aimed=False),
    Contender("sparse autoencoder", _features, _index, annotated=True, aimed=False),
    Contender("PCA", components(*PCA_FORMS), _many, aimed=False),
    Contender("ICA", components({"name": "pca", "joint": True, "rotation": "ica"}), _many, aimed=False),
    Contender("local PCA", _neighbours, _near, aimed=False),
    Contender("Jacobian", _jacobian, _one, aimed=False),
    Contender("pullback", _pullback, _one, aimed=False),
    Contender("random", _random, _many, aimed=False),
    Contender("mean difference of x_T", learnt("supervised", space="x_T"), _index, annotated=True),
)
"""All ways that were compared, in the order of the tables."""
FURTHER: tuple[Contender, ...] = (
    Contender(
        "trained network", learnt("trained_network"), _index, annotated=True, scored=_predictions("trained_network")
    ),
    Contender("time profile", learnt("counter", conditions=[], by_step=True), _index, annotated=True, scored=_profiles),
)
"""Ways that only their own names ask for, so that `*` stays what was published; after the others in tables."""
ALL = "*"
"""Name of all that were compared in `study.methods`."""


def contenders(names: Sequence[str], key: str = "study.methods") -> tuple[Contender, ...]:
    """The ways of some names, in the order of the tables; `*` names all but `FURTHER`.

    Args:
        names: The names.
        key: Setting that they are from.

    Raises:
        InputError: If there is no such way.
    """
    known = [each.name for each in (*CONTENDERS, *FURTHER)]
    for name in names:
        if name not in (ALL, *known):
            raise InputError(unknown(key, name, (ALL, *known)))
    compared = tuple(each for each in CONTENDERS if ALL in names or each.name in names)
    return compared + tuple(each for each in FURTHER if each.name in names)
