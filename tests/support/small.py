"""Words of experiments that are too small to mean anything."""

# Numbers: of networks with random weights no image may have glasses.
COMPARISON = [
    "experiment=compare_methods", "study.attributes=[skin,age]", "study.index=24", "study.examples=6",
    "study.target=0.1", "study.repeats=2", "method.k=2", "method.num_samples=24", "evaluation.num_samples=12",
    "evaluation.reference_samples=20", "evaluation.calibration_samples=10", "evaluation.strength_samples=10",
    "diffusion.num_steps=3", "tracking.mode=disabled", "device=cpu", "batch_size=64",
]  # fmt: skip
