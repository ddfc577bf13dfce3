"""What torch.save wrote, read without running anything: ``torch.load(weights_only=True)`` behind checks of its own."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from facekd.errors import CheckpointError

GIVE_STATE = "in the program that wrote it, save model.state_dict() as safetensors or with torch.save"
_COPY_AGAIN = "copy or download it again"
_GLOBAL = re.compile(r"GLOBAL\s+([\w.]*\w)(?!\.)\b")
_PLAIN_OBJECTS = re.compile(
    r"(?:numpy|pathlib|argparse|datetime|pytorch_lightning|lightning|lightning_fabric|omegaconf|easydict|yacs)\b"
)
_DEEPEST = 100


def decode(data: bytes, where: str) -> object:
    """The tree of a PyTorch file's bytes, on the CPU.

    Args:
        data: All of the file.
        where: Its name, for messages.

    Raises:
        CheckpointError: Truncated, no checkpoint, an archive no torch.save writes, one that asks for code to be run,
            or a tensor that is not stored value by value.
    """
    if data[:2] == b"PK":
        _check_archive(data, where)
    elif data[:1] != b"\x80":
        what = f"not a checkpoint (it begins with {data[:16]!r})"
        raise CheckpointError(where, what, "give .safetensors, .pt, .pth or .onnx")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch talks of its own plans, beside the one line of a refusal
            tree = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise _refusal(data, where, str(error)) from None
    for key, tensor in tensors_in(tree):
        _check_stored(tensor, key, where)
    return tree


def tensors_in(tree: object, key: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a tree of dicts, lists and tuples, by its dotted key.

    Example:
        >>> [key for key, _ in tensors_in({"a": [torch.ones(1), {"b": torch.ones(1)}], "c": 3})]
        ['a.0', 'a.1.b']
    """
    if isinstance(tree, Tensor):
        yield key, tree
    elif isinstance(tree, Mapping | list | tuple) and depth < _DEEPEST:
        for name, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            yield from tensors_in(value, f"{key}.{name}" if key else str(name), depth + 1)


def _check_stored(tensor: Tensor, key: str, where: str) -> None:
    """Refuse what takes more memory to look at than it has bytes in the file."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        kind = "quantized" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.")
        raise CheckpointError(where, f"{key} is no plain tensor ({kind})", "save model.state_dict() as it is")
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise CheckpointError(where, f"{key} stores fewer values than it claims", "save model.state_dict() again")


def _check_archive(data: bytes, where: str) -> None:
    """Refuse a zip that is cut, compressed, ambiguous, or a program."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        what = f"truncated: the end of its zip archive is missing ({len(data)} bytes)"
        raise CheckpointError(where, what, _COPY_AGAIN) from None
    names = [entry.filename for entry in entries]
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise CheckpointError(where, "a TorchScript archive, which is a program", GIVE_STATE)
    if any(name.startswith("/") or ".." in re.split(r"[/\\]", name) for name in names):
        raise CheckpointError(where, "its archive names files outside itself", GIVE_STATE)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(where, "its archive is compressed, which torch.save never does", GIVE_STATE)
    if len(set(names)) < len(names) or sum(entry.file_size for entry in entries) > len(data):
        raise CheckpointError(where, "its archive holds one entry twice", GIVE_STATE)
    if not any(name.endswith("data.pkl") for name in names):
        raise CheckpointError(where, "a zip archive but no checkpoint", "give .safetensors, .pt, .pth or .onnx")
    _check_sums(archive, entries, where)


def _check_sums(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], where: str) -> None:
    """Refuse flipped bits, which torch.load takes for weights; a file saved without checksums has zeros for them."""
    if not any(entry.CRC for entry in entries):
        return
    try:
        damaged = archive.testzip()
    except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, struct.error):
        damaged = "an entry"
    if damaged is not None:
        raise CheckpointError(where, f"damaged: {damaged} is not as its archive says it was saved", _COPY_AGAIN)


def _refusal(data: bytes, where: str, message: str) -> CheckpointError:
    named = _GLOBAL.search(message)
    if named and (b"_parameters" in data and b"_modules" in data):
        return CheckpointError(where, f"a whole nn.Module ({named[1]}), which is pickled code", GIVE_STATE)
    if named and _PLAIN_OBJECTS.match(named[1]):
        what = f"holds a {named[1]} beside its tensors, which only pickled code makes; nothing was run"
        convert = "torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pt')"
        return CheckpointError(where, what, f"if you trust it, where it was written: {convert}")
    if named:
        return CheckpointError(where, f"pickled code: asks for {named[1]}; nothing was run", GIVE_STATE)
    short = " ".join(message.split())[:160]
    return CheckpointError(where, f"truncated, damaged or no checkpoint: {short}", _COPY_AGAIN)
