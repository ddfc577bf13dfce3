"""A sample of the classes: who is in it, how likely, and what the softmax over it leaves out."""

from __future__ import annotations

import math

import pytest
import torch

from facekd.losses import margin_softmax
from facekd.losses.sampling import sample_classes


def slowly(labels: list[int], scores: list[float], count: int) -> tuple[list[int], list[int]]:
    """The sample by plain loops."""
    chosen = {label for label in labels if label >= 0}
    for _, one in sorted((-score, number) for number, score in enumerate(scores) if number not in chosen):
        if len(chosen) < count:
            chosen.add(one)
    classes = sorted(chosen)
    return classes, [classes.index(label) if label >= 0 else label for label in labels]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9, 20])
def test_sample__is_that_of_plain_loops(count: int) -> None:
    labels = torch.tensor([7, 2, -1, 7, 19, 0, -1])
    scores = torch.rand(20)
    found = sample_classes(labels, scores, count)
    assert (found.classes.tolist(), found.labels.tolist()) == slowly(labels.tolist(), scores.tolist(), count)
    assert len(found.classes) == max(count, 4)


def test_sample__does_not_hang_on_the_order_of_the_images_and_leaves_the_scores_alone() -> None:
    labels, scores = torch.randint(50, (12,)), torch.rand(50)
    kept, order = scores.clone(), torch.randperm(12)
    one, other = sample_classes(labels, scores, 20), sample_classes(labels[order], scores, 20)
    assert torch.equal(one.classes, other.classes) and torch.equal(one.labels[order], other.labels)
    assert torch.equal(scores, kept)


def test_sample__draws_every_other_class_as_often() -> None:
    labels, count, draws = torch.tensor([3, 4]), 8, 4000
    generator = torch.Generator().manual_seed(0)
    times = torch.zeros(30)
    for _ in range(draws):
        times[sample_classes(labels, torch.rand(30, generator=generator), count).classes] += 1
    assert times[3] == times[4] == draws
    others = torch.cat([times[:3], times[5:]])
    likely = (count - 2) / 28
    assert (others / draws - likely).abs().max() < 5 * math.sqrt(likely * (1 - likely) / draws)


def test_sample__without_a_label_is_drawn_all_the_same() -> None:
    found = sample_classes(torch.full((3,), -1), torch.tensor([0.1, 0.3, 0.2]), 2)
    assert found.classes.tolist() == [1, 2] and found.labels.tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("label", "count", "line"),
    [(5, 2, "label 5 is outside the 5 classes"), (1, 6, "count is 6, expected at most the 5")],
)
def test_sample__of_more_than_there_is_is_refused(label: int, count: int, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        sample_classes(torch.tensor([label]), torch.rand(5), count)


def test_sample__leaves_the_loss_lower_by_what_is_said() -> None:
    """All classes alike but for the own: ln(1 + (n - 1) e^-t) over n classes, and so over those of the sample."""
    classes, drawn, scale = 1000, 100, 1.0
    rows = torch.eye(classes)
    student, labels = torch.eye(classes)[:4], torch.arange(4)
    sample = sample_classes(labels, torch.rand(classes), drawn)
    whole = margin_softmax(student, rows, labels, margin=0.0, scale=scale)
    some = margin_softmax(student, rows[sample.classes], sample.labels, margin=0.0, scale=scale)
    for found, among in ((whole, classes), (some, drawn)):
        assert float(found) == pytest.approx(math.log1p((among - 1) * math.exp(-scale)), rel=1e-5)
    assert 0 < float(whole - some) < math.log(classes / drawn)
