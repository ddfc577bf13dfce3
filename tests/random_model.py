"""A small model of random weights in a file, for tests."""

from __future__ import annotations

from pathlib import Path

import torch

from facekd.models.backbone import build_backbone
from facekd.models.preprocessing import Preprocessing
from facekd.models.weights import save_model


def save_random_model(path: Path, *, size: int = 64, seed: int = 0) -> None:
    """Write a ``resnet_tiny`` for 32 pixels with embeddings of ``size`` numbers."""
    torch.manual_seed(seed)
    save_model(
        path,
        build_backbone("resnet_tiny", embedding_size=size, input_size=32, options={}).eval(),
        backbone="resnet_tiny",
        embedding_size=size,
        options={},
        preprocessing=Preprocessing.named("half", size=(32, 32)),
        extra={},
    )
