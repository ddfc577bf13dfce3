"""A teacher that is another in every epoch: the snapshots of a run, for a student to follow step by step.

Boutros et al., "PocketNet", IEEE Access 2022, arXiv 2108.10710, call it multi-step distillation: what a student learns
early comes from a teacher that has not learnt much more itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from facekd.engine.training.snapshots import MANIFEST, Manifest, Snapshot, read_manifest
from facekd.errors import CheckpointError
from facekd.files import file_digest, value_digest
from facekd.models.embedder import Embedder, load_embedder
from facekd.recipe import Recipe
from facekd.recipe.sections import Teacher

ALTERED = "is not the file that was written (digest differs)"
COPY = "copy it again from the teacher's run"


def teacher_place(section: Teacher) -> Path:
    """The file or run folder of a recipe's teacher, whose classifier lies there; of snapshots, their run folder.

    Example:
        >>> teacher_place(Teacher(weights="run/snapshots.json", snapshots="aligned", view="same")).name
        'run'
    """
    path = Path(section.weights)
    return path.parent if section.snapshots is not None and path.suffix == ".json" else path


def teacher_manifest(section: Teacher) -> Manifest:
    """The manifest of a recipe's teacher, given by itself or as a run folder.

    Raises:
        CheckpointError: Missing or damaged.
    """
    path = Path(section.weights)
    return read_manifest(path if path.suffix == ".json" else path / MANIFEST)


def open_last(section: Teacher, device: str) -> Embedder:
    """Who stands for a whole series: the teacher after its last epoch, to which its classifier belongs.

    Raises:
        CheckpointError: No manifest, none in it, or a file that is not the one that was written.
    """
    manifest = teacher_manifest(section)
    if not manifest.snapshots:
        raise CheckpointError(str(manifest.path), "lists no snapshot", "let the teacher train an epoch first")
    return _opened(manifest, manifest.snapshots[-1], section, device)


def _opened(manifest: Manifest, snapshot: Snapshot, section: Teacher, device: str) -> Embedder:
    path = manifest.place(snapshot)
    opened = load_embedder(path, color=section.color, normalize=section.normalize, device=device)
    if opened.digest != snapshot.sha256:
        raise CheckpointError(str(path), ALTERED, COPY)
    return opened


def teacher_epoch(epoch: int, *, epochs: int, teacher_epochs: int, mapping: str) -> int:
    """The teacher's epoch that a student learns from: the epochs the snapshot has behind it.

    Args:
        epoch: Of the student, from 0.
        epochs: Of the student in all.
        teacher_epochs: Of the teacher in all.
        mapping: ``aligned`` or ``stretched``.

    Example:
        >>> [teacher_epoch(e, epochs=4, teacher_epochs=6, mapping="aligned") for e in range(4)]
        [1, 2, 3, 4]
        >>> [teacher_epoch(e, epochs=4, teacher_epochs=6, mapping="stretched") for e in range(4)]
        [2, 3, 5, 6]
    """
    return epoch + 1 if mapping == "aligned" else math.ceil((epoch + 1) * teacher_epochs / epochs)


def chosen_snapshots(manifest: Manifest, epochs: int, reached: int, mapping: str) -> list[Snapshot]:
    """The snapshot of every epoch of a student; where epochs of the teacher were left out, stretched takes the next.

    Args:
        manifest: The teacher's.
        epochs: Of the student in all.
        reached: Epochs it will begin.
        mapping: ``aligned`` or ``stretched``.

    Raises:
        CheckpointError: An epoch has none.
    """
    found = []
    for epoch in range(reached):
        wanted = teacher_epoch(epoch, epochs=epochs, teacher_epochs=manifest.epochs, mapping=mapping)
        later = [one for one in manifest.snapshots if one.epoch >= wanted]
        if not later or (mapping == "aligned" and later[0].epoch != wanted):
            what = f"no snapshot of the teacher's epoch {wanted} for the student's epoch {epoch + 1}"
            fix = "let the teacher finish, or write teacher.snapshots: stretched or fewer train.epochs"
            raise CheckpointError(str(manifest.path), f"{what}; it lists {manifest.told()}", fix)
        found.append(later[0])
    return found


@dataclass
class Series:
    """The snapshots a student learns from, one an epoch; one at a time is held.

    Attributes:
        manifest: The teacher's.
        snapshots: Of every epoch of the student.
        section: The teacher of the recipe.
        device: Where they run.
        held: The epoch and network in use.
    """

    manifest: Manifest
    snapshots: Sequence[Snapshot]
    section: Teacher
    device: str
    held: tuple[str, Embedder] | None = field(default=None, repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the order of files."""
        return value_digest([snapshot.sha256 for snapshot in self.snapshots])

    def told(self) -> str:
        """One line of news."""
        epochs = ", ".join(str(snapshot.epoch) for snapshot in self.snapshots)
        return (
            f"teacher: after its epochs {epochs}, one for each of the student's; live. Its classifier is the last one's"
        )

    def check(self) -> None:
        """Refuse before the first step what would fail in a later epoch.

        Raises:
            CheckpointError: A file is missing or not the one that was written, or embeddings differ in width.
        """
        for snapshot in dict.fromkeys(self.snapshots):
            path = self.manifest.place(snapshot)
            if not path.is_file():
                raise CheckpointError(str(path), "no such file", COPY)
            if file_digest(path) != snapshot.sha256:
                raise CheckpointError(str(path), ALTERED, COPY)
        sizes = {snapshot.embedding_size for snapshot in self.snapshots}
        if len(sizes) > 1:
            what = f"its snapshots have embeddings of {' and '.join(map(str, sorted(sizes)))} values"
            raise CheckpointError(str(self.manifest.path), what, "give those of one run")

    def at(self, epoch: int) -> Embedder:
        """The teacher of a 0-based epoch of the student; opening it draws no random number of the caller's.

        Raises:
            CheckpointError: Its file is missing, damaged or another than at the start of the run.
        """
        snapshot = self.snapshots[epoch]
        if self.held is None or self.held[0] != snapshot.sha256:
            self.held = None
            with torch.random.fork_rng(devices=[]):
                self.held = snapshot.sha256, _opened(self.manifest, snapshot, self.section, self.device)
        return self.held[1]


def open_series(recipe: Recipe, reached: int, device: str) -> Series | None:
    """The snapshots a recipe's student will learn from, each proved to be there; None where it has one teacher.

    Args:
        recipe: What to do.
        reached: Epochs the student will begin.
        device: Where the teacher runs.

    Raises:
        CheckpointError: No manifest, an epoch without a snapshot, or a file that is missing or altered.
    """
    section = recipe.teacher
    if section is None or section.snapshots is None:
        return None
    manifest = teacher_manifest(section)
    chosen = chosen_snapshots(manifest, recipe.train.epochs, reached, section.snapshots)
    series = Series(manifest, chosen, section, device)
    series.check()
    return series
