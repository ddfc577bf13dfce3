"""Demands on searches: each figure of 1:N can be asked for, and what a result does not hold is never met."""

from __future__ import annotations

from dataclasses import replace

import pytest

from facekd.engine.evaluation.requirements import parse_requirement, require
from facekd.errors import RequirementError, UsageError


def point(definition: str, fpir: float, tpir: float) -> dict:
    return {"definition": definition, "fpir": fpir, "tpir": tpir}


SEARCH = {
    "model": "m",
    "set": "ijb",
    "protocol": "ijb-1:n",
    "rank": {"1": 0.9, "5": 0.95},
    "tpr_at_fpr": [],
    "tpir_at_fpir": [point("nist", 0.1, 0.8), point("merged", 0.1, 0.7)],
    "refused": [{"definition": "nist", "fpir": 0.01, "nonmated": 240, "needed": 300}],
}
PAIRS = {"model": "m", "set": "p", "protocol": "pairs", "tpr_at_fpr": [{"fpr": 0.1, "tpr": 0.5}], "refused": []}


@pytest.mark.parametrize("text", ["rank@1>=0.9", "rank @ 5 >= .95", "tpir@0.1>=0.8", "tpir@1e-1>=0.75"])
def test_met_demands_on_a_search_are_met_to_their_limit(text: str) -> None:
    demand = parse_requirement(text)
    require([SEARCH], [demand])
    with pytest.raises(RequirementError):
        require([SEARCH], [replace(demand, limit=0.951)])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rank@1>=0.91", "it is 0.9"),
        ("rank@20>=0.1", "only ranks 1, 5 are told"),
        ("tpir@0.1>=0.81", "tpir is 0.8"),
        ("tpir@0.01>=0.1", "needs 300 probes without a mate, the set has 240"),
        ("tpir@0.3>=0.1", "that FPIR was not evaluated"),
        ("tpr@0.1>=0.1", "protocol ijb-1:n gives no tpr here"),
        ("auc>=0.1", "protocol ijb-1:n gives no auc here"),
    ],
)
def test_missed_demands_say_why(text: str, reason: str) -> None:
    with pytest.raises(RequirementError, match=f"m on ijb: {text} not met: {reason}"):
        require([SEARCH], [parse_requirement(text)])


def test_pairs_give_no_rank() -> None:
    require([PAIRS], [parse_requirement("tpr@0.1>=0.5")])
    with pytest.raises(RequirementError, match="protocol pairs gives no rank here"):
        require([PAIRS], [parse_requirement("rank@1>=0")])


@pytest.mark.parametrize("text", ["rank>=0.5", "rank@0>=0.5", "rank@1<=0.5", "tpir@1>=0.5", "rank@1e1>=0.5"])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_requirement(text)
