"""Several teachers, each of some classes: what they say, to whom, and how it adds up to one teacher of all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from facekd.losses import SubsetTeacher, logit_kd, subset_kd, subset_l2

BATCH, DIM, WIDE, CLASSES = 7, 5, 6, 6
ONE = torch.tensor(1.0)


def drawn(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "student": torch.randn(BATCH, DIM, generator=generator, dtype=torch.double),
        "teacher": torch.randn(BATCH, WIDE, generator=generator, dtype=torch.double),
        "labels": torch.arange(BATCH) % CLASSES,
        "class_weights": torch.randn(CLASSES, DIM, generator=generator, dtype=torch.double),
        "theirs": torch.randn(CLASSES, WIDE, generator=generator, dtype=torch.double),
    }


def knows(x: dict[str, Tensor], *classes: int, share: float = 1.0) -> SubsetTeacher:
    columns = torch.tensor(classes)
    return SubsetTeacher(x["teacher"], columns, torch.tensor(share), x["theirs"][columns])


def value(x: dict[str, Tensor], *subsets: SubsetTeacher, temperature: float = 3.0) -> Tensor:
    return subset_kd(x["student"], x["labels"], x["class_weights"], subsets, scale=8.0, temperature=temperature)


def test_one_teacher_of_all_classes__is_logit_kd() -> None:
    x = drawn()
    expected = logit_kd(x["student"], x["teacher"], x["class_weights"], x["theirs"], scale=8.0, temperature=3.0)
    torch.testing.assert_close(value(x, knows(x, *range(CLASSES))), expected)
    order = (3, 0, 5, 1, 4, 2)
    torch.testing.assert_close(value(x, knows(x, *order)), expected)


def test_it_is_the_plain_loop_over_teachers_and_images() -> None:
    x = drawn()
    subsets = (knows(x, 4, 1, 2, share=0.7), knows(x, 0, 2, 5, share=0.3))
    total = 0.0
    for one in subsets:
        inside = [i for i in range(BATCH) if int(x["labels"][i]) in one.columns.tolist()]
        for i in inside:
            z = [8.0 * functional.cosine_similarity(x["student"][i], w, dim=0) / 3.0 for w in x["class_weights"]]
            t = [8.0 * functional.cosine_similarity(x["teacher"][i], w, dim=0) / 3.0 for w in one.class_weights]
            p = torch.stack(t).softmax(0)
            q = torch.stack([z[c] for c in one.columns.tolist()]).softmax(0)
            total += float(one.share) * 9.0 * float((p * (p / q).log()).sum()) / len(inside)
    assert float(value(x, *subsets)) == pytest.approx(total, rel=1e-6)


def test_classes_outside_a_subset__get_no_gradient_from_its_teacher() -> None:
    x = drawn()
    x["class_weights"].requires_grad_()
    value(x, knows(x, 1, 4)).backward()
    moved = x["class_weights"].grad.abs().sum(1) > 0
    assert moved.tolist() == [False, True, False, False, True, False]


@pytest.mark.parametrize("loss", ["kd", "l2"])
def test_an_image_of_another_class__adds_nothing_and_gets_no_gradient(loss: str) -> None:
    x = drawn()
    x["student"].requires_grad_()
    one = knows(x, 1, 4)._replace(projector=torch.randn(WIDE, DIM, dtype=torch.double))
    call = (lambda y: value(y, one)) if loss == "kd" else (lambda y: subset_l2(y["student"], y["labels"], (one,)))
    before = call(x)
    before.backward()
    outside = torch.tensor([int(label) not in (1, 4) for label in x["labels"]])
    assert (x["student"].grad[outside] == 0).all() and (x["student"].grad[~outside] != 0).all()
    changed = x | {"student": torch.where(outside[:, None], -x["student"], x["student"])}
    assert torch.equal(call(changed), before)
    nobody = x | {"labels": torch.full((BATCH,), 3)}
    assert call(nobody).item() == 0.0


def test_a_disjoint_cover__completes_the_divergence_between_the_subsets_to_that_of_all_classes() -> None:
    """KL = KL of the subsets' masses + sum of mass times KL within, image by image."""
    x = drawn()
    groups = ((0, 3), (1, 2, 5), (4,))
    logits = 8.0 * functional.normalize(x["student"]) @ functional.normalize(x["class_weights"]).T
    theirs = 8.0 * functional.normalize(x["teacher"]) @ functional.normalize(x["theirs"]).T
    p, q = theirs.softmax(1), logits.softmax(1)
    for i in range(BATCH):
        row = {name: x[name][i : i + 1] for name in ("student", "teacher", "labels")} | {
            name: x[name] for name in ("class_weights", "theirs")
        }
        total = torch.tensor(0.0, dtype=torch.double)
        for group in groups:
            mass, other = p[i, list(group)].sum(), q[i, list(group)].sum()
            asked = row | {"labels": torch.tensor(group[:1])}
            total += mass * (mass / other).log() + mass * value(asked, knows(asked, *group), temperature=1.0)
        whole = (p[i] * (p[i] / q[i]).log()).sum()
        torch.testing.assert_close(total, whole)


def test_logits_are_cut_before_the_softmax__not_probabilities_after_it() -> None:
    x = drawn()
    far = x | {"class_weights": x["class_weights"].clone()}
    far["class_weights"][3] = x["student"][1]
    assert torch.equal(value(x, knows(x, 1, 4)), value(far, knows(far, 1, 4)))


def test_overlapping_teachers__add_up_and_shares_weigh_them() -> None:
    x = drawn()
    one, two = knows(x, 0, 1, 2, share=0.25), knows(x, 2, 3, share=0.75)
    apart = 0.25 * value(x, one._replace(share=ONE)) + 0.75 * value(x, two._replace(share=ONE))
    torch.testing.assert_close(value(x, one, two), apart)
    torch.testing.assert_close(value(x, two, one), apart)


def test_renaming_the_classes__changes_nothing() -> None:
    x = drawn()
    new = torch.tensor([2, 5, 0, 1, 3, 4])
    named = x | {"labels": new[x["labels"]], "class_weights": torch.empty_like(x["class_weights"])}
    named["class_weights"][new] = x["class_weights"]
    one = knows(x, 1, 4, 2)
    torch.testing.assert_close(value(named, one._replace(columns=new[one.columns])), value(x, one))


def test_subset_l2__is_the_squared_distance_through_each_projector() -> None:
    x = drawn()
    matrices = [torch.randn(WIDE, DIM, dtype=torch.double) for _ in range(2)]
    subsets = [
        knows(x, *classes, share=share)._replace(projector=matrix)
        for classes, share, matrix in zip(((0, 1), (1, 2, 3)), (0.4, 0.6), matrices, strict=True)
    ]
    expected = 0.0
    for one in subsets:
        rows = torch.isin(x["labels"], one.columns)
        cosines = functional.cosine_similarity(x["student"][rows] @ one.projector.T, x["teacher"][rows])
        expected += float(one.share) * float((2 - 2 * cosines).mean())
    assert float(subset_l2(x["student"], x["labels"], subsets)) == pytest.approx(expected)


def test_gradcheck() -> None:
    x = drawn()
    s, w = x["student"].requires_grad_(), x["class_weights"].requires_grad_()
    matrix = torch.randn(WIDE, DIM, dtype=torch.double, requires_grad=True)
    share = torch.tensor(0.5, dtype=torch.double)
    subsets = [knows(x, 0, 1, 2)._replace(share=share), knows(x, 2, 3)._replace(share=share)]
    labels = x["labels"]
    assert torch.autograd.gradcheck(lambda a, b: subset_kd(a, labels, b, subsets, scale=4.0), (s, w))
    projected = subsets[0]._replace(projector=matrix)
    assert torch.autograd.gradcheck(lambda a, p: subset_l2(a, labels, [projected._replace(projector=p)]), (s, matrix))


def test_teachers_get_no_gradient() -> None:
    x = drawn()
    x["teacher"].requires_grad_()
    x["theirs"].requires_grad_()
    x["student"].requires_grad_()
    one = knows(x, 0, 1)._replace(projector=torch.randn(WIDE, DIM, dtype=torch.double))
    (value(x, one) + subset_l2(x["student"], x["labels"], [one])).backward()
    assert x["teacher"].grad is None and x["theirs"].grad is None


def test_refusals() -> None:
    x = drawn()
    one = knows(x, 0, 1)
    with pytest.raises(ValueError, match="no teacher"):
        value(x)
    with pytest.raises(ValueError, match="2 classes needs as many rows"):
        value(x, one._replace(class_weights=None))
    with pytest.raises(ValueError, match="projector of 5 to 6 dimensions"):
        subset_l2(x["student"], x["labels"], [one])
    with pytest.raises(ValueError, match="7 rows, a teacher or labels 3"):
        value(x, one._replace(teacher=x["teacher"][:3]))
    with pytest.raises(ValueError, match="temperature is 0"):
        value(x, one, temperature=0.0)
