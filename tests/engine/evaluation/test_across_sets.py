"""Summaries over sets against numpy, and when there is none."""

from __future__ import annotations

import numpy as np
import pytest

from facekd.engine.evaluation.across_sets import across_sets, describe


def result(name: str, accuracy: float | None, model: str = "m", **changes: object) -> dict:
    figures = None if accuracy is None else {"mean": accuracy, "std": 0.01, "threshold": 0.3}
    head = {"model": model, "model_digest": model * 3, "flip": True, "resolution": None, "set": name, "tpr_at_fpr": []}
    return head | {"accuracy": figures} | changes


def test_mean_spread_and_ratio_are_those_of_the_definition() -> None:
    accuracies = [0.95, 0.91, 0.97, 0.93]
    (found,) = across_sets([result(f"{race}_test.bin", a) for race, a in zip("ABCD", accuracies, strict=True)])
    assert found["accuracy"] == {
        "mean": pytest.approx(np.mean(accuracies)),
        "std": pytest.approx(np.std(accuracies, ddof=1)),
        "spread": pytest.approx(0.06),
    }
    assert found["skewed_error_ratio"] == pytest.approx(0.09 / 0.03)
    assert found["sets"] == ["A_test.bin", "B_test.bin", "C_test.bin", "D_test.bin"]
    assert found["tpr_at_fpr"] == []


def test_tprs_are_told_at_every_fpr_that_all_sets_can_show() -> None:
    tprs = {"A": {1e-2: 0.9, 1e-3: 0.75}, "B": {1e-2: 0.8, 1e-3: 0.5}, "C": {1e-2: 0.95}}
    points = {name: [{"fpr": f, "tpr": t, "supported": True} for f, t in own.items()] for name, own in tprs.items()}
    (found,) = across_sets([result(name, 0.9, tpr_at_fpr=own) for name, own in points.items()])
    (point,) = found["tpr_at_fpr"]
    assert point["fpr"] == 1e-2 and point["spread"] == pytest.approx(0.15)
    assert point["skewed_error_ratio"] == pytest.approx(4)
    accuracy, tpr = describe(found)
    assert accuracy.startswith("m over 3 sets, accuracy: 0.9000 +- 0.0000, spread 0.0000, largest error 1.00 times")
    assert tpr.startswith("m over 3 sets, TPR @ 0.01: 0.8833 +- ") and tpr.endswith(
        "largest error 4.00 times the smallest"
    )


def test_each_model_has_its_own_and_a_single_set_none() -> None:
    both = [result("a", 0.9), result("a", 0.8, "n"), result("b", 0.7), result("b", 0.6, "n")]
    assert [found["model"] for found in across_sets(both)] == ["m", "n"]
    assert across_sets([result("a", 0.9), result("all", None), result("b", 0.8, "n")]) == []
    assert across_sets([result("a", 0.9), result("b", 0.8, resolution={"probe": 14, "gallery": None})]) == []


def test_a_set_without_error_has_no_ratio() -> None:
    (found,) = across_sets([result("a", 1.0), result("b", 0.9)])
    assert found["skewed_error_ratio"] is None and "one set without an error" in describe(found)[0]
