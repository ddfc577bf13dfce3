"""A run on disk: the recipe that made it, what it measured, and what came out."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from facekd import __version__
from facekd.engine.training.checkpoint import any_finished
from facekd.engine.training.snapshots import FOLDER as SNAPSHOTS
from facekd.engine.training.snapshots import MANIFEST, Manifest, clear_snapshots, read_manifest, rewind_snapshots
from facekd.errors import UsageError
from facekd.files import append_line, disk_errors, remove_unfinished, write_json, write_text
from facekd.models.uncertainty_file import UNCERTAINTY_FILE
from facekd.recipe import Recipe, changed_keys, load_recipe, recipe_yaml

PACKAGES = ("torch", "timm", "numpy", "opencv-python", "onnx", "onnxruntime", "safetensors", "pydantic")


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine and threads: the conditions under which a run can be repeated bit for bit."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "facekd": __version__,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "packages": versions,
        "device": str(device),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
    }


class RunFolder:
    """The files of one run.

    Args:
        path: The folder; made when absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.student = path / "student.safetensors"
        self.classifier = path / "classifier.safetensors"
        self.uncertainty = path / UNCERTAINTY_FILE
        self.metrics = path / "metrics.jsonl"

    def prepare(self, recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
        """Make the folder ready for ``recipe``, or refuse to mix two runs.

        Raises:
            UsageError: It holds a run and neither ``resume`` nor ``overwrite`` was asked for, or the recipe changed.
            DeviceError: The disk refused.
        """
        stored = self.path / "recipe.yaml"
        if stored.exists() and (overwrite or not (self.trained or resume)):
            self._clear()
        elif stored.exists() and not resume:
            raise UsageError(
                str(self.path), "already holds a run", "go on with --resume, or replace it with --overwrite"
            )
        elif stored.exists():
            changed = changed_keys(load_recipe(stored), recipe)
            if changed:
                what = f"the recipe changed since this run began: {', '.join(changed)}"
                raise UsageError(str(stored), what, "resume with the same recipe, or --overwrite")
        elif self.path.exists() and not all(map(_begun, self.path.iterdir())):
            raise UsageError(str(self.path), "is not empty and holds no run", "choose another --out")
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        write_text(stored, recipe_yaml(recipe))
        with disk_errors(self.path):
            self.checkpoints.mkdir(exist_ok=True)
            for folder in (self.path, self.checkpoints, self.path / SNAPSHOTS):
                remove_unfinished(folder)

    @property
    def trained(self) -> bool:
        """Whether anything would be lost with this folder: a run refused before its first checkpoint left nothing."""
        return self.student.exists() or any_finished(self.checkpoints)

    def _clear(self) -> None:
        self.uncertainty.unlink(missing_ok=True)
        for name in ("student.safetensors", "classifier.safetensors", "metrics.jsonl", "log.txt", "environment.json"):
            (self.path / name).unlink(missing_ok=True)
        for entry in self.checkpoints.glob("*"):
            entry.unlink()
        clear_snapshots(self.path)

    def record_environment(self, device: torch.device, facts: Mapping[str, Any]) -> None:
        """Write ``environment.json``: :func:`environment` and the digests the run rests on."""
        write_json(self.path / "environment.json", {**environment(device), **facts})

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one object to ``metrics.jsonl``."""
        append_line(self.metrics, json.dumps(record))

    def log(self, line: str) -> None:
        """Add one line to ``log.txt``."""
        append_line(self.path / "log.txt", line.rstrip())

    def snapshots(self, epochs: int) -> Manifest:
        """What was kept of the epochs so far.

        Args:
            epochs: Of the whole run.

        Raises:
            CheckpointError: The manifest is damaged.
        """
        path = self.path / MANIFEST
        return read_manifest(path) if path.exists() else Manifest(path, epochs)

    def rewind(self, step: int, evaluated: int) -> None:
        """Drop the records of what a resume at ``step`` will do again.

        Args:
            step: Steps the checkpoint had taken.
            evaluated: Step of the last evaluation it knew of.
        """
        rewind_snapshots(self.path, step)
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text(errors="replace").splitlines():
            try:
                record = json.loads(line)
                done = record["step"] <= (evaluated if "evaluation" in record else step)
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # torn by a kill, or rotten
            if done:
                kept.append(line)
        write_text(self.metrics, "".join(f"{line}\n" for line in kept))


def _begun(entry: Path) -> bool:
    """Whether an entry of a folder is what a run leaves that ended before its recipe was written."""
    return entry.name == ".lock" or entry.name.startswith("recipe.yaml.tmp.")
