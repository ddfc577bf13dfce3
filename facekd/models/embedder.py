"""A model as everything above sees it: pixels in, raw embeddings out, whatever the file it came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from facekd.errors import CheckpointError, DeviceError, InputError, UsageError
from facekd.model_names import HUB_PREFIX, is_model_name
from facekd.models import weights
from facekd.models.macs import count_parameters
from facekd.models.onnx_model import load_onnx
from facekd.models.opening import FROM_FILE, FROM_USER, Opened, open_foreign, open_own, self_test
from facekd.models.preprocessing import Preprocessing
from facekd.models.remote import hub_file, open_timm

PRECISIONS = ("fp32", "bf16")
STUDENT_FILE = "student.safetensors"
SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".onnx")


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
        """Everything the file says of itself, and ``preprocessing_source``: ``file``, ``user`` or ``dialect ...``."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know of it, a line each."""

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
        precision: Of its convolutions and matrix products: one of :data:`PRECISIONS`.
    """

    name: str
    digest: str
    embedding_size: int
    preprocessing: Preprocessing
    metadata: dict[str, str]
    module: nn.Module
    device: torch.device
    warnings: tuple[str, ...] = ()
    precision: str = "fp32"

    @property
    def parameters(self) -> int:
        """Number of values in its parameters."""
        return count_parameters(self.module)

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """uint8 RGB (batch, 3, height, width) at ``preprocessing.size`` to float32 raw embeddings (batch, dim)."""
        pixels = self.preprocessing.apply(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            embedding: Tensor = self.module(pixels)
        return embedding.float()


def in_precision(embedder: Embedder, precision: str) -> Embedder:
    """The model, computing in another precision.

    Args:
        embedder: The model.
        precision: One of :data:`PRECISIONS`.

    Raises:
        UsageError: bf16 of a model whose file says how it computes.
    """
    if precision == precision_of(embedder):
        return embedder
    if not isinstance(embedder, TorchEmbedder):
        what = "is a graph that computes as its file says"
        raise UsageError(f"--precision {precision}", f"{embedder.name} {what}", "leave it out, or give PyTorch weights")
    return replace(embedder, precision=precision)


def precision_of(embedder: Embedder) -> str:
    """What a model computes in: one of :data:`PRECISIONS`."""
    return str(getattr(embedder, "precision", "fp32"))


def load_embedder(
    path: Path | str, *, color: str | None = None, normalize: str | None = None, device: str = "cpu"
) -> Embedder:
    """Open any model: a run folder, ``.safetensors``, ``.pt``, ``.pth``, ``.ckpt`` or ``.onnx``, or one by name.

    Args:
        path: A folder with ``student.safetensors`` in it, a file, ``hf:owner/name/file`` for a file of the Hugging Face
            hub, or ``timm/<name>`` for timm's pretrained weights.
        color: ``rgb`` or ``bgr``, for a foreign file; before the convention of its project.
        normalize: ``half``, ``128``, ``imagenet``, ``unit`` or ``none``, likewise.
        device: Where a PyTorch model runs; ONNX runs on CUDA when asked and present, with embeddings on the CPU.

    Raises:
        InputError: A file that cannot be used, whose preprocessing neither it, nor its project, nor ``color`` and
            ``normalize`` tell, or that contradicts these. A `CheckpointError` where the weights are at fault.
        NonFiniteError: A weight is NaN or infinite.
        DeviceError: No such device.
    """
    target = open_device(device)
    if is_model_name(path):
        name = str(path)
        if not name.startswith(HUB_PREFIX):
            return _on_device(name, *open_timm(name, color, normalize), target)
        return _load_file(hub_file(name), name, color, normalize, target)
    path = Path(path)
    return _load_file(model_file(path), "/".join(path.parts[-2:]), color, normalize, target)


def model_file(path: Path) -> Path:
    """The file of a model given as a file or run folder.

    Raises:
        InputError: Nothing there, no model file, or a folder without one.
    """
    file = path / STUDENT_FILE if path.is_dir() else path
    if not path.exists():
        raise InputError(str(path), "no such file or folder", f"looked from {Path.cwd()}")
    if path.is_dir() and not file.is_file():
        raise CheckpointError(str(path), f"a folder without {STUDENT_FILE}", "give a finished run or a model file")
    if file.suffix not in SUFFIXES:
        raise InputError(str(path), f"{file.suffix or 'no suffix'} is no model file", f"known: {' '.join(SUFFIXES)}")
    return file


def _load_file(file: Path, name: str, color: str | None, normalize: str | None, device: torch.device) -> Embedder:
    if file.suffix == ".onnx":
        return _load_onnx(file, name, color, normalize, device)
    data, where = weights.read_bytes(file), str(file)
    tree, metadata = weights.decode(data, file)
    if "format" in metadata and isinstance(tree, dict):
        opened = open_own(tree, metadata, where, color, normalize)
    else:
        opened = open_foreign(tree, metadata, where, color, normalize)
    return _on_device(name, opened, hashlib.sha256(data).hexdigest(), device)


def _on_device(name: str, opened: Opened, digest: str, device: torch.device) -> TorchEmbedder:
    module = opened.module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TorchEmbedder(
        name,
        digest,
        opened.embedding_size,
        opened.preprocessing,
        opened.metadata,
        module,
        device,
        opened.warnings,
    )


def _load_onnx(file: Path, name: str, color: str | None, normalize: str | None, device: torch.device) -> Embedder:
    embedder = load_onnx(file, name, color=color, normalize=normalize, cuda=device.type == "cuda")
    told = "facekd.color" in embedder.metadata
    if not told:
        self_test(embedder.embed, embedder.preprocessing.size, str(file))
    source = {"preprocessing_source": FROM_FILE if told else FROM_USER}
    return replace(embedder, metadata={**embedder.metadata, **source})


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
