"""Tiny models of the hub's kinds with random weights, saved and read the way large ones are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hspace.scorers.clip import PROMPTS

VIT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 32,
    "patch_size": 8,
}


def save_processor(folder: Path, **options: Any) -> None:
    """A `preprocessor_config.json`, as transformers' own class writes it."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    given = {"size": {"height": 32, "width": 32}, "do_center_crop": False, **options}
    CLIPImageProcessorPil(**given).save_pretrained(folder)


@pytest.fixture(scope="session")
def make_classifier(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A ViT with the given labels and problem type, in a folder."""
    transformers = pytest.importorskip("transformers")

    def make(labels: list[str], problem: str | None = None, seed: int = 0) -> Path:
        torch.manual_seed(seed)
        names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
        config = transformers.ViTConfig(**VIT, num_labels=len(labels), problem_type=problem, **names)
        folder = tmp_path_factory.mktemp("hub") / "classifier"
        transformers.ViTForImageClassification(config).save_pretrained(folder)
        save_processor(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP that spells the words of the prompts."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    letters = sorted({letter for pair in PROMPTS.values() for text in pair for letter in text.lower()} - {" "})
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1}
    layers = {name: VIT[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")}
    text = {**layers, **ends, "num_attention_heads": 2, "vocab_size": len(words), "max_position_embeddings": 40}
    config = transformers.CLIPConfig(text_config=text, vision_config=VIT, projection_dim=8)
    folder = tmp_path_factory.mktemp("hub") / "clip"
    transformers.CLIPModel(config).save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(words)}
    transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=40).save_pretrained(folder)
    save_processor(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_backbone_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DINOv2."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=1, image_size=28, patch_size=14
    )
    folder = tmp_path_factory.mktemp("hub") / "dino"
    transformers.Dinov2Model(config).save_pretrained(folder)
    save_processor(folder, size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}, do_center_crop=True)
    return folder


@pytest.fixture(scope="session")
def tiny_parser_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SegFormer with five labels of CelebAMask-HQ."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    labels = ["background", "skin", "u_lip", "l_lip", "l_eye"]
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    sizes: dict[str, Any] = {
        "num_encoder_blocks": 2,
        "depths": [1, 1],
        "sr_ratios": [2, 1],
        "hidden_sizes": [8, 16],
        "patch_sizes": [7, 3],
        "strides": [4, 2],
        "num_attention_heads": [1, 2],
        "mlp_ratios": [2, 2],
        "decoder_hidden_size": 16,
    }
    network = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(**sizes, **names))
    # As it starts out it draws nearly one class everywhere.
    torch.nn.init.normal_(network.decode_head.classifier.weight, std=3.0)
    folder = tmp_path_factory.mktemp("hub") / "parser"
    network.save_pretrained(folder)
    save_processor(folder, size={"height": 64, "width": 64})
    return folder
