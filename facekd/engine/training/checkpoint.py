"""Checkpoints that are whole, verified and free of pickles.

One checkpoint is one safetensors file whose metadata holds what is not a tensor; one line of ``checkpoints.jsonl``
records its digest. A file is trusted only when its digest is the recorded one; a damaged newest checkpoint is passed
over for the one before it, with a word about why.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facekd import __version__
from facekd.errors import CheckpointError, NonFiniteError
from facekd.files import append_line, disk_errors, remove_unfinished
from facekd.models import safetensors_file
from facekd.models.safetensors_file import Blocks

KEPT = 2
FORMAT = "facekd-checkpoint-1"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after ``step`` steps.

    Attributes:
        step: Steps taken.
        tensors: Every tensor of the run, by dotted name.
        facts: JSON values: digests, thread count, best figure so far.
        blocks: Tensors of which other processes hold a part; asked for as they are written, and read as any other.
    """

    step: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    blocks: Mapping[str, Blocks] = field(default_factory=dict)


def flatten(prefix: str, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a nested state, named by their path.

    Example:
        >>> list(flatten("optimizer", {"0": {"momentum": torch.zeros(1)}}))
        ['optimizer.0.momentum']
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            found |= flatten(f"{prefix}.{name}", value)
        elif isinstance(value, Tensor):
            found[f"{prefix}.{name}"] = value
    return found


def select(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries below ``prefix``, with it taken off.

    Example:
        >>> list(select("model", {"model.weight": torch.zeros(1), "ema.weight": torch.zeros(1)}))
        ['weight']
    """
    start = f"{prefix}."
    return {name[len(start) :]: tensor for name, tensor in tensors.items() if name.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer remembers, as ``optimizer.<parameter number>.<name>``."""
    return flatten("optimizer", {str(number): state for number, state in optimizer.state_dict()["state"].items()})


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer back what :func:`optimizer_tensors` took.

    What has the shape of its parameter is laid out in memory as that is: fused kernels walk through both as they lie.
    """
    whole = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {number: dict(held) for number, held in whole["state"].items()}
    for name, tensor in select("optimizer", tensors).items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({**whole, "state": state})
    for parameter, held in optimizer.state.items():
        for key, tensor in held.items():
            if tensor.shape == parameter.shape:
                held[key] = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)


def checkpoint_name(step: int) -> str:
    """The file of a step.

    Example:
        >>> checkpoint_name(7)
        'step-000000007.safetensors'
    """
    return f"step-{step:09d}.safetensors"


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint into ``folder``, record its digest, and remove all but the newest :data:`KEPT`.

    Raises:
        NonFiniteError: A tensor is not finite; earlier checkpoints stand.
        DeviceError: The disk refused; earlier checkpoints stand.
    """
    path = folder / checkpoint_name(checkpoint.step)
    for name, tensor in checkpoint.tensors.items():
        _require_finite(checkpoint.step, name, tensor)
    blocks = {
        name: replace(held, rows=partial(_finite_rows, checkpoint.step, name, held))
        for name, held in checkpoint.blocks.items()
    }
    facts = {"format": FORMAT, "step": checkpoint.step, "facekd": __version__, **checkpoint.facts}
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    digest = safetensors_file.write(path, {**checkpoint.tensors, **blocks}, {"facts": json.dumps(facts)})
    line = {"step": checkpoint.step, "file": path.name, "bytes": path.stat().st_size, "sha256": digest}
    append_line(folder / "checkpoints.jsonl", json.dumps(line), durable=True)
    _forget_others(folder, path)
    return path


def _require_finite(step: int, name: str, tensor: Tensor) -> None:
    """Losses and gradients are looked at in every step; this finds what reaches the state past them."""
    if not torch.isfinite(tensor).all():
        what = f"{name} is not finite; no checkpoint was written"
        fix = "go on with --resume from the one before, and a lower optimizer.learning_rate in a new run"
        raise NonFiniteError(f"step {step}", what, fix)


def _finite_rows(step: int, name: str, held: Blocks) -> Iterator[Tensor]:
    for rows in held.rows():
        _require_finite(step, name, rows)
        yield rows


def _recorded(folder: Path) -> dict[str, str]:
    """The newest digest of each checkpoint file; a torn or rotten line is not a record."""
    records: dict[str, str] = {}
    path = folder / "checkpoints.jsonl"
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
            records[record["file"]] = record["sha256"]
        except (ValueError, KeyError, TypeError):
            continue
    return records


def any_finished(folder: Path) -> bool:
    """Whether a run has a checkpoint behind it: not where its first one was cut off before its record was written."""
    return bool(_recorded(folder)) or len(list(folder.glob("step-*.safetensors"))) > 1


def _forget_others(folder: Path, newest: Path) -> None:
    """Keep ``newest`` and those just before it; a later one can only be one that a resume passed over."""
    earlier = sorted(path for path in folder.glob("step-*.safetensors") if path.name < newest.name)
    kept = {newest, *earlier[1 - KEPT :]}
    for path in set(folder.glob("step-*.safetensors")) - kept:
        path.unlink(missing_ok=True)
    remove_unfinished(folder)


def forget_newer(folder: Path, step: int) -> None:
    """Remove what a resume at ``step`` passed over, so that it takes no good one's place among those that are kept."""
    for path in folder.glob("step-*.safetensors"):
        if path.name > checkpoint_name(step):
            path.unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> tuple[Checkpoint, list[str]]:
    """The newest checkpoint whose digest is the recorded one.

    Returns:
        The checkpoint, and one line for each newer one that was passed over.

    Raises:
        CheckpointError: There is none that can be trusted; each rejected file is named. Or another release wrote it.
    """
    records, rejected = _recorded(folder), []
    for path in sorted(folder.glob("step-*.safetensors"), reverse=True):
        try:
            found = _read(path, records.get(path.name))
        except CheckpointError as error:
            rejected.append(f"{path.name}: {error.what}")
        else:
            _require_format(path, found)
            return found, [f"passed over {reason}" for reason in rejected]
    what = "; ".join(rejected) or "holds no checkpoint"
    raise CheckpointError(str(folder), what, "start again with --overwrite")


def _require_format(path: Path, found: Checkpoint) -> None:
    """Refuse what another release wrote: nothing is wrong with it, and the one before it would lose what it holds."""
    told = found.facts["format"]
    if told != FORMAT:
        what = (
            f"written by facekd {found.facts.get('facekd', '?')} in format {told}; this is {__version__}, of {FORMAT}"
        )
        raise CheckpointError(str(path), what, "use the release that wrote it")


def _read(path: Path, recorded: str | None) -> Checkpoint:
    """A checkpoint, if it is the file that was recorded; read once, so that what is checked is what is taken up."""
    where, fix = str(path), "start again with --overwrite"
    if recorded is None:
        raise CheckpointError(where, "its digest was never recorded", fix)
    if path.is_symlink() or not path.is_file():
        raise CheckpointError(where, "is not a plain file", fix)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(where, f"cannot be read: {error.strerror}", fix) from None
    if hashlib.sha256(data).hexdigest() != recorded:
        raise CheckpointError(where, "digest differs from the recorded one", fix)
    tensors, metadata = safetensors_file.decode(data, where)
    try:
        facts = json.loads(metadata.get("facts", "{}"))
        step, _ = int(facts["step"]), facts["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(where, "does not say which step of which run it is", fix) from None
    return Checkpoint(step, tensors, facts)
