"""Skip connections dropped and exchanged in training: what the decoder gets, and what it is to answer."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from skips import changed_skips, targets

from hspace.diffusion.denoiser import CutEncoded
from hspace.diffusion.process import Schedule
from hspace.diffusion.unet import SemanticUNet


def with_skips(encoded: CutEncoded, change: Callable[[torch.Tensor], torch.Tensor]) -> CutEncoded:
    outputs = dict(encoded.record.outputs)
    outputs["conv_in"] = [change(skip) for skip in outputs["conv_in"]]
    for name in ("down_blocks.0", "down_blocks.1"):
        [(hidden, skips)] = outputs[name]
        outputs[name] = [(hidden, tuple(map(change, skips)))]
    return replace(encoded, record=replace(encoded.record, outputs=outputs))


def test_the_decoder_does_without_the_skips_of_chosen_images_or_with_those_of_others(
    make_unet: Callable[..., UNet2DModel],
) -> None:
    unet: Any = make_unet()
    x_t = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    usual = unet(x_t, 500).sample
    kept, exchanged = torch.tensor([True, False, True, True]), torch.tensor([True, False, False, False])
    with changed_skips(unet, kept, exchanged):
        changed = unet(x_t, 500).sample
    semantic = SemanticUNet(unet)
    encoded = semantic.encode(x_t, 500)
    from_h_alone, of_others = (
        semantic.decode(encoded.h, with_skips(encoded, change))
        for change in (torch.zeros_like, lambda skip: skip[[2, 3, 0, 1]])
    )
    assert torch.equal(changed[2:], usual[2:]) and torch.equal(unet(x_t, 500).sample, usual), "the rest is as before"
    assert torch.allclose(changed[0], of_others[0], atol=1e-6) and not torch.allclose(changed[0], usual[0])
    assert torch.allclose(changed[1], from_h_alone[1], atol=1e-6) and not torch.allclose(changed[1], usual[1])


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_with_exchanged_skips_the_target_is_the_image_that_h_belongs_to(prediction_type: Any) -> None:
    scheduler: Any = DDPMScheduler(prediction_type=prediction_type)
    schedule = Schedule.of(scheduler, 1000)
    x_0, noise = torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([700, 20]).repeat(2)
    x_t = scheduler.add_noise(x_0, noise, t)
    exchanged = torch.tensor([True, False, False, True])
    wanted = targets(scheduler, x_0, x_t, t, exchanged)
    for i, decoded in enumerate([x_t[2], x_t[1], x_t[2], x_t[1]]):
        eps = schedule.to_eps(wanted[i : i + 1], decoded[None], int(t[i]))
        predicted = schedule.predict_x0(decoded[None], eps, int(t[i]))
        assert torch.allclose(predicted, x_0[i : i + 1], atol=1e-3), i
