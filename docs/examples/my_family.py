"""A family of checkpoints of your own: here a network that is a folder with one file, weights.safetensors.

The command line takes it from the folder it lies in:  hspace model.path=FOLDER model.family=my_family:family
"""

from collections.abc import Mapping
from typing import Any

from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from safetensors.torch import load_file

from hspace.diffusion.codecs import PixelCodec
from hspace.diffusion.families import Loaded, Request
from hspace.diffusion.identity import model_identity
from hspace.diffusion.process import Process
from hspace.diffusion.unet import SemanticUNet


class OneFile:
    """A U-Net of 16 x 16 pixels that predicts v."""

    def matches(self, index: Mapping[str, str]) -> bool:
        """Never by itself: the folder says nothing, so that the family has to be named."""
        return False

    def load(self, request: Request) -> Loaded:
        """Denoiser with taps, process, codec, and what the model is."""
        levels: Any = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
        network: Any = UNet2DModel(sample_size=16, block_out_channels=(8, 16), norm_num_groups=4, **levels)
        network.load_state_dict(load_file(request.folder / "weights.safetensors"))
        scheduler = DDIMScheduler(prediction_type="v_prediction")
        identity = model_identity({"unet": network, "scheduler": scheduler})
        network = network.to(request.device, request.dtype).eval().requires_grad_(False)
        process = Process.from_scheduler(scheduler, request.num_steps, request.spacing)
        return Loaded(SemanticUNet(network, request.tap or "after"), process, PixelCodec(), identity)


family = OneFile()
