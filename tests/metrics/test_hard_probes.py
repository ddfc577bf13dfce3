"""The probes a search goes most wrong with, against sorting everything by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_identification import matrix, search, searched

from facekd.metrics.gallery_search import FAILED_MATE
from facekd.metrics.hard_probes import best_matches, hard_probes


@pytest.mark.parametrize("failed", [False, True])
def test_hard_probes_and_whom_they_are_taken_for(failed: bool) -> None:
    ties = 0
    for seed in range(6):
        probes, people, (part, _) = searched(seed, failed=failed)
        found, every = (way(probes, people, part, errors=False) for way in (search, matrix))
        own = people[:, None] == part[1][None]
        for genuine in (False, True):
            chosen = own if genuine else ~own
            best = np.where(chosen, every, -2).max(axis=1)
            there = np.flatnonzero(best > FAILED_MATE)
            wanted = there[np.argsort(best[there] if genuine else -best[there], kind="stable")][:12]
            places = hard_probes(found, genuine=genuine)
            assert places.tolist() == wanted.tolist()
            rows = torch.from_numpy(people)[places]
            matches = best_matches(probes[places], rows, part[0], torch.from_numpy(part[1]), genuine=genuine).numpy()
            assert (every[wanted, matches] == best[wanted]).all() and chosen[wanted, matches].all()
            ties += len(best) - len(set(best.tolist()))
    assert ties > 100


def test_fewer_probes_than_wanted_and_none() -> None:
    one = torch.eye(2)
    gallery = one, np.array([1, 1])
    found = search(one, np.array([1, 2]), gallery)
    assert hard_probes(found, genuine=True).tolist() == [0]
    assert hard_probes(found, genuine=False).tolist() == [1]  # of probe 0 there is nobody else
    assert hard_probes(search(one, np.array([3, 2]), gallery), genuine=True).tolist() == []


def test_a_probe_without_such_a_template_is_refused() -> None:
    people = torch.tensor([1, 2])
    with pytest.raises(ValueError, match="a probe has no mate in the gallery"):
        best_matches(torch.eye(2), people, torch.eye(2), torch.tensor([1, 1]), genuine=True)
    with pytest.raises(ValueError, match="a probe has no other subject in the gallery"):
        best_matches(torch.eye(2), people, torch.eye(2), torch.tensor([1, 1]), genuine=False)
