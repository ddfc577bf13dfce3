"""safetensors files whose bytes depend on nothing but their content, and which carry their own digest where asked to.

The library writes its metadata in an order that differs from process to process, so equal models would get different
digests; here the header is sorted. The format has no checksum: a model's metadata holds, as :data:`SEAL`, the SHA-256
of the file's bytes with 64 zeros in its place, so that no flipped bit of weights or header is taken for the model.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from facekd.errors import CheckpointError
from facekd.files import write_atomic

SEAL = "facekd.seal"
_MAX_HEADER = 100_000_000
_BLANK = b"0" * 64
_BEFORE = f'"{SEAL}":"'.encode()
_FIX = "copy or download it again"


@dataclass(frozen=True)
class Blocks:
    """A tensor that is at hand some rows at a time.

    Attributes:
        shape: Of all of it.
        dtype: Of its elements.
        rows: Gives it in pieces, first rows first; it may be asked more than once.

    Example:
        >>> torch.cat(list(Blocks((2, 3), torch.float32, lambda: iter(torch.ones(2, 3).split(1))).rows())).shape
        torch.Size([2, 3])
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    rows: Callable[[], Iterator[Tensor]]


Held = Tensor | Blocks


def encode(tensors: Mapping[str, Held], metadata: Mapping[str, str]) -> bytes:
    """The file's bytes: equal content, equal bytes.

    Example:
        >>> a, b = torch.zeros(1), torch.ones(1)
        >>> encode({"a": a, "b": b}, {"x": "1", "y": "2"}) == encode({"b": b, "a": a}, {"y": "2", "x": "1"})
        True
    """
    head, names = _head(tensors, metadata)
    return b"".join((head, *_body(tensors, names)))


def _head(tensors: Mapping[str, Held], metadata: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """The header with its length before it, and the tensors in the order of the file.

    The library says in which order and under which names of types; it is given no elements.
    """
    from safetensors.torch import save

    plain = save({name: torch.empty(0, dtype=tensor.dtype) for name, tensor in tensors.items()})
    header = json.loads(plain[8 : 8 + struct.unpack("<Q", plain[:8])[0]])
    end = 0
    for name, entry in header.items():
        start, end = end, end + math.prod(tensors[name].shape) * tensors[name].dtype.itemsize
        entry |= {"shape": list(tensors[name].shape), "data_offsets": [start, end]}
    ordered = {"__metadata__": {key: str(metadata[key]) for key in sorted(metadata)}} | header
    text = json.dumps(ordered, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, list(header)


def _body(tensors: Mapping[str, Held], names: Iterable[str]) -> Iterator[memoryview]:
    for name in names:
        held = tensors[name]
        for piece in held.rows() if isinstance(held, Blocks) else (held,):
            yield piece.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def write(path: Path, tensors: Mapping[str, Held], metadata: Mapping[str, str]) -> str:
    """Write atomically, and never hold more than one piece of one tensor beside the tensors.

    Returns:
        SHA-256 of the file, in hex.

    Raises:
        DeviceError: The disk refused; a file that was there before stands.
    """
    head, names = _head(tensors, metadata)
    return _written(path, head, _body(tensors, names))


def write_sealed(path: Path, tensors: Mapping[str, Held], metadata: Mapping[str, str]) -> str:
    """:func:`write` of a file that carries its own digest, for those whose digest nobody else may have recorded."""
    head, names = _head(tensors, {**metadata, SEAL: _BLANK.decode()})
    start = head.index(_BEFORE) + len(_BEFORE)
    seal = _seal_of(head, start, _body(tensors, names))
    return _written(path, head[:start] + seal + head[start + len(_BLANK) :], _body(tensors, names))


def _written(path: Path, head: bytes, body: Iterable[memoryview]) -> str:
    def fill(temporary: Path) -> None:
        with open(temporary, "wb") as stream:
            stream.write(head)
            for piece in body:
                stream.write(piece)

    return write_atomic(path, fill)


def _seal_of(head: bytes, start: int, body: Iterable[memoryview]) -> bytes:
    """The digest that belongs at ``start``."""
    digest = hashlib.sha256(head[:start] + _BLANK + head[start + len(_BLANK) :])
    for piece in body:
        digest.update(piece)
    return digest.hexdigest().encode()


def _check_seal(data: bytes, length: int, where: str) -> None:
    head = data[: 8 + length]
    start = head.find(_BEFORE) + len(_BEFORE)
    found = head[start : start + len(_BLANK)] if start >= len(_BEFORE) else b""
    if found != _seal_of(head, start, [memoryview(data)[8 + length :]]):
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
