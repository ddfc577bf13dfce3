"""The benchmark of a training step runs at a small size; the loop it restates learns, and its loss is facekd's."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.forecasts import DISTIL, Case
from benchmarks.forecasts import report as forecast_report
from benchmarks.plain_loops import MARGIN, SCALE, ArcFaceHead, plain_loop
from benchmarks.sections import SECTIONS
from benchmarks.student_speed import report as student_report
from benchmarks.training_speed import ALONE, FLOOR, OWN, RepeatedFaces, drawn_student, report
from facekd.losses import margin_softmax


@pytest.mark.slow
def test_every_way_is_measured_and_shown() -> None:
    found = json.loads(json.dumps(report("resnet_tiny", "iresnet18", batch=4, people=64, repeats=1, threads=1)))
    _, command, table = SECTIONS["training_speed"]
    assert command == found["command"]
    assert {FLOOR, ALONE, "facekd, cached teacher", "plain, live teacher"} < set(found["seconds"])
    assert found["ratio"][FLOOR][FLOOR]["median"] == 1 and all(value > 0 for value in found["peak_mib"].values())
    shown = table(found)
    assert all(f"| {name} |" in shown for name in found["seconds"])


def test_students_are_measured_and_shown() -> None:
    found = json.loads(json.dumps(student_report(batch=2, repeats=1, device="cpu", most=1)))
    _, command, table = SECTIONS["student_speed"]
    assert command == found["command"]
    ((name, one),) = found["students"].items()
    computed = 6e-9 * one["macs"] * 2  # a forward pass and two products for each of it in the backward pass
    assert one["gflops"]["student"]["median"] == pytest.approx(
        computed * one["images_per_second"]["median"] / 2, rel=1e-3
    )
    assert f"| {name} |" in table(found)


@pytest.mark.slow
def test_forecasts_are_measured_and_shown() -> None:
    cases = {"one": Case("resnet_tiny", 8, [OWN]), "two": Case("resnet_tiny", 8, DISTIL, "clean")}
    found = json.loads(json.dumps(forecast_report(cases, "iresnet18", people=64, repeats=1, threads=1)))
    _, command, table = SECTIONS["forecasts"]
    assert command == found["command"]
    assert all(abs(case["mib"]["ratio"]["median"] - 1) < 0.25 for case in found["cases"].values())
    shown = table(found)
    assert "| one | 8 |" in shown and "| two | 8 |" in shown


def test_the_restated_head_is_the_margin_softmax() -> None:
    head = ArcFaceHead(50, 8)
    embeddings, labels = torch.randn(16, 8), torch.randint(50, (16,))
    expected = margin_softmax(embeddings, head.weight, labels, margin=MARGIN, scale=SCALE)
    torch.testing.assert_close(head(embeddings, labels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_restated_loop_learns_from_its_teacher() -> None:
    source = RepeatedFaces(8)
    taught = torch.randn(1, 512).expand(8, -1)
    step = plain_loop(
        drawn_student("resnet_tiny"), ArcFaceHead(8, 512), source, 8, taught=lambda pixels, kept: taught, answers=None
    )
    first = step()
    for _ in range(8):
        last = step()
    assert last < first
