"""A backbone out of a checkpoint's tree: built, filled, tried, and with what its images must go through."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from facekd.errors import CheckpointError, FacekdError, InputError
from facekd.model_names import TIMM_PREFIX
from facekd.models import weights
from facekd.models.architecture import Architecture
from facekd.models.dialects import Dialect, recognise
from facekd.models.preprocessing import Preprocessing, settle

TEMPLATE = "arcface"  # the landmarks every project known here aligns faces to
FROM_FILE, FROM_USER = "file", "user"


@dataclass(frozen=True)
class Opened:
    """A backbone in evaluation mode on the CPU.

    Attributes:
        module: The backbone, filled.
        embedding_size: Width of the embedding.
        preprocessing: What it expects of its images.
        metadata: What the file says of itself, and ``preprocessing_source``: ``file``, ``user`` or
            ``dialect <source>``.
        warnings: What a user should know, a line each.
    """

    module: nn.Module
    embedding_size: int
    preprocessing: Preprocessing
    metadata: dict[str, str]
    warnings: tuple[str, ...] = ()


def open_own(
    state: Mapping[str, Tensor], metadata: Mapping[str, str], where: str, color: str | None, normalize: str | None
) -> Opened:
    """A model that `weights.save_model` wrote: its metadata is binding.

    Raises:
        InputError: Another format, metadata that cannot be read, contradicts the tensors, ``color`` or ``normalize``.
        NonFiniteError: A weight is NaN or infinite.
    """
    if metadata["format"] != weights.MODEL_FORMAT:
        what = f"format is {metadata['format']}, not {weights.MODEL_FORMAT}"
        raise CheckpointError(where, what, "give a student.safetensors, or use the release that wrote it")
    stored = Preprocessing.from_metadata(metadata, where)
    try:
        architecture = Architecture.from_metadata(metadata, stored.size[0])
    except (KeyError, ValueError) as error:
        raise CheckpointError(where, f"its metadata cannot be read: {error}", "save the model again") from None
    module = built(state, where, architecture)
    preprocessing = settle(stored, color, normalize, size=stored.size, where=where)
    told = {**metadata, "preprocessing_source": FROM_FILE}
    return Opened(module, architecture.width, preprocessing, told)


def open_foreign(
    tree: object, metadata: Mapping[str, str], where: str, color: str | None, normalize: str | None
) -> Opened:
    """Somebody else's checkpoint: what its dialect implies holds where ``color`` and ``normalize`` are silent.

    Raises:
        InputError: Neither says the colour order or the scaling. A `CheckpointError` where the weights are at fault.
        NonFiniteError: A weight is NaN or infinite.
    """
    dialect = recognise(tree, where)
    found, side = dialect.structure, dialect.structure.input_size
    module = fill_dialect(dialect, where)
    preprocessing = settle(None, color or dialect.color, normalize or dialect.normalize, size=(side, side), where=where)
    self_test(lambda images: module(preprocessing.apply(images)), preprocessing.size, where)
    lines = dialect_warnings(dialect, module, where)
    if not (color and normalize):
        known = [said for said in (color is None and dialect.color, normalize is None and dialect.normalize) if said]
        lines = (
            *lines,
            f"{where}: looks like {dialect.source}, hence {' and '.join(known)}; options may say otherwise",
        )
    told = {
        **metadata,
        "backbone": found.backbone,
        "embedding_size": str(found.embedding_size),
        "options": json.dumps(dict(found.options), sort_keys=True),
        "dialect": dialect.source,
        "template": TEMPLATE,
        "preprocessing_source": FROM_USER if color or normalize else f"dialect {dialect.source}",
    }
    if dialect.classifier is not None:
        told["classifier"] = " x ".join(map(str, dialect.classifier.shape))
    return Opened(module, found.embedding_size, preprocessing, told, lines)


def fill_dialect(dialect: Dialect, where: str) -> nn.Module:
    """The backbone of a dialect, filled, in evaluation mode.

    Raises:
        CheckpointError: The tensors are not exactly the backbone's.
        NonFiniteError: A weight is NaN or infinite.
    """
    found = dialect.structure
    return built(
        found.state, where, Architecture(found.backbone, found.embedding_size, found.input_size, found.options)
    )


def dialect_warnings(dialect: Dialect, module: nn.Module, where: str) -> tuple[str, ...]:
    """What a user should know of a foreign checkpoint, a line each."""
    lines = []
    if dialect.prefixes:
        taken = ", ".join(f"{prefix} off {count}" for prefix, count in dialect.prefixes)
        lines.append(f"{where}: took {taken} keys")
    means = [buffer for name, buffer in module.named_buffers() if name.endswith("running_mean")]
    if means and not any(bool(mean.any()) for mean in means):
        lines.append(f"{where}: every BatchNorm has a running mean of 0, as in a network that was never trained")
    return tuple(lines)


def built(state: Mapping[str, Tensor], where: str, architecture: Architecture) -> nn.Module:
    """A model filled with ``state``, in evaluation mode; the random state of the process stays as it was.

    It is laid out without memory first, so that a file which claims to be far larger than it is costs nothing.

    Args:
        state: Exactly its tensors.
        where: The file, for messages.
        architecture: What it is made of.

    Raises:
        CheckpointError: It cannot be built, or the tensors are others.
        NonFiniteError: A weight is NaN or infinite.
    """
    try:
        if not any(name.startswith(TIMM_PREFIX) for name in architecture.names):
            with torch.device("meta"):
                layout = architecture.build()
            weights.require_same_keys(layout, state, where)
        with torch.random.fork_rng(devices=[]):
            module = architecture.build()
    except CheckpointError:
        raise
    except FacekdError as error:
        raise CheckpointError(where, f"cannot be built: {error.where}: {error.what}", error.fix) from None
    weights.load_weights(module, state, where)
    return module.eval().requires_grad_(False)


def self_test_images(size: tuple[int, int]) -> Tensor:
    """Two made-up pictures, uint8 RGB (2, 3, height, width): a slope and a texture."""
    height, width = size
    rows, columns = torch.arange(height).view(-1, 1), torch.arange(width).view(1, -1)
    slope = (255 * columns // max(width - 1, 1)).expand(3, height, width)
    texture = (rows * 37 + columns * 101 + rows * columns * 7 + 40 * torch.arange(3).view(-1, 1, 1)) % 256
    return torch.stack([slope, texture]).to(torch.uint8)


@torch.no_grad()
def self_test(embed: Callable[[Tensor], Tensor], size: tuple[int, int], where: str) -> None:
    """Embed two pictures that nobody would confuse.

    Args:
        embed: uint8 RGB (batch, 3, height, width) to embeddings (batch, dim).
        size: (height, width) it takes.
        where: The file, for messages.

    Raises:
        InputError: The embeddings are not finite, or the same.
    """
    first, second = embed(self_test_images(size)).float()
    if not (torch.isfinite(first).all() and torch.isfinite(second).all()):
        raise InputError(where, "gives NaN or infinity for an ordinary image", "take an earlier checkpoint")
    if torch.allclose(first, second, rtol=1e-6, atol=0):
        raise InputError(where, "gives the same embedding for two different images", "take an earlier checkpoint")
