"""Runs that learn an uncertainty: the same bits however they are cut, and a student that is left as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from facekd.engine.objective import Objective
from facekd.engine.outputs import Sizes, StepOutputs
from facekd.engine.trainer import Listener, train
from facekd.errors import Interrupted, RecipeError
from facekd.losses import dul, margin_softmax
from facekd.models.backbone import BACKBONES, build_backbone
from facekd.recipe.loss_options import Dul

CLASSES, DIM, BATCH, PER_EPOCH = 5, 8, 6, 4
SIZES = Sizes(classes=CLASSES, embedding_size=DIM, teacher_size=DIM, batch_size=BATCH, steps_per_epoch=PER_EPOCH)
DUL = {"name": "dul", "scale": 8.0, "margin": 0.2}


def bits(run: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    last = sorted((run / "checkpoints").glob("step-*.safetensors"))[-1]
    files = {"checkpoint": last} | {path.stem: path for path in run.glob("*.safetensors")}
    return {f"{kind}.{name}": tensor for kind, path in files.items() for name, tensor in load_file(path).items()}


def same(one: Path, other: Path) -> bool:
    a, b = bits(one), bits(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stop_at(step: int) -> Listener:
    """A listener that interrupts the run once ``step`` is recorded."""
    import signal

    def listen(record: dict, total: int) -> None:
        if record["step"] == step and "terms" in record:
            signal.raise_signal(signal.SIGTERM)

    return Listener(step=listen)


@pytest.fixture
def batch() -> StepOutputs:
    torch.manual_seed(0)
    return StepOutputs(torch.randn(BATCH, DIM), torch.randn(BATCH, DIM), torch.arange(BATCH) % CLASSES)


def test_dul__draws_by_the_random_state_of_the_step_and_in_evaluation_not_at_all(batch: StepOutputs) -> None:
    torch.manual_seed(1)
    objective = Objective((Dul(name="dul", scale=8.0),), SIZES)
    found = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        found.append(objective.parts["dul"](batch, 3)["noise"])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    objective.eval()
    assert not objective.parts["dul"](batch, 3)["noise"].any()
    log_variance = objective.parts["dul"].head(batch.student)
    wanted = dul(
        batch.student, log_variance, torch.zeros(BATCH, DIM), objective.own.class_weights, batch.labels, scale=8.0
    )
    torch.testing.assert_close(objective(batch, 3)["dul"], wanted)


def test_dul__takes_the_classifier_it_is_told(batch: StepOutputs) -> None:
    inherited = torch.randn(CLASSES, DIM)
    options = {"name": "dul", "kl_weight": 0.0, "scale": 8.0}
    for choice, given in (("own", None), ("teacher", inherited)):
        objective = Objective((Dul(class_weights=choice, **options),), SIZES, given).eval()
        weights = given if given is not None else objective.own.class_weights
        wanted = margin_softmax(batch.student, weights, batch.labels, scale=8.0)
        torch.testing.assert_close(objective(batch, 1)["dul"], wanted)
    assert all(name.startswith("parts.dul.head") for name, _ in objective.named_parameters())


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("variance", ["per_dimension", "scalar"])
def test_dul__starts_at_variance_1_when_its_term_begins(batch: StepOutputs, head: str, variance: str) -> None:
    term = Dul(name="dul", start_epoch=1.0, head=head, variance=variance)
    part = Objective((term,), SIZES).parts["dul"]
    nn.init.constant_(part.head.bn.bias if head == "linear" else part.head.shift, 3.0)
    assert part(batch, PER_EPOCH - 1)["log_variance"].mean().item() == pytest.approx(3.0, abs=0.2)
    found = part(batch, PER_EPOCH)["log_variance"]
    assert found.shape == (BATCH, DIM if variance == "per_dimension" else 1)
    assert found.mean().item() == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("detach", [True, False])
def test_dul__a_detached_head_sends_the_student_nothing_through_the_variance(batch: StepOutputs, detach: bool) -> None:
    part = Objective((Dul(name="dul", detach_variance=detach),), SIZES).parts["dul"]
    student = batch.student.requires_grad_()
    part(batch, 1)["log_variance"].square().sum().backward()
    assert (student.grad is None) == detach


@pytest.mark.parametrize("workers", [0, 2])
def test_dul__resumes_with_the_same_bits(make_recipe, tmp_path: Path, workers: int) -> None:
    recipe = make_recipe(losses=[DUL])
    train(recipe, tmp_path / "whole", device="cpu")
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"workers": workers})})
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "broken", device="cpu", listener=stop_at(5))
    train(recipe, tmp_path / "broken", resume=True, device="cpu")
    assert same(tmp_path / "whole", tmp_path / "broken")


def test_dul__trains_in_bfloat16(make_recipe, tmp_path: Path) -> None:
    train(make_recipe(("train.precision=bf16",), losses=[DUL]), tmp_path / "run", device="cpu")
    assert bits(tmp_path / "run")["checkpoint.objective.parts.dul.head.linear.weight"].isfinite().all()


def test_a_run_has_one_variance_and_one_choice_of_classifier(make_recipe) -> None:
    with pytest.raises(RecipeError, match="dul learns a variance, and so does pad"):
        make_recipe(losses=[{"name": "pad"}, DUL], teacher={"weights": "t.pt"})
    both = [{"name": "margin_softmax", "class_weights": "own"}, DUL | {"class_weights": "teacher"}]
    with pytest.raises(RecipeError, match="losses.1.class_weights: teacher, but margin_softmax has own"):
        make_recipe(losses=both, teacher={"weights": "t.pt"})


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_backbone_ends_in_batch_norm__so_the_divergence_meets_a_mean_of_unit_spread(name: str) -> None:
    with torch.device("meta"):
        layers = [
            m for m in build_backbone(name, embedding_size=512, input_size=112).modules() if not list(m.children())
        ]
    assert isinstance(
        [m for m in layers if list(m.buffers()) or list(m.parameters())][-1], nn.BatchNorm1d | nn.BatchNorm2d
    )
