"""Summaries over groups against numpy, what they are of, and what they say of groups that cannot show an FPR."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from facekd.engine.evaluation.across_groups import across_groups, describe_groups
from facekd.engine.evaluation.evenness import evenness
from facekd.engine.evaluation.verifying import first_difference

TPRS = {"a": (0.95, 0.75), "b": (0.91, 0.5), "c": (0.97, 0.25), "d": (0.93, 1.0)}


def group(name: str, fprs: tuple[float, ...] = (1e-2, 1e-3), model: str = "m", **changes: object) -> dict[str, Any]:
    points = [{"fpr": f, "tpr": t, "supported": f > 5e-3} for f, t in zip((1e-2, 1e-3), TPRS[name], strict=True)]
    head = {"model": model, "model_digest": model * 3, "set": "s", "set_digest": "d", "flip": True, "resolution": None}
    figures = {"eer": {"value": 1 - TPRS[name][0]}, "tpr_at_fpr": [point for point in points if point["fpr"] in fprs]}
    refused = [{"fpr": point["fpr"], "impostors": 9, "needed": 99} for point in points if point["fpr"] not in fprs]
    return {**head, "group": {"column": "kind", "value": name}, **figures, "refused": refused, **changes}


def test_spread_deviation_and_ratio_are_those_of_the_definition() -> None:
    whole = {**group("a"), "eer": {"value": 0.9}}
    del whole["group"]
    (found,) = across_groups([whole, *map(group, "abcd")])
    assert (found["column"], found["groups"], found["refused"]) == ("kind", list("abcd"), [])
    for place, point in enumerate(found["tpr_at_fpr"]):
        tprs = np.array([TPRS[name][place] for name in "abcd"])
        assert (point["fpr"], point["supported"]) == ((1e-2, True), (1e-3, False))[place]
        assert point["mean"] == pytest.approx(tprs.mean()) and point["std"] == pytest.approx(tprs.std(ddof=1))
        assert point["spread"] == pytest.approx(np.ptp(tprs))
    assert found["tpr_at_fpr"][0]["skewed_error_ratio"] == pytest.approx(3)
    assert found["tpr_at_fpr"][1]["skewed_error_ratio"] is None
    assert found["eer"]["mean"] == pytest.approx(0.06) and found["eer"]["skewed_error_ratio"] == pytest.approx(3)
    lines = describe_groups(found)
    assert len(lines) == 3 and "m on s over 4 groups by kind, TPR @ 0.001*: " in lines[1]
    assert "one group without an error" in lines[1] and lines[2].endswith("largest error 3.00 times the smallest")


def test_an_fpr_that_a_group_cannot_show_is_told_with_the_group() -> None:
    (found,) = across_groups([group("a"), group("b", (1e-2,)), group("c", (1e-2,))])
    assert [point["fpr"] for point in found["tpr_at_fpr"]] == [1e-2]
    assert found["refused"] == [{"fpr": 1e-3, "groups": ["b", "c"]}]


def test_models_modes_and_scores_are_not_mixed() -> None:
    low = {"resolution": {"probe": 14, "gallery": None}}
    sure = {"score": "mutual-likelihood"}
    results = [one for name in "ab" for one in (group(name), group(name, model="n"), group(name, **low))]
    results += [group("a", **sure), group("b", **sure), group("c", flip=False)]
    found = across_groups(results)
    assert [(one["model"], one["resolution"], one.get("score")) for one in found] == [
        ("m", None, None),
        ("n", None, None),
        ("m", low["resolution"], None),
        ("m", None, "mutual-likelihood"),
    ]
    assert all(one["groups"] == ["a", "b"] for one in found)
    assert describe_groups(found[2])[0].startswith("m on s (14 px to full) over 2 groups")


def test_a_changed_summary_is_named() -> None:
    found, other = (across_groups([group("a"), group("b")]) for _ in range(2))
    other[0]["tpr_at_fpr"][0]["spread"] += 1e-9
    told = first_difference(other, found, exact=True)
    assert told is not None and told.startswith("m on s by kind: tpr_at_fpr[fpr 0.01].spread is 0.0")


def test_equal_groups_have_no_spread() -> None:
    assert evenness([0.5, 0.5], [0.5, 0.5]) == {"mean": 0.5, "std": 0.0, "spread": 0.0, "skewed_error_ratio": 1.0}
