"""safetensors files whose bytes depend on nothing but their content.

The library writes its metadata in an order that differs from process to process, so equal models would get different
digests; here the header is sorted.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from facekd.errors import CheckpointError
from facekd.files import write_atomic

_MAX_HEADER = 100_000_000


def encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The file's bytes: equal content, equal bytes.

    Example:
        >>> import torch
        >>> a, b = torch.zeros(1), torch.ones(1)
        >>> encode({"a": a, "b": b}, {"x": "1", "y": "2"}) == encode({"b": b, "a": a}, {"y": "2", "x": "1"})
        True
    """
    return b"".join(_head_and_body(tensors, metadata))


def _head_and_body(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, memoryview]:
    from safetensors.torch import save

    plain = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    length = struct.unpack("<Q", plain[:8])[0]
    header = json.loads(plain[8 : 8 + length])
    ordered = {"__metadata__": {key: str(metadata[key]) for key in sorted(metadata)}} | header
    text = json.dumps(ordered, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, memoryview(plain)[8 + length :]


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Write atomically.

    Returns:
        SHA-256 of the file, in hex.

    Raises:
        DeviceError: The disk refused; a file that was there before stands.
    """
    parts = _head_and_body(tensors, metadata)

    def fill(temporary: Path) -> None:
        with open(temporary, "wb") as stream:
            for part in parts:
                stream.write(part)

    return write_atomic(path, fill)


def decode(data: bytes, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata.

    Raises:
        CheckpointError: Truncated, damaged, or not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    fix = "copy or download it again"
    try:
        length = struct.unpack("<Q", data[:8])[0]
        if length > _MAX_HEADER:
            raise CheckpointError(where, "not a safetensors file (its header length makes no sense)", fix)
        header = json.loads(data[8 : 8 + length]) if 8 + length <= len(data) else None
    except (struct.error, ValueError, RecursionError):
        raise CheckpointError(where, "not a safetensors file (its header cannot be read)", fix) from None
    if header is None:
        raise CheckpointError(where, f"truncated: the header alone needs {8 + length} of its {len(data)} bytes", fix)
    try:
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
        if expected > len(data):
            raise CheckpointError(where, f"truncated: {len(data)} of {expected} bytes", fix)
        return load(data), dict(header.get("__metadata__", {}))
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(where, f"damaged safetensors file: {error}", fix) from None
