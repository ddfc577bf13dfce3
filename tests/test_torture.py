"""Runs that are killed, starved of disk or damaged end with the bits of one that was not; a part of ``make torture``.

The parts that train in forked children need Linux and no accelerator: there a process that used one cannot fork.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import kill_trials, torture
from benchmarks.kill_trials import Arena
from benchmarks.killing import CRASHED, Trap, ended, fork
from benchmarks.torture_table import torture as table
from facekd.errors import DeviceError

forks = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="children are forked"),
]


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    yield Arena(tmp_path_factory.mktemp("torture"))


BREAKS = {
    "swept": lambda arena: kill_trials.swept(arena, 9),
    "five-times": lambda arena: kill_trials.killed_often(arena, 1, 5),
    "starved": lambda arena: kill_trials.starved(arena, 4),
    "terminated": lambda arena: kill_trials.sent(arena, signal.SIGTERM, 2),
    "two-workers": lambda arena: kill_trials.sent(arena.with_workers(2), signal.SIGKILL, 2),
    "rotten": lambda arena: kill_trials.damaged(arena, 300, 30),
}


class TestRuns:
    pytestmark = forks

    def test_the_unbroken_run_has_events_of_every_kind_and_still_learns(self, arena: Arena) -> None:
        assert len(arena.kinds) >= 8 and arena.events > 200 and arena.bytes > 100_000
        run = arena.folder / "whole" / "run"
        assert len(set(kill_trials.losses(run))) == 12
        before, after = (load_file(path) for path in sorted((run / "checkpoints").glob("step-*.safetensors"))[-2:])
        moved = [float((after[name] - before[name]).abs().max()) for name in after if name.startswith("student.linear")]
        assert moved and min(moved) > 1e-3, "a run that no longer learns ends alike whatever is lost"

    @pytest.mark.parametrize("how", BREAKS)
    def test_a_broken_run_ends_with_the_same_bits(self, arena: Arena, how: str) -> None:
        found = BREAKS[how](arena)
        assert found.wrong == [] and found.identical == found.trials > 0

    def test_negative_control__a_forgotten_optimizer_is_seen(self, arena: Arena) -> None:
        found = kill_trials.control(arena, kill_trials.forgets_the_optimizer, 3)
        assert any("other bits" in told for told in found.wrong)

    def test_negative_control__a_checkpoint_written_in_place_cannot_be_resumed(self, arena: Arena) -> None:
        found = kill_trials.control(arena, kill_trials.writes_in_place, 6)
        assert any("could not be resumed" in told for told in found.wrong)


@pytest.mark.skipif(sys.platform != "linux", reason="children are forked")
@pytest.mark.parametrize(("error", "code"), [(DeviceError("a", "b"), 5), (ValueError("x"), CRASHED), (None, 0)])
def test_a_child_ends_with_the_code_of_its_error(error: Exception | None, code: int, tmp_path: Path) -> None:
    def run() -> None:
        if error:
            raise error

    assert ended(fork(run, tmp_path / "log")) == code


@pytest.mark.skipif(sys.platform != "linux", reason="children are forked")
def test_a_child_dies_at_its_event(tmp_path: Path) -> None:
    def run() -> None:
        trap = Trap(str(tmp_path), at=2)
        for _ in range(3):
            trap.event("step")

    assert ended(fork(run, tmp_path / "log")) == -signal.SIGKILL


RECORD = {
    "scale": 0.5,
    "seconds": 61,
    "runs": [
        {"what": "killed", "trials": 3, "identical": 3, "control": False, "wrong": []},
        {"what": "in place", "trials": 3, "identical": 2, "control": True, "wrong": ["x"]},
    ],
    "files": [{"reader": "png", "read": 2, "refused": 1000, "findings": []}],
}


def test_a_record_fails_where_a_trial_differs_a_control_does_not_or_a_file_is_found() -> None:
    killed, control = RECORD["runs"]
    assert torture.failed(RECORD) == []
    assert torture.failed(RECORD | {"runs": [killed | {"identical": 2}, control | {"identical": 3}]}) == [
        "killed",
        "in place",
    ]
    assert torture.failed(RECORD | {"files": [RECORD["files"][0] | {"findings": [{}]}]}) == ["png"]


def test_the_table_shows_both_lanes() -> None:
    shown = table(RECORD)
    assert "| killed | 3 | 3 |" in shown and "| in place (planted defect) | 3 | 2 |" in shown
    assert "| png | 2 | 1,000 | 0 |" in shown
