"""Runs that learn an uncertainty: the same bits however they are cut, and a student that is left as it was."""

from __future__ import annotations

import json
import re
from pathlib import Path

import onnx
import pytest
import torch
from run_bits import bits, same, stop_at
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from facekd.engine.training.build import make_optimizer, make_student
from facekd.engine.training.objective import Objective
from facekd.engine.training.outputs import Sizes, StepOutputs
from facekd.engine.training.trainer import Listener, train
from facekd.engine.uncertainty import with_variance
from facekd.errors import CheckpointError, Interrupted, RecipeError, UsageError
from facekd.files import file_digest
from facekd.losses import dul, margin_softmax
from facekd.losses.logits import logit_divergences
from facekd.losses.relation import similarity_distances
from facekd.models.backbone import BACKBONES, build_backbone
from facekd.models.embedder import load_embedder
from facekd.models.heads import VarianceHead
from facekd.models.uncertainty_file import UNCERTAINTY_FILE
from facekd.recipe import Recipe
from facekd.recipe.loss_options import Dul, DulRegression, MarginSoftmax, PadLogit, PadRelation, Pfe

CLASSES, DIM, BATCH, PER_EPOCH = 5, 8, 6, 4
SIZES = Sizes(classes=CLASSES, embedding_size=DIM, teacher_size=DIM, batch_size=BATCH, steps_per_epoch=PER_EPOCH)
DUL = {"name": "dul", "scale": 8.0, "margin": 0.2}


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


PLAIN = {"name": "margin_softmax", "scale": 8.0, "margin": 0.2}
PFE = {"name": "pfe", "head": "mlp"}
REGRESSION = {"name": "dul_regression", "head": "linear"}


@pytest.fixture
def finished(make_recipe, tmp_path: Path) -> Path:
    """A student that was trained without any variance."""
    quick = ("optimizer.name=adamw", "optimizer.learning_rate=0.01", "train.epochs=12", "data.augment.erase=0")
    train(make_recipe(quick, losses=[PLAIN]), tmp_path / "finished", device="cpu")
    return tmp_path / "finished"


@pytest.fixture
def on_frozen(make_recipe, finished: Path):
    """A recipe that leaves that student as it is."""

    def make(overrides: tuple[str, ...] = (), **sections: object) -> Recipe:
        student = make_recipe().student.model_dump() | {"weights": str(finished / "student.safetensors")}
        given = {"losses": [PFE], "optimizer": {"name": "adamw", "learning_rate": 0.01}}
        given |= {"train": {"epochs": 4, "batch_size": 6, "images_per_identity": 3, "log_every": 1}}
        return make_recipe(overrides, **{"student": student | {"frozen": True}, **given, **sections})

    return make


def students(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "student.safetensors")


@pytest.mark.parametrize("loss", [PFE, REGRESSION])
def test_frozen__only_the_head_learns_and_it_resumes_with_the_same_bits(
    on_frozen, finished: Path, tmp_path: Path, loss: dict
) -> None:
    sections: dict = {"losses": [loss]}
    if loss is REGRESSION:
        sections["teacher"] = {"weights": str(finished)}
    recipe = on_frozen(**sections)
    train(recipe, tmp_path / "whole", device="cpu")
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "broken", device="cpu", listener=stop_at(5))
    train(recipe, tmp_path / "broken", resume=True, device="cpu")
    assert same(tmp_path / "whole", tmp_path / "broken")
    heads = [load_file(tmp_path / run / UNCERTAINTY_FILE) for run in ("whole", "broken")]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])
    before, after = students(finished), students(tmp_path / "whole")
    assert all(torch.equal(before[name], after[name]) for name in before)
    start = VarianceHead(8, 8, loss["head"]).state_dict()
    trained = "shift" if loss is PFE else "bn.bias"
    assert not torch.equal(heads[0][trained], start[trained])


def test_frozen__the_optimizer_holds_the_head_alone_and_other_students_do_learn(
    on_frozen, finished: Path, tmp_path: Path
) -> None:
    recipe = on_frozen(losses=[PFE, PLAIN])
    student, _ = make_student(recipe.student, 0)
    objective = Objective(recipe.losses, SIZES)
    held = {
        id(p) for group in make_optimizer(recipe.optimizer, student, objective).param_groups for p in group["params"]
    }
    assert held == {id(p) for p in objective.parameters()}
    thawed = recipe.model_copy(update={"student": recipe.student.model_copy(update={"frozen": False})})
    train(thawed, tmp_path / "thawed", device="cpu")
    assert not torch.equal(students(finished)["linear.weight"], students(tmp_path / "thawed")["linear.weight"])


def test_frozen__a_warm_up_without_anything_to_learn_passes_and_the_head_learns_after_it(
    on_frozen, finished: Path, tmp_path: Path
) -> None:
    recipe = on_frozen(losses=[{"name": "pad", "warmup_epochs": 1.0}], teacher={"weights": str(finished)})
    train(recipe, tmp_path / "run", device="cpu")
    before, after = students(finished), students(tmp_path / "run")
    assert all(torch.equal(before[name], after[name]) for name in before)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [record["gradient_norm"] > 0 for record in records] == [record["step"] > 4 for record in records]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"student": {"backbone": "resnet_tiny", "frozen": True}, "losses": [PFE]},
            "student.frozen: true, and there are",
        ),
        ({"losses": [PFE]}, "pfe alone draws all people together"),
        ({"losses": [REGRESSION | {"class_weights": "own"}]}, "own, but no other loss trains a classifier"),
        ({"losses": [REGRESSION]}, "dul_regression with class_weights: teacher needs a teacher"),
        (
            {"student": {"backbone": "resnet_tiny", "frozen": True, "weights": "w"}, "losses": [{"name": "l2"}]},
            "true, and no loss trains anything else",
        ),
        (
            {"student": {"backbone": "resnet_tiny", "assistant": {"backbone": "resnet_tiny"}}, "losses": [DUL]},
            "dul learns a variance of the student alone",
        ),
    ],
)
def test_what_no_variance_can_be_learned_from_is_refused(make_recipe, sections: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_recipe(**sections)


def test_heads__start_at_what_the_step_shows(batch: StepOutputs) -> None:
    inherited = torch.randn(CLASSES, DIM)
    mean = nn.functional.normalize(batch.student)
    regression = Objective((DulRegression(name="dul_regression", variance="scalar"),), SIZES, inherited)
    regression(batch, 0)
    wanted = (mean - nn.functional.normalize(inherited[batch.labels])).square().mean().log()
    torch.testing.assert_close(regression.head.shift.detach(), wanted)
    pairs = Objective((Pfe(name="pfe"),), SIZES)
    pairs(batch, 0)
    torch.testing.assert_close(pairs.head.shift.detach(), (0.5 * (mean[0] - mean[5]).square()).mean().log())
    alone = Objective((Pfe(name="pfe"),), SIZES)
    alone(StepOutputs(batch.student, None, torch.arange(BATCH)), 0)
    assert alone.head.shift.item() == VarianceHead.SHARED_SHIFT


def test_the_head_of_a_run__is_saved_with_the_digest_of_its_student_and_is_no_part_of_it(
    make_recipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(make_recipe(losses=[DUL]), run, device="cpu")
    model = with_variance(load_embedder(run), run)
    last = load_file(sorted((run / "checkpoints").glob("step-*"))[-1])
    for name, tensor in model.head.state_dict().items():
        assert torch.equal(tensor, last[f"objective.parts.dul.head.{name}"])
    assert students(run).keys() == make_student(make_recipe().student, 0)[0].state_dict().keys()
    with safe_open(run / UNCERTAINTY_FILE, "pt") as stream:
        told = stream.metadata()
    assert told["student_digest"] == file_digest(run / "student.safetensors") and told["loss"] == "dul"


def test_the_head_of_a_run__is_averaged_with_the_student(make_recipe, tmp_path: Path) -> None:
    recipe = make_recipe(("train.ema=0.9",), losses=[DUL])
    train(recipe, tmp_path / "whole", device="cpu")
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "broken", device="cpu", listener=stop_at(5))
    train(recipe, tmp_path / "broken", resume=True, device="cpu")
    assert same(tmp_path / "whole", tmp_path / "broken")
    saved = load_file(tmp_path / "whole" / UNCERTAINTY_FILE)["linear.weight"]
    found = bits(tmp_path / "whole")
    assert torch.equal(saved, found["checkpoint.average_head.linear.weight"])
    assert not torch.equal(saved, found["checkpoint.objective.parts.dul.head.linear.weight"])


def test_the_best_student__keeps_the_head_of_its_own_step(make_recipe, tmp_path: Path) -> None:
    sets = [{"synthetic": {"identities": 3, "samples": 2}}]
    recipe = make_recipe(losses=[DUL], evaluate={"sets": sets, "every": 1.0, "fpr": [0.5], "select": "best"})
    train(recipe, tmp_path / "run", device="cpu")
    assert with_variance(load_embedder(tmp_path / "run"), tmp_path / "run").head.outputs == 8


def test_a_run_of_another_loss_leaves_no_head_and_overwriting_removes_one(make_recipe, tmp_path: Path) -> None:
    train(make_recipe(losses=[DUL]), tmp_path / "run", device="cpu")
    assert (tmp_path / "run" / UNCERTAINTY_FILE).exists()
    train(make_recipe(losses=[PLAIN]), tmp_path / "run", overwrite=True, device="cpu")
    assert not (tmp_path / "run" / UNCERTAINTY_FILE).exists()
    with pytest.raises(UsageError, match="has no uncertainty.safetensors beside it"):
        with_variance(load_embedder(tmp_path / "run"), tmp_path / "run")


def test_the_head_of_another_student_is_refused(make_recipe, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 1)):
        train(make_recipe((f"train.seed={seed}",), losses=[DUL]), tmp_path / name, device="cpu")
    (tmp_path / "one" / UNCERTAINTY_FILE).replace(tmp_path / "two" / UNCERTAINTY_FILE)
    with pytest.raises(CheckpointError, match="belongs to another student"):
        with_variance(load_embedder(tmp_path / "two"), tmp_path / "two")


def test_the_head_is_in_no_export(make_recipe, tmp_path: Path) -> None:
    from facekd.engine.export.exporter import export_onnx

    for name, loss in (("with", DUL), ("without", PLAIN)):
        train(make_recipe(losses=[loss]), tmp_path / name, device="cpu")
        export_onnx(load_embedder(tmp_path / name), tmp_path / f"{name}.onnx", opencv=False)
    nodes = [[node.op_type for node in onnx.load(tmp_path / f"{name}.onnx").graph.node] for name in ("with", "without")]
    assert nodes[0] == nodes[1]


@pytest.mark.parametrize(("flat", "says"), [(True, "warning: uncertainty: .*equally sure"), (False, "^uncertainty: ")])
def test_a_run_tells_the_spread_of_its_uncertainty_and_warns_where_there_is_none(
    make_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flat: bool, says: str
) -> None:
    read, told = VarianceHead.forward, []
    if flat:
        monkeypatch.setattr(VarianceHead, "forward", lambda head, rows: 0.0 * read(head, rows) - 2.0)
    else:
        monkeypatch.setattr(VarianceHead, "forward", lambda head, rows: read(head, rows) + rows[:, :1])
    train(make_recipe(losses=[DUL]), tmp_path / "run", device="cpu", listener=Listener(say=told.append))
    (line,) = [line for line in told if "uncertainty: " in line]
    assert re.search(says, line) and "over 24 training images" in line
    assert line in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize("term", [PadLogit(name="pad_logit", temperature=2.0), PadRelation(name="pad_relation")])
def test_pad_over_other_distances__warms_up_on_them_and_starts_at_their_mean(
    batch: StepOutputs, term: PadLogit | PadRelation
) -> None:
    own = MarginSoftmax(name="margin_softmax", scale=8.0)
    objective = Objective((own, term.model_copy(update={"warmup_epochs": 0.5})), SIZES, torch.randn(CLASSES, DIM))
    if term.name == "pad_logit":
        weights = (objective.own.class_weights, objective.inherited.class_weights)
        wanted = logit_divergences(batch.student, batch.teacher, *weights, temperature=2.0).mean()
    else:
        wanted = similarity_distances(batch.student, batch.teacher).mean()
    for step in range(2):
        value = objective(batch, step)[term.name]
        torch.testing.assert_close(value, 1 + wanted.log())
    assert all(p.grad is None for p in objective.head.parameters())
    found = objective.parts[term.name](batch, 2)["log_variance"]
    assert found.shape == (BATCH, 1)
    torch.testing.assert_close(found.mean(), wanted.log(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["pad_logit", "pad_relation"])
def test_pad_over_other_distances__resumes_with_the_same_bits(
    make_recipe, finished: Path, tmp_path: Path, name: str
) -> None:
    losses = [PLAIN, {"name": name, "warmup_epochs": 0.5}]
    recipe = make_recipe(losses=losses, teacher={"weights": str(finished)})
    train(recipe, tmp_path / "whole", device="cpu")
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "broken", device="cpu", listener=stop_at(5))
    train(recipe, tmp_path / "broken", resume=True, device="cpu")
    assert same(tmp_path / "whole", tmp_path / "broken")
    assert with_variance(load_embedder(tmp_path / "whole"), tmp_path / "whole").head.outputs == 1
