"""A run's weights after each of its epochs: the files, and the manifest that says which and proves each.

``snapshots.json`` in a run folder lists them by epoch with their digests; a file it does not list was never finished.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from facekd import __version__
from facekd.errors import CheckpointError
from facekd.files import disk_errors, write_json

FORMAT = "facekd-snapshots-1"
MANIFEST = "snapshots.json"
FOLDER = "snapshots"


@dataclass(frozen=True)
class Snapshot:
    """One entry of a manifest.

    Attributes:
        epoch: Epochs the weights have behind them, from 1.
        step: Steps, likewise.
        file: Name of the file in the folder ``snapshots`` beside the manifest.
        sha256: Its digest, in hex.
        embedding_size: Width of the embedding.
    """

    epoch: int
    step: int
    file: str
    sha256: str
    embedding_size: int


@dataclass(frozen=True)
class Manifest:
    """The snapshots of a run.

    Attributes:
        path: The file.
        epochs: Epochs the run has when it is finished.
        snapshots: By rising epoch.
    """

    path: Path
    epochs: int
    snapshots: tuple[Snapshot, ...] = ()

    def place(self, snapshot: Snapshot) -> Path:
        """The file of one of its snapshots."""
        return self.path.parent / FOLDER / snapshot.file

    def at(self, epoch: int) -> Snapshot | None:
        """The snapshot after so many epochs, where there is one."""
        return next((snapshot for snapshot in self.snapshots if snapshot.epoch == epoch), None)

    def told(self) -> str:
        """Its epochs in words."""
        return ", ".join(str(snapshot.epoch) for snapshot in self.snapshots) or "none"


def snapshot_file(epoch: int) -> str:
    """The name of a snapshot.

    Example:
        >>> snapshot_file(3)
        'epoch-003.safetensors'
    """
    return f"epoch-{epoch:03d}.safetensors"


def is_due(step: int, *, steps_per_epoch: int, epochs: int, every: int | None) -> bool:
    """Whether a snapshot belongs to a step: after every ``every`` epochs, and after the last.

    Example:
        >>> [step for step in range(11) if is_due(step, steps_per_epoch=2, epochs=5, every=2)]
        [4, 8, 10]
    """
    epoch, rest = divmod(step, steps_per_epoch)
    return every is not None and step > 0 and rest == 0 and (epoch % every == 0 or epoch == epochs)


def read_manifest(path: Path) -> Manifest:
    """The manifest at ``path``.

    Raises:
        CheckpointError: Missing, not a manifest of this format, or one that names files elsewhere.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        fix = "train the teacher with train.snapshot_every: 1"
        raise CheckpointError(str(path), "no such file", fix) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(str(path), f"cannot be read: {error}", "copy it again") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        held = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise CheckpointError(str(path), f"format is {held}, not {FORMAT}", f"give a run's {MANIFEST}")
    try:
        return Manifest(path, _whole(found["epochs"]), _entries(found["snapshots"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(str(path), f"is not a manifest of snapshots: {error}", "copy it again") from None


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no number of epochs, steps or dimensions")
    return value


def _entries(listed: Sequence[dict[str, Any]]) -> tuple[Snapshot, ...]:
    found = []
    for entry in listed:
        epoch = _whole(entry["epoch"])
        if entry["file"] != snapshot_file(epoch) or not isinstance(entry["sha256"], str):
            raise ValueError(f"epoch {epoch} names {entry['file']!r}")
        sizes = _whole(entry["step"]), _whole(entry["embedding_size"])
        found.append(Snapshot(epoch, sizes[0], entry["file"], entry["sha256"], sizes[1]))
    epochs = [snapshot.epoch for snapshot in found]
    if epochs != sorted(set(epochs)):
        raise ValueError("its epochs do not rise")
    return tuple(found)


def write_manifest(manifest: Manifest) -> None:
    """Write a manifest, whole.

    Raises:
        DeviceError: The disk refused; the old one stands.
    """
    entries = [asdict(snapshot) for snapshot in manifest.snapshots]
    held = {"format": FORMAT, "facekd": __version__, "epochs": manifest.epochs, "snapshots": entries}
    write_json(manifest.path, held)


def add_snapshot(manifest: Manifest, snapshot: Snapshot) -> Manifest:
    """A manifest with one more snapshot at its end, written.

    Raises:
        DeviceError: The disk refused; the old one stands.
    """
    longer = Manifest(manifest.path, manifest.epochs, (*manifest.snapshots, snapshot))
    write_manifest(longer)
    return longer


def rewind_snapshots(folder: Path, step: int) -> None:
    """Drop the snapshots of a run folder that a resume at ``step`` will write again.

    Raises:
        CheckpointError: The manifest is damaged.
        DeviceError: The disk refused.
    """
    path = folder / MANIFEST
    if not path.exists():
        return
    held = read_manifest(path)
    kept = tuple(snapshot for snapshot in held.snapshots if snapshot.step <= step)
    if len(kept) == len(held.snapshots):
        return
    write_manifest(Manifest(path, held.epochs, kept))
    with disk_errors(folder):
        for snapshot in held.snapshots[len(kept) :]:
            held.place(snapshot).unlink(missing_ok=True)


def clear_snapshots(folder: Path) -> None:
    """Remove a run's snapshots and their manifest."""
    (folder / MANIFEST).unlink(missing_ok=True)
    for entry in (folder / FOLDER).glob("epoch-*"):
        entry.unlink()
