"""What holds for every loss of the registry: nothing is summed in half precision, and a batch has no order."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from facekd.engine.training.outputs import PER_IMAGE
from facekd.losses import LOSSES, SubsetTeacher

BATCH, VIRTUAL, DIM, CLASSES = 8, 6, 5, 4
LABELS = torch.tensor([0, 3, 3, 1, 3, 0, 2, 1])
ORDER = torch.tensor([7, 2, 0, 1, 5, 3, 6, 4])
VIRTUAL_ORDER = torch.tensor([4, 2, 0, 5, 1, 3])
ONE_VARIANCE = ("pad_logit", "pad_relation")
GENTLE = 8.0  # scale of the logits: at 64 a softmax turns the last bit of a cosine into several of the value

Fields = dict[str, Any]


def examples(name: str) -> Fields:
    """The step outputs a loss takes by position, those it may do without left out."""
    generator = torch.Generator().manual_seed(0)

    def rows(count: int, dim: int = DIM) -> Tensor:
        return torch.randn(count, dim, generator=generator, dtype=torch.float64)

    fields = {
        "student": 3.0 * rows(BATCH),
        "teacher": rows(BATCH),
        "labels": LABELS,
        "class_weights": rows(CLASSES),
        "teacher_class_weights": rows(CLASSES),
        "log_variance": rows(BATCH, 1 if name in ONE_VARIANCE else DIM) - 1.0,
        "noise": rows(BATCH),
        "student_thresholds": torch.tensor([0.1, 0.5], dtype=torch.float64),
        "teacher_thresholds": torch.tensor([0.2, 0.4], dtype=torch.float64),
        "centres": rows(CLASSES),
        "assistant": rows(BATCH),
        "virtual_student": rows(VIRTUAL),
        "virtual_teacher": rows(VIRTUAL),
        "virtual_labels": torch.randint(CLASSES, (VIRTUAL, 2), generator=generator),
        "virtual_shares": torch.rand(VIRTUAL, generator=generator, dtype=torch.float64),
        "subsets": tuple(
            SubsetTeacher(rows(BATCH, 6), columns, torch.tensor(share), rows(len(columns), 6), rows(6))
            for columns, share in ((torch.tensor([3, 0]), 0.25), (torch.tensor([0, 1, 2]), 0.75))
        ),
    }
    asked = inspect.signature(LOSSES[name]).parameters.values()
    return {p.name: fields[p.name] for p in asked if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty}


def changed(fields: Fields, change: Callable[[Tensor], Tensor]) -> Fields:
    """The same fields with every floating tensor changed, those of the teachers of subsets among them."""

    def of(value: Any) -> Any:
        if isinstance(value, SubsetTeacher):
            return SubsetTeacher(*(of(part) for part in value))
        if isinstance(value, tuple):
            return tuple(of(part) for part in value)
        return change(value) if value.is_floating_point() else value

    return {name: of(value) for name, value in fields.items()}


def value_of(name: str, fields: Fields) -> Tensor:
    options = {"scale": GENTLE} if "scale" in inspect.signature(LOSSES[name]).parameters else {}
    return LOSSES[name](*fields.values(), **options)


def in_order(fields: Fields) -> Fields:
    """The fields of the same images and of the same mixtures, each in another order."""
    moved = {name: value[ORDER] for name, value in fields.items() if name in PER_IMAGE}
    moved |= {name: value[VIRTUAL_ORDER] for name, value in fields.items() if name.startswith("virtual_")}
    if "subsets" in fields:
        moved["subsets"] = tuple(one._replace(teacher=one.teacher[ORDER]) for one in fields["subsets"])
    return fields | moved


every_loss = pytest.mark.parametrize("name", sorted(LOSSES))


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision__gives_the_float32_value_of_the_same_numbers(name: str, dtype: torch.dtype) -> None:
    exact = examples(name)
    halves = changed(exact, lambda tensor: tensor.to(dtype))
    student = next(iter(halves))
    halves[student].requires_grad_()
    found = value_of(name, halves)
    found.backward()
    assert found.shape == () and found.dtype == torch.float32
    assert halves[student].grad.isfinite().all() and halves[student].grad.any()
    wide = value_of(name, changed(halves, lambda tensor: tensor.detach().float()))
    torch.testing.assert_close(found.detach(), wide, rtol=1e-6, atol=1e-7)
    double = value_of(name, exact)
    assert double.dtype == torch.float64
    torch.testing.assert_close(wide.double(), double, rtol=0.05, atol=0.02)  # what rounding the inputs costs


@every_loss
def test_autocast__does_not_lower_the_precision(name: str) -> None:
    fields = changed(examples(name), lambda tensor: tensor.float())
    plain = value_of(name, fields)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = value_of(name, fields)
    assert inside.dtype == torch.float32 and torch.equal(inside, plain)


@every_loss
def test_order_of_the_batch__does_not_matter_and_who_stands_beside_whom_does(name: str) -> None:
    fields = examples(name)
    plain = value_of(name, fields).item()
    assert value_of(name, in_order(fields)).item() == pytest.approx(plain, rel=1e-10)
    student = next(iter(fields))
    mixed_up = fields | {student: in_order(fields)[student]}
    assert value_of(name, mixed_up).item() != pytest.approx(plain, rel=1e-4)
