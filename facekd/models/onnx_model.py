"""An ONNX file as an embedder, run by onnxruntime."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facekd.errors import InputError
from facekd.models.onnx_file import ANOTHER, image_input, metadata_of, open_session, parse, stored_preprocessing
from facekd.models.preprocessing import Preprocessing, settle
from facekd.models.weights import read_bytes

DEFAULT_SIZE = 112


@dataclass(frozen=True)
class OnnxEmbedder:
    """An ONNX model with its preprocessing; embeddings come out on the CPU. The attributes are those of `Embedder`.

    Args:
        session: onnxruntime's InferenceSession.
        batch: The one batch size the graph takes, or None for any.
        path: The file.
        bytes: The graph takes uint8 pictures (batch, height, width, 3) in the order blue, green, red.
    """

    name: str
    digest: str
    embedding_size: int
    preprocessing: Preprocessing
    metadata: dict[str, str]
    parameters: int
    session: Any
    batch: int | None
    path: Path
    bytes: bool = False
    warnings: tuple[str, ...] = ()

    def embed(self, images: Tensor) -> Tensor:
        """uint8 RGB (batch, 3, height, width) at ``preprocessing.size`` to float32 raw embeddings (batch, dim).

        A graph with a fixed batch is run as often as needed, the last time with repeated images whose embeddings are
        dropped.
        """
        pixels = self.prepare(images)
        if self.batch is None:
            return torch.from_numpy(self._run(pixels))
        found = [np.zeros((0, self.embedding_size), np.float32)]
        for start in range(0, len(pixels), self.batch):
            part = pixels[start : start + self.batch]
            padded = part[np.arange(self.batch) % len(part)]
            found.append(self._run(padded)[: len(part)])
        return torch.from_numpy(np.concatenate(found))

    def prepare(self, images: Tensor) -> np.ndarray:
        """What the graph takes, of uint8 RGB (batch, 3, height, width)."""
        if self.bytes:
            return np.ascontiguousarray(images.cpu().flip(1).permute(0, 2, 3, 1).numpy())
        return self.preprocessing.apply(images.cpu()).contiguous().numpy()

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        name = self.session.get_inputs()[0].name
        (embedding,) = self.session.run(None, {name: pixels})
        return np.asarray(embedding, dtype=np.float32)


def load_onnx(
    path: Path, name: str, *, color: str | None = None, normalize: str | None = None, cuda: bool = False
) -> OnnxEmbedder:
    """Open a self-contained ONNX file with one image input and one embedding output.

    Args:
        path: The file.
        name: What the model is called in reports.
        color: Colour order, for a file that does not say.
        normalize: Scaling, for a file that does not say.
        cuda: Run on CUDA where onnxruntime has it.

    Raises:
        InputError: Truncated, refers to other files, another shape than (batch, 3, height, width), more than one
            input or output, or says nothing of its preprocessing.
    """
    where, data = str(path), read_bytes(path)
    model = parse(data, where)
    taken = image_input(model, where)
    metadata = metadata_of(model)
    stored = stored_preprocessing(metadata, taken.size, where)
    size = taken.size or (DEFAULT_SIZE, DEFAULT_SIZE)
    if stored is None and taken.bytes:
        stored = Preprocessing.named("none", "bgr", size)
    preprocessing = settle(stored, color, normalize, size=size, where=where)
    session = open_session(data, where, threads=torch.get_num_threads(), cuda=cuda)
    parameters = sum(int(np.prod(weight.dims)) for weight in model.graph.initializer)
    digest = hashlib.sha256(data).hexdigest()
    embedder = OnnxEmbedder(
        name, digest, 0, preprocessing, metadata, parameters, session, taken.batch, path=Path(path), bytes=taken.bytes
    )
    return _measured(embedder, where)


def _measured(embedder: OnnxEmbedder, where: str) -> OnnxEmbedder:
    """The embedder with its true width, after one run that must give a finite vector."""
    height, width = embedder.preprocessing.size
    image = torch.arange(3 * height * width).remainder(251).to(torch.uint8).view(1, 3, height, width)
    try:
        probe = embedder._run(embedder.prepare(image.expand(embedder.batch or 1, 3, height, width)))
    except Exception as error:
        raise InputError(where, f"does not run at {height}x{width}: {' '.join(str(error).split())[:160]}") from None
    if probe.ndim != 2 or len(probe) != (embedder.batch or 1):
        raise InputError(where, f"gives {probe.shape} for one image, not one embedding", ANOTHER)
    if not np.isfinite(probe).all():
        raise InputError(where, "gives NaN or infinity for an ordinary image", "export it again from sound weights")
    return replace(embedder, embedding_size=probe.shape[1])
