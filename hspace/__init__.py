"""Find, apply and measure editing directions in the h-space of diffusion models.

After Haas et al., FG 2024 (arXiv 2303.11073). The names below are the public API; each is loaded on first use, so that
`import hspace` is quick.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "InputError": "hspace.types",
    "Latents": "hspace.diffusion.latents",
    "load_model": "hspace.diffusion.checkpoints",
    "sample": "hspace.diffusion.sampling",
    "collect": "hspace.diffusion.sampling",
    "collect_around": "hspace.diffusion.sampling",
    "annotate": "hspace.directions.annotations",
    "make_mask": "hspace.directions.masks",
    "Directions": "hspace.directions.record",
    "pca": "hspace.directions.pca",
    "random": "hspace.directions.random",
    "jacobian": "hspace.directions.jacobian",
    "supervised": "hspace.directions.supervised",
    "boundary": "hspace.directions.supervised",
    "from_pairs": "hspace.directions.supervised",
    "disentangle": "hspace.directions.disentangle",
    "edit": "hspace.edits.sums",
    "swap": "hspace.edits.mixing",
    "arithmetic": "hspace.edits.mixing",
    "interpolate": "hspace.edits.mixing",
    "ddim_inversion": "hspace.diffusion.inversion",
    "edit_friendly_inversion": "hspace.diffusion.inversion",
    "edit_samples": "hspace.evaluation.effects",
    "evaluate": "hspace.evaluation.effects",
    "calibrate": "hspace.evaluation.calibration",
    "load_scorer": "hspace.scorers.factory",
    "load_identity": "hspace.scorers.factory",
    "load_regions": "hspace.scorers.factory",
    "grid_figure": "hspace.output.figures",
    "strip_figure": "hspace.output.figures",
}

__all__ = ["__version__", *_EXPORTS]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'hspace' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
