"""The loss sections of a recipe say what the loss functions take: the same names, the same defaults."""

from __future__ import annotations

import inspect

import pytest
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from facekd.recipe.loss_options import LOSS_OPTIONS, MarginSoftmax, sees_own_classifier

NAMES = {model.model_fields["name"].annotation.__args__[0]: model for model in LOSS_OPTIONS}


def test_every_loss_has_a_section_and_every_section_a_loss():
    from facekd.losses import LOSSES

    assert set(LOSSES) == set(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_names_and_defaults_are_those_of_the_function(name):
    from facekd.losses import LOSSES

    model = NAMES[name]
    parameters = inspect.signature(LOSSES[name]).parameters.values()
    taken = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    offered = {key: field.default for key, field in model.model_fields.items() if key != "name"}
    assert model.engine_options <= offered.keys()
    assert {key: value for key, value in offered.items() if key not in model.engine_options} == taken
    assert PydanticUndefined not in offered.values()


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_losses_that_see_the_classifier_in_training_are_those_that_take_its_rows(name):
    from facekd.losses import LOSSES

    assert sees_own_classifier(NAMES[name](name=name)) == (
        "class_weights" in inspect.signature(LOSSES[name]).parameters
    )


@pytest.mark.parametrize("name", sorted(NAMES))
def test_loss_options_call_the_function(name):
    import torch

    from facekd.losses import LOSSES, SubsetTeacher

    embeddings, labels = torch.eye(3) + 0.1, torch.arange(3)
    at_hand = {"student": embeddings, "teacher": embeddings.flip(0), "labels": labels, "class_weights": torch.eye(3)}
    at_hand |= {"teacher_class_weights": torch.eye(3), "log_variance": torch.zeros(3, 1), "centres": torch.eye(3)}
    at_hand |= {"virtual_student": embeddings, "virtual_teacher": embeddings, "virtual_shares": torch.full((3,), 0.5)}
    at_hand |= {"virtual_labels": torch.tensor([[0, 1], [1, 2], [2, 0]])}
    at_hand |= {"assistant": embeddings.flip(1), "noise": torch.eye(3)}
    at_hand |= dict.fromkeys(("student_thresholds", "teacher_thresholds"), torch.tensor([0.1, 0.5]))
    one = SubsetTeacher(embeddings, labels, torch.tensor(1.0), torch.eye(3), torch.eye(3))
    at_hand |= {"subsets": (one,), "neighbours": None, "class_share": None}
    function = LOSSES[name]
    inputs = [at_hand[key] for key, p in inspect.signature(function).parameters.items() if p.kind is not p.KEYWORD_ONLY]
    assert function(*inputs, **NAMES[name](name=name).loss_options()).shape == ()


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "cosface", "past_pi": "easy"},
        {"kind": "cosface", "margin_gradient": "passthrough"},
        {"kind": "cosface", "margin_cosine": 0.1},
        {"kind": "arcface", "margin_multiplier": 1.5},
        {"kind": "combined", "margin_multiplier": 4.0},
        {"kind": "combined", "margin": 1.6},
        {"scale": 0.0},
    ],
)
def test_what_the_function_refuses_the_recipe_refuses(options):
    import torch

    from facekd.losses import LOSSES

    with pytest.raises(ValueError):
        LOSSES["margin_softmax"](torch.eye(3), torch.eye(3), torch.arange(3), **options)
    with pytest.raises(ValidationError):
        MarginSoftmax(name="margin_softmax", **options)


@pytest.mark.parametrize("margin", [0.0, -0.1, 1.5708, float("nan")])
def test_margin_lies_strictly_between_0_and_half_pi(margin):
    with pytest.raises(ValidationError):
        MarginSoftmax(name="margin_softmax", margin=margin)


def test_a_margin_of_0_is_allowed_where_margins_are_combined():
    assert MarginSoftmax(name="margin_softmax", kind="combined", margin=0.0, margin_cosine=0.35).margin == 0.0
