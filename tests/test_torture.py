"""Runs killed, starved of disk or damaged end with the bits of one that was not; a tenth of ``make torture``.

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

from benchmarks import kill_trials, planted, torture
from benchmarks.arena import Arena
from benchmarks.exported import Exports
from benchmarks.kill_trials import ANSWER, tried
from benchmarks.killing import CALLS, CRASHED, Trap, ended, fork
from benchmarks.outcome import Outcome
from benchmarks.rot import damaged
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
    "swept": lambda arena: kill_trials.swept(arena, 25),
    "drawn": lambda arena: kill_trials.sent(arena, 25),
    "five-times": lambda arena: kill_trials.killed_five_times(arena, 10),
    "starved": lambda arena: kill_trials.starved(arena, 10),
    "limited": lambda arena: kill_trials.limited(arena, 5),
    "rotted": lambda arena: kill_trials.rotted(arena, 20),
    "terminated": lambda arena: kill_trials.swept(arena, 6, signal.SIGTERM),
    "interrupted": lambda arena: kill_trials.sent(arena, 4, signal.SIGINT),
}


class TestRuns:
    pytestmark = forks

    def test_the_unbroken_run_has_events_of_every_kind_and_still_learns(self, arena: Arena) -> None:
        assert len(arena.kinds) >= 11 and arena.events > 200 and arena.bytes > 100_000
        assert {kind for *_, kind in CALLS} < set(arena.kinds)
        assert arena.learns()
        before, after = (
            load_file(path) for path in sorted((arena.whole / "checkpoints").glob("step-*.safetensors"))[-2:]
        )
        moved = [float((after[name] - before[name]).abs().max()) for name in after if name.startswith("student.linear")]
        assert moved and min(moved) > 1e-3, "a run that no longer learns ends alike whatever is lost"

    @pytest.mark.parametrize("how", BREAKS)
    def test_a_broken_run_ends_with_the_same_bits(self, arena: Arena, how: str) -> None:
        found = tried(arena, BREAKS[how](arena))
        assert found.wrong == [] and found.identical == found.trials > 0

    def test_with_two_loading_processes_too(self, arena: Arena) -> None:
        other = arena.with_training(workers=2)
        assert other.bits == arena.bits
        assert tried(other, kill_trials.sent(other, 2)).wrong == []

    def test_a_value_that_is_not_finite_stops_it_before_the_update_wherever_it_turns_up(self, arena: Arena) -> None:
        count = len(planted.PLACES)
        each_once = kill_trials.poisoned(arena, 2 * count)[count // 2 : count // 2 + count]
        found = tried(arena, each_once)
        assert found.wrong == [] and found.identical == found.trials == count

    @pytest.mark.parametrize("kind", torture.ROT)
    def test_a_newest_checkpoint_that_rots_is_passed_over(self, arena: Arena, kind: str) -> None:
        count = torture.ROT[kind] // 10
        found = damaged(arena.whole / "checkpoints", kind, count)
        assert found.wrong == [] and found.identical == found.trials == count

    def test_a_broken_export_leaves_nothing_and_comes_out_the_same_the_next_time(self, arena: Arena) -> None:
        exports = Exports(arena)
        found = tried(exports, kill_trials.swept(exports, 3) + kill_trials.swept(exports, 2, signal.SIGTERM))
        assert found.wrong == [] and found.identical == found.trials > 0

    @pytest.mark.parametrize("name", torture.CONTROLS)
    def test_negative_control__a_planted_defect_is_seen(self, arena: Arena, name: str) -> None:
        other = arena.with_defect(torture.CONTROLS[name])
        found = tried(other, kill_trials.swept(other, 6, part=torture.MIDDLE))
        told = "could not be resumed" if name == torture.IN_PLACE else "other bits"
        assert any(told in line for line in found.wrong) and 2 * found.identical < found.trials + 3


@pytest.mark.parametrize(("seconds", "code", "wrong"), [(0.1, 143, False), (ANSWER + 1, 143, True), (0.1, 1, True)])
def test_negative_control__a_late_or_wrong_answer_to_a_signal_is_told(
    seconds: float, code: int, wrong: bool, tmp_path: Path
) -> None:
    (tmp_path / "log.txt").write_text("stopped\n")
    outcome = Outcome()
    told = kill_trials.answered(tmp_path / "run", code, signal.SIGTERM, seconds, outcome)
    assert (told is not None) == wrong and outcome.slowest == seconds


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
        {"what": "in place", "trials": 3, "identical": 1, "control": True, "unresumable": 0, "wrong": ["x"]},
    ],
    "files": [{"reader": "png", "read": 2, "refused": 1000, "findings": []}],
}


def test_a_record_fails_where_a_trial_differs_a_control_does_not_or_a_file_is_found() -> None:
    killed, control = RECORD["runs"]
    assert torture.failed(RECORD) == []
    assert torture.failed(RECORD | {"runs": [killed | {"identical": 2}, control | {"identical": 2}]}) == [
        "killed",
        "in place",
    ]
    in_place = control | {"what": torture.IN_PLACE, "identical": 0}
    assert torture.failed(RECORD | {"runs": [in_place]}) == [torture.IN_PLACE]
    assert torture.failed(RECORD | {"runs": [in_place | {"unresumable": 1}]}) == []
    assert torture.failed(RECORD | {"files": [RECORD["files"][0] | {"findings": [{}]}]}) == ["png"]


def test_the_table_shows_both_lanes() -> None:
    shown = table(RECORD)
    assert "| killed | 3 | 3 |" in shown and "| in place (planted defect) | 3 | 1 |" in shown
    assert "| png | 2 | 1,000 | 0 |" in shown
