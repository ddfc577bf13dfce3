"""The plan on paper says what follows from the figures it names, and says so where they are missing."""

from __future__ import annotations

import pytest

from benchmarks import scaling
from benchmarks.scaling import BATCH, GPUS, H200, STUDENT, WIDTH, Constants
from benchmarks.training_speed import FLOOR

MEASURED = {
    "classifier_loss": {
        "sizes": [
            {},
            {"ratio": {"two products": {"blocks, frozen": {"median": 1.25}, "blocks, trained": {"median": 2.5}}}},
        ]
    },
    "data_loading": {"reading": {"one process, wall clock": {"read": {"median": 1e4}}}},
    "training_speed": {"peak_mib": {FLOOR: 640.0}, "batch": 64},
    "student_speed": {"students": {STUDENT: {"share": {"median": 0.5}, "macs": 2e8, "parameters": 1_000_000}}},
}


def test_constants__are_what_was_measured() -> None:
    found = scaling.constants(MEASURED)
    assert found == Constants(1.25, 2.5, 0.5, 2e8, 1_000_000, 10 * 2**20, 1e4)


def test_page__follows_from_the_figures() -> None:
    page = scaling.page(MEASURED)
    assert "| 10,000,000 | 2.6 | 1.3 | 24.5 | 7.7 |" in page  # 10 M rows of 512 float32 numbers are 20.48 GB
    operations = 4 * BATCH * WIDTH * 10_000_000 / GPUS
    assert f"| 10,000,000 | frozen | {1e3 * 1.25 * operations / 67e12:.1f} |" in page
    computed = 6 * 2e8 * BATCH / GPUS / (0.5 * 989e12)
    moved = 10 * 2**20 * BATCH / GPUS / 4.8e12
    assert f"takes {1e3 * computed:.1f} ms of a step by its products and {1e3 * moved:.1f} ms" in page
    losses, minutes = 1.25 * operations / 67e12, 42_500_000 / BATCH / 60
    step = losses + max(computed, moved) + scaling.exchanged_seconds(1_000_000, H200)
    (row,) = [line for line in page.splitlines() if line.startswith("| 10,000,000 | frozen |")]
    assert row.split(" | ")[5] == f"{step * minutes:.1f}"


def test_page__tells_what_was_not_recorded() -> None:
    without = {name: value for name, value in MEASURED.items() if name != "student_speed"}
    assert "Not to be had yet: 'student_speed' was not recorded." in scaling.page(without)


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_loss_seconds__grow_with_the_classes_that_take_part(share: float) -> None:
    assert scaling.loss_seconds(10**6, 1e12, 1.0, share) == pytest.approx(share * 4 * BATCH * WIDTH * 10**6 / 8 / 1e12)
