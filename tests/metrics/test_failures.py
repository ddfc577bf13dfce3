"""What failed comparisons count as, by examples that can be followed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facekd.metrics.failures import as_errors, as_non_matches
from facekd.metrics.gallery_search import UNRANKED, search_gallery
from facekd.metrics.identification import merged_points, nist_points, rank_rates
from facekd.metrics.roc import Refused, auc, eer, operating_points

GENUINE = np.array([0.9, 0.5])
IMPOSTOR = np.array([0.8, 0.7, 0.6, 0.55, *[0.1] * 6])


def test_losing_the_hardest_impostors_raises_nothing() -> None:
    """The template behind the three highest impostor scores fails: as non-matches they let the threshold fall."""
    (whole,), _ = operating_points(GENUINE, IMPOSTOR, [0.3])
    lost = np.where(IMPOSTOR > 0.55, np.nan, IMPOSTOR)
    (flattered,), _ = operating_points(GENUINE, as_non_matches(lost), [0.3])
    genuine, impostor = GENUINE.copy(), lost.copy()
    failed = as_errors(genuine, impostor)
    (point,), _ = operating_points(genuine, impostor, [0.3], failed=failed[1])
    assert (whole.tpr, flattered.tpr, point.tpr) == (0.5, 1.0, 0.5)
    assert failed == (0, 3) and point.threshold == GENUINE[0] and (point.false_accepts, point.attained_fpr) == (0, 0.0)
    assert auc(genuine, impostor) < auc(GENUINE, IMPOSTOR) < auc(GENUINE, as_non_matches(lost))
    assert eer(genuine, impostor).value >= eer(GENUINE, IMPOSTOR).value


def test_an_fpr_that_allows_less_than_failed_is_refused_with_the_number_needed() -> None:
    genuine, impostor = GENUINE.copy(), np.append(np.full(4, np.nan), np.linspace(0, 0.4, 6))
    failed = as_errors(genuine, impostor)
    points, refused = operating_points(genuine, impostor, [0.3, 0.4], failed=failed[1])
    assert refused == [Refused(0.3, 10, 14, 4)]
    assert points[0].false_accepts == 0 and points[0].threshold == 0.5 and points[0].tpr == 1.0


def test_a_missed_genuine_comparison_stays_missed_and_counted() -> None:
    genuine, impostor = np.array([0.9, np.nan], np.float32), np.linspace(-1, 0, 10, dtype=np.float32)
    assert as_errors(genuine, impostor) == (1, 0)
    (point,), _ = operating_points(genuine, impostor, [0.9])
    assert point.tpr == 0.5 and genuine[1] < -1


def test_where_nothing_is_left_every_comparison_is_an_error() -> None:
    genuine, impostor = np.full(3, np.nan), np.full(40, np.nan)
    assert as_errors(genuine, impostor) == (3, 40)
    points, refused = operating_points(genuine, impostor, [0.5], failed=40)
    assert not points and refused[0].failed == 40 and refused[0].needed == 80
    assert auc(genuine, impostor) == 0.0 and eer(genuine, impostor).value >= 0.5


def rows_of(*angles: float) -> torch.Tensor:
    """Directions in the plane, by degrees; zero where NaN."""
    radians = torch.tensor(angles, dtype=torch.float64).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], dim=1).nan_to_num(0.0).float()


@pytest.mark.parametrize("errors", [True, False])
def test_a_failed_template_of_another_ranks_before_every_mate(errors: bool) -> None:
    """Whoever ranks before a mate and fails would lift the mate."""
    people, gallery = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2])
    probes = rows_of(0, 90, torch.nan)
    found = search_gallery(probes, people, rows_of(10, torch.nan, 180), gallery, errors=errors)
    assert found.rank.tolist() == [2 if errors else 1, UNRANKED, UNRANKED]
    assert rank_rates([found], [1, 2, 50]) == ([0.0, 1 / 3, 1 / 3] if errors else [1 / 3] * 3)
    assert found.failed == 1 + 2  # probe 0 with template 1, the failed probe with both others


def test_failed_probes_without_a_mate_are_false_alarms_when_the_threshold_is_chosen() -> None:
    """Eight probes of nobody: the hardest, at 5 degrees, fails. As a non-match it would let the threshold fall."""
    nobody, gallery = [5.0, 30, 40, 50, 60, 70, 80, 85], rows_of(0)
    mates = [20.0, 55.0]
    people = torch.tensor([7] * 2 + list(range(8)))
    people[2:] += 10

    def tpir(errors: bool, *hardest: float) -> float:
        probes = rows_of(*mates, *hardest, *nobody[1:])
        found = search_gallery(probes, people, gallery, torch.tensor([7]), keep=8, errors=errors)
        (point,), _ = nist_points([found], [0.375])
        assert point.nonmated == 8 and point.false_alarms <= 3
        return point.tpir

    assert (tpir(True, 5.0), tpir(False, torch.nan), tpir(True, torch.nan)) == (0.5, 1.0, 0.5)


def test_a_failed_template_of_the_gallery_leaves_no_tpir_to_tell() -> None:
    probes, people = rows_of(*range(0, 80, 8)), torch.arange(10)
    gallery = rows_of(0, 8, torch.nan)
    found = search_gallery(probes, people, gallery, torch.arange(3), keep=10)
    assert not nist_points([found], [0.5])[0] and nist_points([found], [0.5])[1][0].failed == 7
    assert not merged_points(found, [0.5])[0] and merged_points(found, [0.5])[1][0].failed == 9
