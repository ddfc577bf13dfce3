"""safetensors files whose bytes depend on nothing but their content, and which carry their own digest where asked to.

The library writes its metadata in an order that differs from process to process, so equal models would get different
digests; here the header is sorted. The format has no checksum: a model's metadata holds, as :data:`SEAL`, the SHA-256
of the file's bytes with 64 zeros in its place, so that no flipped bit of weights or header is taken for the model.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from facekd.errors import CheckpointError
from facekd.files import write_atomic

SEAL = "facekd.seal"
_MAX_HEADER = 100_000_000
_BLANK = b"0" * 64
_BEFORE = f'"{SEAL}":"'.encode()
_FIX = "copy or download it again"


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
    return _written(path, *_head_and_body(tensors, metadata))


def write_sealed(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """:func:`write` of a file that carries its own digest, for those whose digest nobody else may have recorded."""
    head, body = _head_and_body(tensors, {**metadata, SEAL: _BLANK.decode()})
    start = head.index(_BEFORE) + len(_BEFORE)
    return _written(path, head[:start] + _seal_of(head, start, body) + head[start + len(_BLANK) :], body)


def _written(path: Path, *parts: bytes | memoryview) -> str:
    def fill(temporary: Path) -> None:
        with open(temporary, "wb") as stream:
            for part in parts:
                stream.write(part)

    return write_atomic(path, fill)


def _seal_of(head: bytes, start: int, body: bytes | memoryview) -> bytes:
    """The digest that belongs at ``start``."""
    digest = hashlib.sha256(head[:start] + _BLANK + head[start + len(_BLANK) :])
    digest.update(body)
    return digest.hexdigest().encode()


def _check_seal(data: bytes, length: int, where: str) -> None:
    head = data[: 8 + length]
    start = head.find(_BEFORE) + len(_BEFORE)
    found = head[start : start + len(_BLANK)] if start >= len(_BEFORE) else b""
    if found != _seal_of(head, start, memoryview(data)[8 + length :]):
        fix = f"{_FIX}; if a tool changed it, drop {SEAL} from its metadata"
        raise CheckpointError(where, "is not as it was written: its SHA-256 differs from the one it carries", fix)


def decode(data: bytes, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, and metadata without the digest that seals it: that is of this file alone.

    Files without a seal, as other tools write, are taken as they are.

    Raises:
        CheckpointError: Truncated, damaged, not safetensors, or another file than the one that was sealed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        length = struct.unpack("<Q", data[:8])[0]
        if length > _MAX_HEADER:
            raise CheckpointError(where, "not a safetensors file (its header length makes no sense)", _FIX)
        header = json.loads(data[8 : 8 + length]) if 8 + length <= len(data) else None
    except (struct.error, ValueError, RecursionError):
        raise CheckpointError(where, "not a safetensors file (its header cannot be read)", _FIX) from None
    if header is None:
        raise CheckpointError(where, f"truncated: the header alone needs {8 + length} of its {len(data)} bytes", _FIX)
    try:
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
        if expected > len(data):
            raise CheckpointError(where, f"truncated: {len(data)} of {expected} bytes", _FIX)
        metadata = dict(header.get("__metadata__", {}))
        if metadata.pop(SEAL, None) is not None:
            _check_seal(data, length, where)
        return load(data), metadata
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(where, f"damaged safetensors file: {error}", _FIX) from None
