"""A small model of random weights in a file, for tests."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from facekd.files import file_digest
from facekd.models.backbone import build_backbone
from facekd.models.heads import VarianceHead
from facekd.models.preprocessing import Preprocessing
from facekd.models.uncertainty_file import UNCERTAINTY_FILE, save_head
from facekd.models.weights import save_model

DEFAULT: Mapping[str, str] = {}
TINY = {"channels": "4,8", "blocks": "1,1"}


def tiny_model_bytes() -> bytes:
    """A student file of a few thousand random weights for 32 pixels."""
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(Path(folder, "m"), size=8, options=TINY)
        return Path(folder, "m").read_bytes()


def save_random_model(path: Path, *, size: int = 64, seed: int = 0, options: Mapping[str, str] = DEFAULT) -> None:
    """Write a ``resnet_tiny`` for 32 pixels with embeddings of ``size`` numbers."""
    torch.manual_seed(seed)
    save_model(
        path,
        build_backbone("resnet_tiny", embedding_size=size, input_size=32, options=options).eval(),
        backbone="resnet_tiny",
        embedding_size=size,
        options=options,
        preprocessing=Preprocessing.named("half", size=(32, 32)),
        extra={},
    )


def save_random_run(folder: Path) -> Path:
    """A folder with that model as a run leaves it, and beside it a head of random weights that reads variances off."""
    folder.mkdir()
    model = folder / "student.safetensors"
    save_random_model(model)
    torch.manual_seed(1)
    save_head(folder / UNCERTAINTY_FILE, VarianceHead(64), student_digest=file_digest(model), loss="dul")
    return folder
