"""Weights in and out of files: written atomically, read without running anything a file contains."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from facekd import __version__
from facekd.errors import CheckpointError, NonFiniteError
from facekd.files import file_digest
from facekd.models import safetensors_file, torch_file
from facekd.models.dialect_structure import structure_of
from facekd.models.dialect_unwrap import unwrap
from facekd.models.key_table import compare_keys, summary
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
    "require_same_keys",
    "save_classifier",
    "save_model",
]

MODEL_FORMAT = "facekd-model-1"
CLASSIFIER_FORMAT = "facekd-classifier-1"
_SAME_BACKBONE = "give weights of the same backbone and embedding size"


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
        embedding_size: Width of the embedding it gives.
        options: The options it was built with.
        preprocessing: What it expects of its images.
        extra: More strings for the metadata: digests, licences, composition.

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
    return safetensors_file.write_sealed(Path(path), state, metadata)


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
    return safetensors_file.write_sealed(Path(path), state, metadata)


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
    """Tensors and metadata of a ``.safetensors`` file or one of PyTorch, on the CPU.

    PyTorch files are read by ``torch.load(weights_only=True)`` alone and have no metadata. Containers and prefixes of
    wrappers are taken off foreign files (see `dialect_unwrap.unwrap`).

    Raises:
        CheckpointError: Missing, empty, truncated, no checkpoint, several networks, or one that asks for code to be
            run.
    """
    tree, metadata = decode(read_bytes(Path(path)), Path(path))
    if "format" in metadata and isinstance(tree, dict):
        return tree, metadata
    return unwrap(tree, str(path)).state, metadata


def load_checkpoint(path: Path) -> object:
    """The whole tree of a checkpoint, on the CPU: dicts, lists, numbers and tensors as they were saved.

    Nothing is taken off it and nothing in it is run; a ``.safetensors`` file is a flat dict.

    Raises:
        CheckpointError: Missing, empty, truncated, no checkpoint, or one that asks for code to be run.
    """
    return decode(read_bytes(path), path)[0]


def decode(data: bytes, path: Path) -> tuple[object, dict[str, str]]:
    """`load_checkpoint` and the file's metadata, from bytes already read; the suffix of ``path`` tells their format."""
    if path.suffix == ".safetensors":
        return safetensors_file.decode(data, str(path))
    return torch_file.decode(data, str(path)), {}


def load_weights(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Fill a backbone with exactly its own tensors.

    A missing ``num_batches_tracked`` is no loss and passes; half and bfloat16 are widened, which is exact.

    Raises:
        CheckpointError: Missing, unexpected, misshapen, or of a type that would lose values.
        NonFiniteError: A value is NaN or infinite.
    """
    require_same_keys(module, state, where)
    own = module.state_dict()
    for key, tensor in state.items():
        exact = (own[key].dtype, torch.float16, torch.bfloat16) if own[key].is_floating_point() else (own[key].dtype,)
        if tensor.dtype not in exact:
            raise CheckpointError(where, f"{key} is {tensor.dtype}, not {own[key].dtype}", "save it in that type")
        if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise CheckpointError(where, f"{key} stores fewer values than it claims", "save model.state_dict() again")
    check_finite(state, where)
    module.load_state_dict(dict(state), strict=False)


def load_fitting_weights(module: nn.Module, state: Mapping[str, Tensor], where: str) -> str:
    """Fill a backbone with the tensors that are its own by name and shape, and leave the others as they are.

    Returns:
        How many were taken, of how many it has.

    Raises:
        CheckpointError: None fits, or one is of a type that would lose values.
        NonFiniteError: A value taken is NaN or infinite.
    """
    own = module.state_dict()
    taken = {key: tensor for key, tensor in state.items() if key in own and tensor.shape == own[key].shape}
    if not taken:
        raise CheckpointError(where, f"none of its {len(state)} tensors is one of the backbone's", _SAME_BACKBONE)
    load_weights(module, {**own, **taken}, where)
    return f"loaded {len(taken)} of {len(own)} tensors of {where}; the others are drawn"


def require_same_keys(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Refuse a state dict whose keys and shapes are not the backbone's; no value is looked at.

    Raises:
        CheckpointError: Counts what is missing, unexpected or misshapen, and names both backbones where they are two.
    """
    own = module.state_dict()
    differences = compare_keys(own, state)
    if differences:
        raise CheckpointError(where, summary(differences) + _told_apart(own, state), _SAME_BACKBONE)


def _told_apart(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Both backbones by name, where they are two."""
    wanted, found = structure_of(own), structure_of(state)
    if wanted is None or found is None or wanted.title == found.title:
        return ""
    return f"; its tensors are those of {found.title}, not {wanted.title}"
