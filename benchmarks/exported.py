"""Exports to be broken: the student of an arena, written as an ONNX file by a forked child."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import torch

from benchmarks.arena import Arena, Prepare, end_well, log_of
from benchmarks.killing import Trap, arm, fork
from facekd.engine.export.exporter import export_onnx
from facekd.engine.export.form import Form
from facekd.files import file_digest
from facekd.models.embedder import load_embedder


class Exports:
    """What an arena is to runs, to exports of its student.

    Args:
        arena: A whole run.
    """

    def __init__(self, arena: Arena) -> None:
        self.folder, self.student = arena.folder, arena.whole
        whole, told = self.new_run(), arena.folder / "export-events.json"
        trap = Trap(str(whole.parent))
        end_well(self.begin(whole, lambda: arm(trap), lambda: told.write_text(json.dumps(trap.events))), log_of(whole))
        self.events, self.bits = json.loads(told.read_text()), self.bits_of(whole)
        shutil.rmtree(whole.parent)

    def bits_of(self, out: Path) -> str:
        """The file's digest."""
        return file_digest(out)

    def new_run(self) -> Path:
        """Where another file may go."""
        return Path(tempfile.mkdtemp(dir=self.folder, prefix="export-")) / "a.onnx"

    def begin(self, out: Path, prepare: Prepare | None = None, after: Prepare | None = None) -> int:
        """Export, over what is there; the process number."""

        def run() -> None:
            torch.set_num_threads(1)
            if prepare is not None:
                prepare()
            export_onnx(load_embedder(self.student), out, Form(batch=1), opencv=False, force=out.exists())
            if after is not None:
                after()

        return fork(run, log_of(out))
