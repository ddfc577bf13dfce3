"""Margin softmax and logit distillation against plain-loop references, closed forms and invariances."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from facekd.losses import LOSSES, apply_margin, cosine_logits, logit_kd, margin_softmax

BATCH, CLASSES, DIM = 6, 9, 5


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student = 3.0 * torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64)
    class_weights = torch.randn(CLASSES, DIM, generator=generator, dtype=torch.float64)
    return student, class_weights, torch.randint(CLASSES, (BATCH,), generator=generator)


def rotation(seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(DIM, DIM, generator=generator, dtype=torch.float64)).Q


def slow_target(theta: float, margin: float, kind: str, past_pi: str, margin_cosine: float, multiplier: float) -> float:
    """The formulas of the docstring, on an angle."""
    if kind == "cosface":
        return math.cos(theta) - margin
    if past_pi == "easy" and math.cos(theta) <= 0:
        return math.cos(theta)
    boundary = (math.pi - margin) / multiplier
    if past_pi == "linear" and theta >= boundary:
        return math.cos(theta) - (math.pi - boundary) * math.sin(boundary) - margin_cosine
    return math.cos(multiplier * theta + margin) - margin_cosine


def slow_margin_softmax(
    student: Tensor,
    class_weights: Tensor,
    labels: Tensor,
    margin: float,
    scale: float,
    rule: tuple[str, str, float, float],
) -> float:
    losses = []
    for embedding, label in zip(student.tolist(), labels.tolist(), strict=True):
        logits = []
        for index, row in enumerate(class_weights.tolist()):
            dot = sum(a * b for a, b in zip(embedding, row, strict=True))
            cosine = dot / math.dist(embedding, [0] * DIM) / math.dist(row, [0] * DIM)
            logits.append(scale * (slow_target(math.acos(cosine), margin, *rule) if index == label else cosine))
        losses.append(math.log(sum(math.exp(logit - logits[label]) for logit in logits)))
    return sum(losses) / len(losses)


RULES = [
    ("arcface", "linear", 0.0, 1.0),
    ("arcface", "easy", 0.0, 1.0),
    ("arcface", "none", 0.0, 1.0),
    ("cosface", "linear", 0.0, 1.0),
    ("combined", "linear", 0.2, 1.3),
    ("combined", "easy", 0.2, 1.3),
    ("combined", "none", 0.2, 1.3),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule[0]}-{rule[1]}")
@pytest.mark.parametrize("scale", [1.0, 64.0])
def test_margin_softmax__equals_plain_loops(rule: tuple[str, str, float, float], scale: float) -> None:
    student, class_weights, labels = batch()
    student[0] = -2.0 * class_weights[labels[0]] + 0.1  # one image past every boundary
    kind, past_pi, margin_cosine, multiplier = rule
    loss = margin_softmax(
        student,
        class_weights,
        labels,
        margin=0.4,
        scale=scale,
        kind=kind,
        past_pi=past_pi,
        margin_cosine=margin_cosine,
        margin_multiplier=multiplier,
    )
    assert loss.shape == ()
    assert loss.item() == pytest.approx(
        slow_margin_softmax(student, class_weights, labels, 0.4, scale, rule), rel=1e-10
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule[0]}-{rule[1]}")
def test_margin_softmax__gradcheck(rule: tuple[str, str, float, float]) -> None:
    student, class_weights, labels = batch()
    kind, past_pi, margin_cosine, multiplier = rule

    def loss(embeddings: Tensor, rows: Tensor) -> Tensor:
        return margin_softmax(
            embeddings,
            rows,
            labels,
            scale=8.0,
            kind=kind,
            past_pi=past_pi,
            margin_cosine=margin_cosine,
            margin_multiplier=multiplier,
        )

    assert torch.autograd.gradcheck(loss, (student.requires_grad_(), class_weights.requires_grad_()))


@pytest.mark.parametrize("kind", ["arcface", "cosface", "combined"])
def test_margin_softmax__without_margin_is_cross_entropy_of_cosines(kind: str) -> None:
    student, class_weights, labels = batch()
    plain = torch.nn.functional.cross_entropy(64.0 * cosine_logits(student, class_weights), labels)
    assert margin_softmax(student, class_weights, labels, margin=0.0, kind=kind).item() == pytest.approx(plain.item())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule[0]}-{rule[1]}")
def test_margin_softmax__margin_never_lowers_the_loss(rule: tuple[str, str, float, float]) -> None:
    kind, past_pi, margin_cosine, multiplier = rule
    student, class_weights, labels = batch()
    angles = cosine_logits(student, class_weights).gather(1, labels[:, None]).acos()
    assert (angles <= math.pi - 0.3).all()
    options = {"kind": kind, "past_pi": past_pi, "margin_cosine": margin_cosine, "margin_multiplier": multiplier}
    plain = margin_softmax(student, class_weights, labels, margin=0.0)
    assert margin_softmax(student, class_weights, labels, margin=0.3, **options) >= plain


def test_margin_softmax__combined_contains_the_other_two() -> None:
    student, class_weights, labels = batch()
    arcface = margin_softmax(student, class_weights, labels, margin=0.5)
    assert margin_softmax(student, class_weights, labels, margin=0.5, kind="combined").item() == arcface.item()
    cosface = margin_softmax(student, class_weights, labels, margin=0.35, kind="cosface")
    combined = margin_softmax(student, class_weights, labels, margin=0.0, margin_cosine=0.35, kind="combined")
    assert combined.item() == pytest.approx(cosface.item(), rel=1e-12)


def test_margin_softmax__student_that_is_the_teacher_has_the_teachers_loss() -> None:
    torch.manual_seed(0)
    teacher, student = torch.nn.Linear(7, DIM), torch.nn.Linear(7, DIM)
    student.load_state_dict(teacher.state_dict())
    images, labels = torch.randn(BATCH, 7), torch.arange(BATCH)
    class_weights = torch.randn(CLASSES, DIM)
    assert torch.equal(
        margin_softmax(student(images), class_weights, labels), margin_softmax(teacher(images), class_weights, labels)
    )


def test_margin_softmax__frozen_classifier_stays_bit_identical() -> None:
    torch.manual_seed(0)
    student, class_weights = torch.nn.Linear(7, DIM), torch.randn(CLASSES, DIM)
    before, first = class_weights.clone(), None
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    images, labels = torch.randn(BATCH, 7), torch.arange(BATCH)
    for _ in range(20):
        optimizer.zero_grad()
        loss = margin_softmax(student(images), class_weights, labels, scale=8.0)
        first = loss.item() if first is None else first
        loss.backward()
        optimizer.step()
    assert loss.item() < first
    assert class_weights.grad is None
    assert torch.equal(class_weights, before)


def test_margin_softmax__joint_rotation_changes_nothing_single_rotation_does() -> None:
    student, class_weights, labels = batch()
    turn = rotation()
    loss = margin_softmax(student, class_weights, labels)
    assert margin_softmax(student @ turn, class_weights @ turn, labels).item() == pytest.approx(loss.item(), rel=1e-10)
    assert abs(margin_softmax(student @ turn, class_weights, labels).item() - loss.item()) > 0.1


def test_margin_softmax__class_order_does_not_matter() -> None:
    student, class_weights, labels = batch()
    loss = margin_softmax(student, class_weights, labels).item()
    new_index = torch.tensor([3, 1, 8, 0, 2, 7, 6, 4, 5])
    moved = torch.empty_like(class_weights)
    moved[new_index] = class_weights
    assert margin_softmax(student, moved, new_index[labels]).item() == pytest.approx(loss, rel=1e-12)
    fitted = class_weights[labels] + 0.1 * student
    assert margin_softmax(fitted, class_weights, new_index[labels]) > margin_softmax(fitted, class_weights, labels)


def test_margin_softmax__row_lengths_do_not_matter() -> None:
    student, class_weights, labels = batch()
    lengths = torch.linspace(0.01, 100.0, CLASSES, dtype=torch.float64)[:, None]
    loss = margin_softmax(student, class_weights, labels).item()
    assert margin_softmax(student * 7.0, class_weights * lengths, labels).item() == pytest.approx(loss, rel=1e-10)


@pytest.mark.parametrize("margin_gradient", ["exact", "passthrough"])
def test_margin_softmax__gradient_is_orthogonal_to_the_embedding(margin_gradient: str) -> None:
    student, class_weights, labels = batch()
    student.requires_grad_()
    margin_softmax(student, class_weights, labels, margin_gradient=margin_gradient).backward()
    along = (student.grad * student).sum(dim=1).abs()
    assert (along < 1e-10 * student.grad.norm(dim=1)).all()


def test_margin_softmax__passthrough_lacks_the_factor_of_the_margin() -> None:
    student, class_weights, labels = batch()
    values, gradients = [], []
    for margin_gradient in ("exact", "passthrough"):
        embeddings = student[:1].clone().requires_grad_()
        rows = class_weights.clone().requires_grad_()
        loss = margin_softmax(embeddings, rows, labels[:1], scale=4.0, margin_gradient=margin_gradient)
        loss.backward()
        values.append(loss.item())
        gradients.append(rows.grad)
    theta = cosine_logits(student[:1], class_weights)[0, labels[0]].acos()
    assert values[0] == values[1]
    own = labels[0]
    torch.testing.assert_close(gradients[0][own], gradients[1][own] * torch.sin(theta + 0.5) / torch.sin(theta))
    others = torch.arange(CLASSES) != own
    torch.testing.assert_close(gradients[0][others], gradients[1][others])


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule[0]}-{rule[1]}")
def test_margin_softmax__finite_on_and_opposite_the_centre(
    rule: tuple[str, str, float, float], dtype: torch.dtype, sign: float
) -> None:
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(200, 64, generator=generator).to(dtype)
    embeddings = (sign * centres).requires_grad_()
    kind, past_pi, margin_cosine, multiplier = rule
    loss = margin_softmax(
        embeddings,
        centres,
        torch.arange(200),
        kind=kind,
        past_pi=past_pi,
        margin_cosine=margin_cosine,
        margin_multiplier=multiplier,
    )
    loss.backward()
    assert math.isfinite(loss.item())
    assert embeddings.grad.isfinite().all()
    assert embeddings.grad.float().norm(dim=1).max() < 64.0


@pytest.mark.parametrize("kind", ["arcface", "combined"])
@pytest.mark.parametrize("cosine", [1.0, -1.0, 1.0 + 2e-7, 1.0 - 1e-7, -1.0 - 2e-7, 0.0])
@pytest.mark.parametrize("past_pi", ["linear", "easy", "none"])
@pytest.mark.parametrize("multiplier", [1.0, 1.5])
def test_apply_margin__finite_value_and_gradient(kind: str, cosine: float, past_pi: str, multiplier: float) -> None:
    if kind == "arcface" and multiplier != 1.0:
        return
    at = torch.tensor([cosine], requires_grad=True)
    value = apply_margin(at, kind=kind, past_pi=past_pi, margin_multiplier=multiplier)
    value.sum().backward()
    assert value.isfinite().all()
    assert at.grad.isfinite().all()
    if cosine >= 1.0 and multiplier == 1.0:
        assert at.grad.item() == pytest.approx(math.cos(0.5))


def test_apply_margin__values_at_the_ends() -> None:
    ends = torch.tensor([1.0, -1.0], dtype=torch.float64)
    down = 0.5 * math.sin(0.5)
    assert apply_margin(ends).tolist() == pytest.approx([math.cos(0.5), -1.0 - down])
    assert apply_margin(ends, past_pi="easy").tolist() == pytest.approx([math.cos(0.5), -1.0])
    assert apply_margin(ends, past_pi="none").tolist() == pytest.approx([math.cos(0.5), -math.cos(0.5)])
    assert apply_margin(ends, kind="cosface", margin=0.35).tolist() == pytest.approx([0.65, -1.35])


@pytest.mark.parametrize(("margin", "multiplier"), [(0.0, 1.0), (0.5, 1.0), (1.57, 1.0), (0.5, 2.0), (0.0, 3.5)])
def test_apply_margin__linear_falls_with_the_angle(margin: float, multiplier: float) -> None:
    angles = torch.linspace(0.0, math.pi, 20001, dtype=torch.float64)
    values = apply_margin(angles.cos(), kind="combined", margin=margin, margin_multiplier=multiplier)
    assert (values.diff() <= 1e-12).all()


def test_apply_margin__none_rises_again_past_pi() -> None:
    angles = torch.linspace(math.pi - 0.5, math.pi, 101, dtype=torch.float64)[1:]
    assert (apply_margin(angles.cos(), past_pi="none").diff() > 0).all()


def test_apply_margin__linear_steps_down_by_the_stated_amount() -> None:
    near = torch.tensor([math.pi - 0.5 - 1e-9, math.pi - 0.5 + 1e-9], dtype=torch.float64)
    before, after = apply_margin(near.cos()).tolist()
    assert before - after == pytest.approx(0.117, abs=5e-4)


def test_apply_margin__refuses_a_linear_rule_that_would_step_up() -> None:
    with pytest.raises(ValueError, match="margin_multiplier 4.0 with margin 0.0 makes past_pi linear step up"):
        apply_margin(torch.zeros(1), kind="combined", margin=0.0, margin_multiplier=4.0)
    assert apply_margin(torch.ones(1), kind="combined", margin=0.0, margin_multiplier=4.0, past_pi="none").item() == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.0}, "scale is 0.0, expected a finite number greater than 0"),
        ({"scale": math.inf}, "scale is inf"),
        ({"margin": -0.1}, r"margin is -0.1, expected 0 <= margin < 1.5708 \(radians\)"),
        ({"margin": 28.6}, r"margin is 28.6, expected 0 <= margin < 1.5708 \(radians\)"),
        ({"margin": math.nan}, "margin is nan"),
        ({"margin": 2.0, "kind": "cosface"}, r"margin is 2.0, expected 0 <= margin < 2 \(a cosine\)"),
        ({"kind": "sphere"}, "kind is 'sphere', expected one of arcface, cosface, combined"),
        ({"past_pi": "hard"}, "past_pi is 'hard', expected one of linear, easy, none"),
        ({"margin_gradient": "no"}, "margin_gradient is 'no', expected one of exact, passthrough"),
        ({"margin_cosine": 0.1}, "no effect with kind arcface; use kind combined"),
        ({"margin_multiplier": 1.1}, "no effect with kind arcface; use kind combined"),
        ({"margin_cosine": 0.1, "kind": "cosface"}, "no effect with kind cosface; use kind combined"),
        ({"past_pi": "easy", "kind": "cosface"}, "past_pi easy has no effect with kind cosface"),
        ({"margin_gradient": "passthrough", "kind": "cosface"}, "margin_gradient passthrough has no effect"),
        ({"margin_cosine": 2.0, "kind": "combined"}, "margin_cosine is 2.0, expected 0 <= margin_cosine < 2"),
        ({"margin_multiplier": 0.9, "kind": "combined"}, "margin_multiplier is 0.9, expected 1 <= "),
    ],
)
def test_margin_softmax__refuses_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        margin_softmax(*batch(), **options)


def test_margin_softmax__refuses_inputs() -> None:
    student, class_weights, labels = batch()
    with pytest.raises(ValueError, match="student has 4 dimensions, class_weights 5"):
        margin_softmax(student[:, :4], class_weights, labels)
    with pytest.raises(ValueError, match="student has 6 rows, labels 5"):
        margin_softmax(student, class_weights, labels[:5])
    with pytest.raises(ValueError, match="label 9 is outside the 9 classes"):
        margin_softmax(student, class_weights, labels + 9 - labels.max())
    with pytest.raises(ValueError, match="label -1 is outside the 9 classes"):
        margin_softmax(student, class_weights, labels - labels.min() - 1)
    with pytest.raises(ValueError, match="labels are torch.float64 of shape .6,., expected integers"):
        margin_softmax(student, class_weights, labels.double())
    with pytest.raises(ValueError, match=r"student has shape \(0, 5\), expected at least one row"):
        margin_softmax(student[:0], class_weights, labels[:0])
    with pytest.raises(ValueError, match="student holds torch.int64"):
        margin_softmax(student.long(), class_weights, labels)


def test_margin_softmax__orientation_of_a_square_classifier_matters() -> None:
    class_weights = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    student, labels = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    cosines = cosine_logits(student, class_weights)
    assert cosines.tolist() == [[pytest.approx(math.sqrt(0.5)), 0.0]]
    expected = math.log(1.0 + math.exp(-math.sqrt(0.5)))
    assert margin_softmax(student, class_weights, labels, margin=0.0, scale=1.0).item() == pytest.approx(expected)


def slow_logit_kd(cosines: list[list[float]], teacher_cosines: list[list[float]], scale: float, heat: float) -> float:
    total = 0.0
    for row, teacher_row in zip(cosines, teacher_cosines, strict=True):
        log_q, log_p = (
            [scale * x / heat - math.log(sum(math.exp(scale * y / heat) for y in values)) for x in values]
            for values in (row, teacher_row)
        )
        total += sum(math.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True))
    return heat**2 * total / len(cosines)


def kd_batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    shapes = ((BATCH, DIM), (BATCH, 7), (CLASSES, DIM), (CLASSES, 7))
    student, teacher, class_weights, teacher_class_weights = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes
    )
    return student, teacher, class_weights, teacher_class_weights


@pytest.mark.parametrize(("scale", "temperature"), [(64.0, 4.0), (1.0, 1.0), (30.0, 2.5)])
def test_logit_kd__equals_plain_loops(scale: float, temperature: float) -> None:
    student, teacher, class_weights, teacher_class_weights = kd_batch()
    loss = logit_kd(student, teacher, class_weights, teacher_class_weights, scale=scale, temperature=temperature)
    expected = slow_logit_kd(
        cosine_logits(student, class_weights).tolist(),
        cosine_logits(teacher, teacher_class_weights).tolist(),
        scale,
        temperature,
    )
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("scale", "temperature"), [(2.0, 1.0), (8.0, 4.0)])
def test_logit_kd__closed_form_for_two_classes(scale: float, temperature: float) -> None:
    east, north, classes = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.eye(2)
    loss = logit_kd(east, north, classes, classes, scale=scale, temperature=temperature)
    assert loss.item() == pytest.approx(temperature**2 * 2.0 * math.tanh(1.0), rel=1e-6)


def test_logit_kd__zero_with_zero_gradient_at_the_teacher() -> None:
    student, _, class_weights, _ = kd_batch()
    embeddings = student.clone().requires_grad_()
    loss = logit_kd(embeddings, student, class_weights, class_weights)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert embeddings.grad.abs().max() < 1e-12


def test_logit_kd__gradcheck_and_no_gradient_to_the_teacher() -> None:
    student, teacher, class_weights, teacher_class_weights = (tensor.requires_grad_() for tensor in kd_batch())

    def loss(embeddings: Tensor, rows: Tensor) -> Tensor:
        return logit_kd(embeddings, teacher, rows, teacher_class_weights, scale=8.0)

    assert torch.autograd.gradcheck(loss, (student, class_weights))
    loss(student, class_weights).backward()
    assert teacher.grad is None
    assert teacher_class_weights.grad is None


def test_logit_kd__class_order_does_not_matter() -> None:
    student, teacher, class_weights, teacher_class_weights = kd_batch()
    loss = logit_kd(student, teacher, class_weights, teacher_class_weights).item()
    classes = torch.arange(CLASSES).flip(0)
    moved = logit_kd(student, teacher, class_weights[classes], teacher_class_weights[classes])
    assert moved.item() == pytest.approx(loss, rel=1e-12)


def test_logit_kd__refuses() -> None:
    student, teacher, class_weights, teacher_class_weights = kd_batch()
    with pytest.raises(ValueError, match="student has 6 rows, teacher 5"):
        logit_kd(student, teacher[:5], class_weights, teacher_class_weights)
    with pytest.raises(ValueError, match="class_weights has 9 classes, teacher_class_weights 8"):
        logit_kd(student, teacher, class_weights, teacher_class_weights[:8])
    with pytest.raises(ValueError, match="student has 5 dimensions, class_weights 7"):
        logit_kd(student, teacher, teacher_class_weights, teacher_class_weights)
    with pytest.raises(ValueError, match="teacher has 7 dimensions, teacher_class_weights 5"):
        logit_kd(student, teacher, class_weights, class_weights)
    with pytest.raises(ValueError, match="temperature is 0.0"):
        logit_kd(student, teacher, class_weights, teacher_class_weights, temperature=0.0)


def test_losses__registry_holds_the_public_losses() -> None:
    names = "adadistill cckd cosine ekd l2 logit_kd margin_distillation margin_softmax pad pkt rkd shared_head_kd sp"
    assert set(LOSSES) >= {*names.split(), "residual", "stkd", "stkd_similarity"}
    assert LOSSES["margin_softmax"] is margin_softmax
