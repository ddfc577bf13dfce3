"""The variance head of a student in a file of its own: it is no part of what is exported."""

from __future__ import annotations

from pathlib import Path

import torch

from facekd.errors import CheckpointError
from facekd.models import safetensors_file
from facekd.models.heads import VarianceHead
from facekd.models.weights import check_finite, load_weights, read_state

UNCERTAINTY_FORMAT = "facekd-uncertainty-1"
UNCERTAINTY_FILE = "uncertainty.safetensors"


def save_head(path: Path, head: VarianceHead, *, student_digest: str, loss: str) -> str:
    """Write a head with the digest of the student file it reads the embeddings of.

    Args:
        path: Usually ``uncertainty.safetensors`` in a run folder.
        head: Its whole state is stored.
        student_digest: SHA-256 of the student's file.
        loss: The loss that trained it.

    Returns:
        SHA-256 of the file, in hex.

    Raises:
        NonFiniteError: A value is NaN or infinite; nothing is written.
        DeviceError: The disk refused.
    """
    state = head.state_dict()
    check_finite(state, str(path))
    metadata = {
        "format": UNCERTAINTY_FORMAT,
        "student_digest": student_digest,
        "loss": loss,
        "embedding_size": str(head.embedding_size),
        "outputs": str(head.outputs),
        "head": head.kind,
    }
    return safetensors_file.write_sealed(path, state, metadata)


def load_head(path: Path, student_digest: str) -> VarianceHead:
    """The inverse of `save_head`, in evaluation mode.

    Args:
        path: The file.
        student_digest: SHA-256 of the student's file it is to be used with.

    Raises:
        CheckpointError: Missing, damaged, no head of ours, or that of another student.
        NonFiniteError: A value is NaN or infinite.
    """
    tensors, metadata = read_state(path)
    if metadata.get("format") != UNCERTAINTY_FORMAT:
        what = f"format is {metadata.get('format')}, not {UNCERTAINTY_FORMAT}"
        raise CheckpointError(str(path), what, f"give a run's {UNCERTAINTY_FILE}")
    if metadata.get("student_digest") != student_digest:
        what = "belongs to another student than the file beside it"
        raise CheckpointError(str(path), what, "keep both files of one run together")
    try:
        with torch.random.fork_rng(devices=[]):
            head = VarianceHead(int(metadata["embedding_size"]), int(metadata["outputs"]), metadata["head"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(str(path), f"its metadata cannot be read: {error}", "train the run again") from None
    load_weights(head, tensors, str(path))
    return head.eval().requires_grad_(False)
