"""No failure raises a figure: 1,000 random injections into each protocol, against the same data without failures.

Images fail, at random or where it would flatter the model most. Each test holds its negative control: with failed
images left out of their templates and failed templates as non-matches the figures do rise.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from facekd.data.ijb_protocols import TemplateList, TemplatePairs, TemplateSearch
from facekd.engine.evaluation.figures import EvalSettings, figures
from facekd.engine.evaluation.template_pairs import measure_template_scores
from facekd.engine.evaluation.template_search import measure_search
from facekd.metrics.failures import as_non_matches
from facekd.metrics.templates import (
    Aggregation,
    Membership,
    aggregate_templates,
    membership,
    spoiled_templates,
    template_pair_scores,
)

INJECTIONS = 1000
PEOPLE, EACH, DIM = 12, 5, 3
RATES = (0.5, 0.35, 0.25, 0.15, 0.1, 0.05, 0.02)
RANKS = (1, 2, 3, 5, 8)


@dataclass(frozen=True)
class World:
    """60 templates of 12 people, of one to three images each, and those images."""

    views: np.ndarray
    members: Membership
    subjects: np.ndarray

    def made(self, usable: np.ndarray) -> torch.Tensor:
        return aggregate_templates(self.views, self.members, Aggregation(), usable=usable)


def world(rng: np.random.Generator) -> World:
    """Few directions, coarse on purpose, so that scores tie; the first image of a template may be a bad one."""
    count = rng.integers(1, 4, PEOPLE * EACH)
    rows = np.repeat(np.arange(count.size), count)
    subjects = np.arange(count.size) % PEOPLE
    views = rng.normal(size=(PEOPLE, DIM))[subjects[rows]] + rng.uniform(0.2, 1) * rng.normal(size=(rows.size, DIM))
    if rng.random() < 0.5:
        views = np.round(views) + 0.01
    bad = rng.random(rows.size) < 0.1
    views[bad] = 2 * rng.normal(size=(int(bad.sum()), DIM))
    return World(np.stack([views] * 2, 1), membership(rows, np.arange(rows.size), np.ones(rows.size)), subjects)


def injected(rng: np.random.Generator, found: World, hardest: np.ndarray) -> np.ndarray:
    """(n,) which images are left: one to five templates lose an image or all of them, half the time hard ones."""
    weights = None
    if rng.random() < 0.5:
        weights = hardest**8 + 1e-9
        weights /= weights.sum()
    chosen = rng.choice(len(found.subjects), int(rng.integers(1, 6)), replace=False, p=weights)
    lost = np.isin(found.members.rows, chosen)
    return ~(lost & (rng.random(lost.size) < rng.choice([0.5, 1.0])))


def pairs_of(rng: np.random.Generator, subjects: np.ndarray) -> TemplatePairs:
    left, right = np.triu_indices(subjects.size, 1)
    kept = rng.random(left.size) < 0.5
    left, right = left[kept], right[kept]
    return TemplatePairs(left, right, subjects[left] == subjects[right], subjects, ())


def search_of(rng: np.random.Generator, subjects: np.ndarray, galleries: int) -> TemplateSearch:
    """The first template of each person in a gallery or, of some, as a distractor; the others are probes."""
    enrolled = np.array_split(rng.permutation(PEOPLE), galleries)
    lists = tuple(TemplateList(f"G{at}", part, subjects[part]) for at, part in enumerate(enrolled))
    probes = np.arange(PEOPLE, subjects.size)
    return TemplateSearch(lists, TemplateList("probes", probes, subjects[probes]))


def risen(kind: str, key: str, rate: str, before: dict[str, Any], after: dict[str, Any]) -> Counter:
    """Which figures of operating points are above what they were; a point that was refused before counts, too."""
    known = {(point.get("definition"), point[rate]): point for point in before[key]}
    found: Counter = Counter()
    for point in after[key]:
        own = known.get((point.get("definition"), point[rate]))
        name = f"{kind} {point.get('definition', '')}".strip()
        for figure in ("tpr", "nearest_fpr_tpr", "tpir", "tpir_rank1"):
            if figure in point:
                found[name] += own is None or point[figure] > own[figure]
        found[f"{name} told"] += 1
    return found


@pytest.mark.slow
def test_1_1() -> None:
    settings, counted, plain = EvalSettings(RATES, bootstrap=0), Counter(), Counter()
    for seed in range(INJECTIONS):
        rng = np.random.default_rng([1, seed])
        found = world(rng)
        pairs = pairs_of(rng, found.subjects)
        whole = found.made(np.ones(len(found.views), bool))
        scores = template_pair_scores(whole, pairs.left, pairs.right).numpy()
        hard = np.zeros(len(whole))
        np.maximum.at(hard, pairs.left, np.where(pairs.genuine, 0, scores).clip(0))
        usable = injected(rng, found, hard)
        made, spoiled = found.made(usable), torch.from_numpy(spoiled_templates(found.members, usable))
        lost = template_pair_scores(made.masked_fill(spoiled[:, None], 0.0), pairs.left, pairs.right).numpy()
        loose = as_non_matches(template_pair_scores(made, pairs.left, pairs.right).numpy())
        before, after, other = (figures(measure_template_scores(x, pairs, settings)) for x in (scores, lost, loose))
        for tally, now in ((counted, after), (plain, other)):
            tally.update(risen("tpr", "tpr_at_fpr", "fpr", before, now))
            tally["auc"] += now["auc"] > before["auc"]
        assert all(point["attained_fpr"] <= point["fpr"] for point in after["tpr_at_fpr"])
    assert counted["tpr told"] > 2000 and (counted["tpr"], counted["auc"]) == (0, 0)
    assert plain["tpr"] > 100 and plain["auc"] > 50


@pytest.mark.slow
@pytest.mark.parametrize("galleries", [1, 2])
def test_searching(galleries: int) -> None:
    """Two galleries give TPIR by both definitions, and ranks; one, as TinyFace's, ranks alone."""
    settings, counted, plain = EvalSettings(RATES, bootstrap=0), Counter(), Counter()
    for seed in range(INJECTIONS):
        rng = np.random.default_rng([2, galleries, seed])
        found = world(rng)
        search = search_of(rng, found.subjects, galleries)
        usable = injected(rng, found, rng.random(len(found.subjects)))
        made, spoiled = found.made(usable), torch.from_numpy(spoiled_templates(found.members, usable))
        before, _ = measure_search(found.made(np.ones(len(found.views), bool)), search, settings, RANKS)
        after, _ = measure_search(made.masked_fill(spoiled[:, None], 0.0), search, settings, RANKS)
        other, _ = measure_search(made, search, settings, RANKS, errors=False)
        for tally, now in ((counted, after), (plain, other)):
            tally.update(risen("tpir", "tpir_at_fpir", "fpir", before, now))
            for kind in ("rank", "rank_merged") if galleries > 1 else ("rank",):
                tally[kind] += sum(now[kind][rank] > before[kind][rank] for rank in before[kind])
                counted["above 0"] += sum(now[kind].values()) > 0
    kinds = ["rank", "rank_merged", "tpir nist", "tpir merged"] if galleries > 1 else ["rank"]
    assert [counted[kind] for kind in kinds] == [0] * len(kinds) and counted["above 0"] > 900
    assert min(plain[kind] for kind in kinds) > 50
    assert galleries == 1 or min(counted[f"tpir {kind} told"] for kind in ("nist", "merged")) > 200
