"""A model as everything above sees it: pixels in, raw embeddings out, whatever the file it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from facekd.errors import CheckpointError, DeviceError, FacekdError, InputError
from facekd.models import dialects, weights
from facekd.models.backbone import build_backbone
from facekd.models.macs import count_parameters
from facekd.models.onnx_model import load_onnx
from facekd.models.preprocessing import Preprocessing, settle

STUDENT_FILE = "student.safetensors"
SUFFIXES = (".safetensors", ".pt", ".pth", ".onnx")


class Embedder(Protocol):
    """What evaluation, distillation and export need of a model."""

    @property
    def name(self) -> str:
        """Short path of the file or run folder."""

    @property
    def digest(self) -> str:
        """SHA-256 of the file, in hex."""

    @property
    def embedding_size(self) -> int:
        """Width of the embedding."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What the model expects of its images."""

    @property
    def metadata(self) -> dict[str, str]:
        """Everything the file says of itself."""

    @property
    def parameters(self) -> int:
        """Number of values in its parameters."""

    def embed(self, images: Tensor) -> Tensor:
        """uint8 RGB (batch, 3, height, width) at ``preprocessing.size`` to float32 raw embeddings (batch, dim)."""


@dataclass(frozen=True)
class TorchEmbedder:
    """A PyTorch backbone in evaluation mode with its preprocessing; the attributes are those of `Embedder`.

    Args:
        module: The backbone, on ``device``.
        device: Where it runs and where embeddings come out.
    """

    name: str
    digest: str
    embedding_size: int
    preprocessing: Preprocessing
    metadata: dict[str, str]
    module: nn.Module
    device: torch.device

    @property
    def parameters(self) -> int:
        """Number of values in its parameters."""
        return count_parameters(self.module)

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """uint8 RGB (batch, 3, height, width) at ``preprocessing.size`` to float32 raw embeddings (batch, dim)."""
        pixels = self.preprocessing.apply(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        embedding: Tensor = self.module(pixels)
        return embedding.float()


def load_embedder(
    path: Path | str, *, color: str | None = None, normalize: str | None = None, device: str = "cpu"
) -> Embedder:
    """Open any model: a run folder, ``.safetensors``, ``.pt``, ``.pth`` or ``.onnx``.

    Args:
        path: A folder with ``student.safetensors`` in it, or a file.
        color: ``rgb`` or ``bgr``, for a foreign file that does not say.
        normalize: ``half``, ``128``, ``imagenet`` or ``none``, for a foreign file that does not say.
        device: Where a PyTorch model runs; ONNX runs on CUDA when asked and present, with embeddings on the CPU.

    Raises:
        InputError: A file that cannot be used, says nothing of its preprocessing, or contradicts ``color`` or
            ``normalize``. A `CheckpointError` where the weights are at fault.
        NonFiniteError: A weight is NaN or infinite.
        DeviceError: No such device.
    """
    path = Path(path)
    file = path / STUDENT_FILE if path.is_dir() else path
    name = "/".join(path.parts[-2:])
    if not path.exists():
        raise InputError(str(path), "no such file or folder", f"looked from {Path.cwd()}")
    if path.is_dir() and not file.is_file():
        raise CheckpointError(str(path), f"a folder without {STUDENT_FILE}", "give a finished run or a model file")
    if file.suffix not in SUFFIXES:
        raise InputError(str(path), f"{file.suffix or 'no suffix'} is no model file", f"known: {' '.join(SUFFIXES)}")
    target = open_device(device)
    if file.suffix == ".onnx":
        return load_onnx(file, name, color=color, normalize=normalize, cuda=target.type == "cuda")
    return _load_torch(file, name, color=color, normalize=normalize, device=target)


def _load_torch(
    file: Path, name: str, *, color: str | None, normalize: str | None, device: torch.device
) -> TorchEmbedder:
    data, where = weights.read_bytes(file), str(file)
    state, metadata = weights.decode(data, file)
    if "format" in metadata:
        module, stored = _own(state, metadata, where)
        embedding_size = int(metadata["embedding_size"])
        preprocessing = settle(stored, color, normalize, size=stored.size, where=where)
    else:
        found = dialects.recognise(state, where)
        embedding_size, side = found.embedding_size, found.input_size
        preprocessing = settle(None, color, normalize, size=(side, side), where=where)
        module = _built(found.state, where, found.backbone, (embedding_size, side), found.options)
        metadata = {
            **metadata,
            "backbone": found.backbone,
            "embedding_size": str(embedding_size),
            "options": json.dumps(dict(found.options), sort_keys=True),
        }
    module = module.eval().requires_grad_(False)
    module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    digest = hashlib.sha256(data).hexdigest()
    return TorchEmbedder(name, digest, embedding_size, preprocessing, metadata, module, device)


def open_device(name: str) -> torch.device:
    """The device of that name, if it is here.

    Raises:
        DeviceError: An unknown or absent device.

    Example:
        >>> open_device("cpu")
        device(type='cpu')
        >>> open_device("abacus")
        Traceback (most recent call last):
        facekd.errors.DeviceError: abacus: no such device here (use --device cpu)
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise DeviceError(name, "no such device here", "use --device cpu") from None
    return device


def _built(
    state: Mapping[str, Tensor], where: str, backbone: str, sizes: tuple[int, int], options: object
) -> nn.Module:
    """A backbone filled with ``state``; the random state of the process stays as it was."""
    if not isinstance(options, Mapping):
        raise CheckpointError(where, f"its options are {options!r}", "save the model again")
    try:
        with torch.random.fork_rng(devices=[]):
            module = build_backbone(backbone, embedding_size=sizes[0], input_size=sizes[1], options=options)
    except FacekdError as error:
        raise CheckpointError(where, f"cannot be built: {error.where}: {error.what}", error.fix) from None
    weights.load_weights(module, state, where)
    return module


def _own(state: Mapping[str, Tensor], metadata: Mapping[str, str], where: str) -> tuple[nn.Module, Preprocessing]:
    if metadata["format"] != weights.MODEL_FORMAT:
        what = f"format is {metadata['format']}, not {weights.MODEL_FORMAT}"
        raise CheckpointError(where, what, "give a student.safetensors, or use the release that wrote it")
    preprocessing = Preprocessing.from_metadata(metadata, where)
    try:
        backbone, embedding_size = metadata["backbone"], int(metadata["embedding_size"])
        options = json.loads(metadata.get("options", "{}"))
    except (KeyError, ValueError) as error:
        raise CheckpointError(where, f"its metadata cannot be read: {error}", "save the model again") from None
    return _built(state, where, backbone, (embedding_size, preprocessing.size[0]), options), preprocessing
