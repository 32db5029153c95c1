"""Trains the latent diffusion model of the 128 x 128 portraits, on the latents of `train_autoencoder.py`; resumable.

python scripts/making/train_latent.py [key=value ...]       # keys: conf/train/latent.yaml
"""

import sys

from train_ddpm import main

from hspace.runs.errors import guarded

if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:], "latent"), __doc__))
