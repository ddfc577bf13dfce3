"""Weights in and out of files: written atomically, read without running anything a file contains."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from facekd import __version__
from facekd.errors import CheckpointError, NonFiniteError
from facekd.files import file_digest
from facekd.models import dialects, safetensors_file
from facekd.models.preprocessing import Preprocessing

__all__ = [
    "check_finite",
    "decode",
    "file_digest",
    "load_checkpoint",
    "load_classifier",
    "load_weights",
    "read_bytes",
    "read_classifier",
    "read_state",
    "save_classifier",
    "save_model",
]

MODEL_FORMAT = "facekd-model-1"
CLASSIFIER_FORMAT = "facekd-classifier-1"
_GIVE_STATE = "in the program that wrote it, save model.state_dict() as safetensors or with torch.save"
_GLOBAL = re.compile(r"GLOBAL\s+([\w.]*\w)(?!\.)\b")


def save_model(
    path: Path,
    module: nn.Module,
    *,
    backbone: str,
    embedding_size: int,
    options: Mapping[str, object],
    preprocessing: Preprocessing,
    extra: Mapping[str, str],
) -> str:
    """Write a backbone as a self-describing safetensors file, atomically; equal models give equal bytes.

    Args:
        path: The file; its folder must exist.
        module: The backbone; all of its state dict is stored.
        backbone: The name `build_backbone` knows it by.
        embedding_size: Width of the embedding.
        options: The options it was built with.
        preprocessing: What it expects of its images.
        extra: More strings for the metadata: digests, licences.

    Returns:
        SHA-256 of the file, in hex.

    Raises:
        NonFiniteError: A weight is NaN or infinite; nothing is written.
        DeviceError: The disk refused; a file that was there before stands.
    """
    state = module.state_dict()
    check_finite(state, str(path))
    metadata = {
        "facekd_version": __version__,
        **extra,
        "format": MODEL_FORMAT,
        "backbone": backbone,
        "options": json.dumps(dict(options), sort_keys=True),
        "embedding_size": str(embedding_size),
        **preprocessing.to_metadata(),
    }
    return safetensors_file.write(Path(path), state, metadata)


def check_finite(state: Mapping[str, Tensor], where: str) -> None:
    """Refuse NaN and infinity by name.

    Raises:
        NonFiniteError: Names the first tensor and counts its bad values.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            raise NonFiniteError(where, f"{name}: {bad} non-finite values", "take an earlier checkpoint")


def save_classifier(
    path: Path, class_weights: Tensor, class_names: Sequence[str], source: str, *, teacher_digest: str = ""
) -> str:
    """Write class weights with the identity each row stands for.

    Args:
        path: Usually ``classifier.safetensors`` in a run folder.
        class_weights: (classes, dim).
        class_names: Identity names in row order.
        source: Where the rows come from, in words.
        teacher_digest: SHA-256 of the model file they were proved to fit, where there is one.

    Returns:
        SHA-256 of the file, in hex.

    Raises:
        ValueError: Not one name a row.
        NonFiniteError: A weight is NaN or infinite.
    """
    if len(class_names) != len(class_weights):
        raise ValueError(f"{len(class_names)} names for {len(class_weights)} class weights")
    state = {"class_weights": class_weights}
    check_finite(state, str(path))
    metadata = {"format": CLASSIFIER_FORMAT, "class_names": json.dumps(list(class_names)), "source": source}
    if teacher_digest:
        metadata["teacher_digest"] = teacher_digest
    return safetensors_file.write(Path(path), state, metadata)


def load_classifier(path: Path) -> tuple[Tensor, list[str], str]:
    """The inverse of `save_classifier`: class weights (classes, dim), names, source.

    Raises:
        CheckpointError: Missing, damaged, or no classifier of ours.
        NonFiniteError: A weight is NaN or infinite.
    """
    class_weights, names, metadata = read_classifier(path)
    return class_weights, names, metadata.get("source", "")


def read_classifier(path: Path) -> tuple[Tensor, list[str], dict[str, str]]:
    """`load_classifier` with all of the file's metadata in place of its source."""
    tensors, metadata = read_state(path)
    found = metadata.get("format")
    if found != CLASSIFIER_FORMAT or set(tensors) != {"class_weights"}:
        what = f"format is {found}, not {CLASSIFIER_FORMAT}"
        raise CheckpointError(str(path), what, "give a run's classifier.safetensors")
    check_finite(tensors, str(path))
    class_weights, names = tensors["class_weights"], json.loads(metadata["class_names"])
    if class_weights.dim() != 2 or len(names) != len(class_weights):
        raise CheckpointError(str(path), f"{len(names)} names for class weights {tuple(class_weights.shape)}")
    return class_weights, names, metadata


def read_bytes(path: Path) -> bytes:
    """A model file's bytes, read once, so that what was checked is what is used.

    Raises:
        CheckpointError: Missing, a folder, unreadable or empty.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(str(path), f"cannot be read: {error.strerror or error}") from None
    if not data:
        raise CheckpointError(str(path), "empty file", "copy or download it again")
    return data


def read_state(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a ``.safetensors``, ``.pt`` or ``.pth`` file, on the CPU.

    PyTorch files are read by ``torch.load(weights_only=True)`` alone and have no metadata. Containers and prefixes of
    wrappers are taken off foreign files (see `dialects.unwrap`).

    Raises:
        CheckpointError: Missing, empty, truncated, no checkpoint, or one that asks for code to be run.
    """
    return decode(read_bytes(Path(path)), Path(path))


def decode(data: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """`read_state` of bytes already read; the suffix of ``path`` tells their format."""
    where = str(path)
    if path.suffix != ".safetensors":
        return dialects.unwrap(_torch_load(data, where), where), {}
    state, metadata = safetensors_file.decode(data, where)
    return (state if "format" in metadata else dialects.unwrap(state, where)), metadata


def load_checkpoint(path: Path) -> object:
    """The whole tree of a checkpoint, on the CPU: dicts, lists, numbers and tensors as they were saved.

    Nothing is taken off it and nothing in it is run; a ``.safetensors`` file is a flat dict.

    Raises:
        CheckpointError: Missing, empty, truncated, no checkpoint, or one that asks for code to be run.
    """
    data, where = read_bytes(path), str(path)
    return safetensors_file.decode(data, where)[0] if path.suffix == ".safetensors" else _torch_load(data, where)


def _torch_load(data: bytes, where: str) -> object:
    if data[:2] == b"PK":
        _check_archive(data, where)
    elif data[:1] != b"\x80":
        what = f"not a checkpoint (it begins with {data[:16]!r})"
        raise CheckpointError(where, what, "give .safetensors, .pt, .pth or .onnx")
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise _refusal(data, where, str(error)) from None


def _check_archive(data: bytes, where: str) -> None:
    """Refuse a zip that is cut, compressed, ambiguous, or a program."""
    try:
        entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        what = f"truncated: the end of its zip archive is missing ({len(data)} bytes)"
        raise CheckpointError(where, what, "copy or download it again") from None
    names = [entry.filename for entry in entries]
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise CheckpointError(where, "a TorchScript archive, which is a program", _GIVE_STATE)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(where, "its archive is compressed, which torch.save never does", _GIVE_STATE)
    if len(set(names)) < len(names) or sum(entry.file_size for entry in entries) > len(data):
        raise CheckpointError(where, "its archive holds one entry twice", _GIVE_STATE)
    if not any(name.endswith("data.pkl") for name in names):
        raise CheckpointError(where, "a zip archive but no checkpoint", "give .safetensors, .pt, .pth or .onnx")


def _refusal(data: bytes, where: str, message: str) -> CheckpointError:
    named = _GLOBAL.search(message)
    if named and (b"_parameters" in data and b"_modules" in data):
        return CheckpointError(where, f"a whole nn.Module ({named[1]}), which is pickled code", _GIVE_STATE)
    if named:
        return CheckpointError(where, f"pickled code: asks for {named[1]}; nothing was run", _GIVE_STATE)
    short = " ".join(message.split())[:160]
    return CheckpointError(where, f"truncated, damaged or no checkpoint: {short}", "copy or download it again")


def load_weights(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Fill a backbone with exactly its own tensors.

    A missing ``num_batches_tracked`` is no loss and passes; half and bfloat16 are widened, which is exact.

    Raises:
        CheckpointError: Missing, unexpected, misshapen, or of a type that would lose values.
        NonFiniteError: A value is NaN or infinite.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    misshapen = [
        f"{k} is {tuple(state[k].shape)}, not {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    problems = [
        f"{len(found)} {kind} tensors: {', '.join(found[:3])}{' ...' if len(found) > 3 else ''}"
        for kind, found in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if found
    ]
    if problems:
        raise CheckpointError(where, "; ".join(problems), "give weights of the same backbone and embedding size")
    for key, tensor in state.items():
        exact = (own[key].dtype, torch.float16, torch.bfloat16) if own[key].is_floating_point() else (own[key].dtype,)
        if tensor.dtype not in exact:
            raise CheckpointError(where, f"{key} is {tensor.dtype}, not {own[key].dtype}", "save it in that type")
        if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise CheckpointError(where, f"{key} stores fewer values than it claims", "save model.state_dict() again")
    check_finite(state, where)
    module.load_state_dict(dict(state), strict=False)
