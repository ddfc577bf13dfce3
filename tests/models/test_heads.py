"""Heads: what is trained, what is frozen, and where the variance starts."""

from __future__ import annotations

import math

import pytest
import torch

from facekd.errors import NonFiniteError
from facekd.models.heads import FrozenClassifier, MarginClassifier, VarianceHead


def test_margin_classifier_is_one_parameter() -> None:
    torch.manual_seed(0)
    head = MarginClassifier(1000, 64)
    assert [name for name, _ in head.named_parameters()] == ["class_weights"]
    assert head.class_weights.std().item() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize(
    ("classes", "dim", "part"), [(100, 8, slice(0, 100)), (101, 5, slice(17, 90)), (7, 3, slice(5, 7))]
)
def test_a_part_of_a_margin_classifier_starts_as_in_the_whole(
    classes: int, dim: int, part: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    wanted = torch.randn(classes, dim) * 0.01
    after = torch.rand(3)
    monkeypatch.setattr(MarginClassifier, "DRAWN_NUMBERS", 32 * dim)
    torch.manual_seed(0)
    assert torch.equal(MarginClassifier(classes, dim, part).class_weights, wanted[part])
    assert torch.equal(torch.rand(3), after)


def test_frozen_classifier_is_stored_but_never_trained() -> None:
    given = torch.randn(5, 4)
    head = FrozenClassifier(given)
    assert list(head.parameters()) == []
    assert torch.equal(head.state_dict()["class_weights"], given)
    given.zero_()
    assert head.class_weights.abs().sum() > 0


def test_frozen_classifier_may_be_stored_in_low_precision() -> None:
    assert FrozenClassifier(torch.eye(3).half()).class_weights.dtype == torch.float16


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_row_without_direction_is_named(bad: float) -> None:
    class_weights = torch.eye(4)
    class_weights[2] = bad
    with pytest.raises(NonFiniteError, match="class 2 is zero or not finite .1 such"):
        FrozenClassifier(class_weights)


def test_the_variance_starts_at_what_was_measured() -> None:
    residual = torch.tensor([1e-3, 4e-3, 2e-3, 1e-3])
    head = VarianceHead(4)
    head.initialise(residual)
    torch.nn.init.zeros_(head.linear.weight)
    for mode in (True, False):
        found = head.train(mode)(torch.randn(6, 4))
        assert torch.equal(found, residual.log().expand(6, 4))


def test_a_single_variance_starts_at_the_mean() -> None:
    head = VarianceHead(4, outputs=1).eval()
    head.initialise(torch.tensor([1e-3, 3e-3, 1e-3, 3e-3]))
    torch.nn.init.zeros_(head.linear.weight)
    found = head(torch.randn(3, 4))
    assert found.shape == (3, 1)
    assert found.flatten().tolist() == pytest.approx([math.log(2e-3)] * 3, rel=1e-6)


def test_the_start_spreads_by_a_tenth() -> None:
    torch.manual_seed(0)
    head = VarianceHead(8)
    head.initialise(torch.full((8,), 1e-3))
    found = head(torch.randn(256, 8))
    assert torch.allclose(found.mean(0), torch.full((8,), math.log(1e-3)), atol=1e-4)
    assert torch.allclose(found.std(0), torch.full((8,), 0.1), rtol=0.05)


def test_initialising_forgets_old_statistics_and_keeps_a_floor() -> None:
    head = VarianceHead(3)
    head(torch.randn(8, 3) + 5)
    head.initialise(torch.tensor([3.0, 0.0, 0.0]))
    assert head.bn.running_mean.tolist() == [0.0, 0.0, 0.0]
    assert head.bn.bias.tolist() == pytest.approx([math.log(3), math.log(1e-6), math.log(1e-6)], rel=1e-5)


@pytest.mark.parametrize("residual", [[0.0, 0.0], [1.0, float("nan")]])
def test_residuals_without_a_logarithm_are_refused(residual: list[float]) -> None:
    with pytest.raises(NonFiniteError, match="zero or not finite"):
        VarianceHead(2).initialise(torch.tensor(residual))


@pytest.mark.parametrize("outputs", [None, 1])
def test_the_head_of_pfe_starts_as_published_and_then_at_what_was_measured(outputs: int | None) -> None:
    torch.manual_seed(0)
    head = VarianceHead(16, outputs, "mlp")
    rows = torch.randn(512, 16)
    found = head(rows)
    assert found.shape == (512, outputs or 16)
    assert found.mean().item() == pytest.approx(-7.0, abs=1e-3) and found.std().item() == pytest.approx(1e-4, rel=0.05)
    head.initialise(torch.tensor([1e-3, 3e-3]).repeat(8))
    found = head(rows)
    assert found.mean().item() == pytest.approx(math.log(2e-3), abs=1e-3)
    assert found.std().item() == pytest.approx(0.1, rel=0.05)
    assert {p.shape.numel() for name, p in head.named_parameters() if name in ("scale", "shift")} == {1}


def test_the_head_of_pfe_can_tell_the_length_of_an_embedding_where_a_line_cannot() -> None:
    """Directions are drawn evenly, so no line through the embedding says how long it is; the mlp learns it."""
    errors = {}
    for kind in ("linear", "mlp"):
        torch.manual_seed(0)
        head = VarianceHead(8, 1, kind)
        head.initialise(torch.ones(8))
        optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
        for _ in range(300):
            lengths = torch.rand(256, 1) + 0.5
            rows = lengths * torch.nn.functional.normalize(torch.randn(256, 8))
            loss = (head(rows) - lengths.log()).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        errors[kind] = loss.item()
    assert errors["mlp"] < 0.5 * errors["linear"]


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(ValueError, match="kind is 'deep', expected one of linear, mlp"):
        VarianceHead(4, kind="deep")
