from dataclasses import replace

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.runs.config import Config
from hspace.runs.keys import edit_key


def test_an_edit_depends_on_the_steps_that_it_leaves_out(default_config: Config, tiny_model: DiffusionModel) -> None:
    """A window of all steps is none, so that what was kept before there were windows is still used."""

    def key(start: int, stop: int | None) -> dict:
        return edit_key(replace(default_config, edit=replace(default_config.edit, start=start, stop=stop)), tiny_model)

    assert key(0, None) == key(0, 3) == {"injection": "symmetric"}
    assert key(1, None) == key(1, 3) == {"injection": "symmetric", "window": [1, 3]}
    assert key(0, 2) != key(0, None) != key(1, None)
