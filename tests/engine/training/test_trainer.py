"""The loop: what it writes, and that a run broken anywhere ends with the bits of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from run_bits import bits, same, steps, stop_at
from safetensors.torch import load_file

from facekd.engine.training import trainer
from facekd.engine.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from facekd.engine.training.trainer import plan_run, train
from facekd.errors import (
    CheckpointError,
    DataError,
    InputError,
    Interrupted,
    NonFiniteError,
    RecipeError,
    UsageError,
)
from facekd.models.embedder import load_embedder
from facekd.models.weights import load_classifier, save_classifier
from facekd.recipe import Recipe

PAD = {"name": "pad", "warmup_epochs": 0.5}
EKD = {"name": "ekd", "fprs": [0.1, 0.01, 1e-6], "queue": 16}
INHERITED = {"name": "margin_softmax", "class_weights": "teacher", "scale": 8.0, "margin": 0.2}


@pytest.fixture
def teacher(make_recipe, tmp_path: Path) -> Path:
    out = tmp_path / "teacher"
    quick = ("optimizer.name=adamw", "optimizer.learning_rate=0.01", "train.epochs=12", "data.augment.erase=0")
    train(make_recipe(quick), out, device="cpu")
    return out


@pytest.fixture
def distil(make_recipe, teacher: Path):
    """A recipe with every kind of term this trainer knows."""

    def make(**sections: object) -> Recipe:
        losses = [INHERITED, {"name": "l2"}, {"name": "logit_kd"}, PAD, {"name": "cckd"}, {"name": "adadistill"}, EKD]
        given = {"teacher": {"weights": str(teacher)}, "losses": losses} | sections
        return make_recipe(**given)

    return make


def test_run_folder__holds_what_the_contract_says(make_recipe, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(make_recipe(), out, device="cpu")
    names = {p.name for p in out.iterdir()}
    files = {"recipe.yaml", "environment.json", "metrics.jsonl", "checkpoints", "student.safetensors", "log.txt"}
    assert names == files | {"classifier.safetensors"}
    embedder = load_embedder(out)
    assert embedder.embedding_size == 8 and embedder.metadata["backbone"] == "resnet_tiny"
    assert embedder.metadata["template"] == "arcface"
    assert [record["step"] for record in steps(out)] == list(range(1, 13))
    weights, classes, source = load_classifier(out / "classifier.safetensors")
    assert weights.shape == (6, 8) and classes[0] == "person0" and source == "trained"


def test_a_folder_of_a_run_that_ended_before_its_recipe_was_written_is_taken(make_recipe, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "recipe.yaml.tmp.17").write_text("na")
    train(make_recipe(("train.max_steps=2",)), out, device="cpu")
    assert (out / "student.safetensors").exists() and not list(out.glob("*.tmp.*"))


def test_training__learns(make_recipe, tmp_path: Path) -> None:
    losses = [{"name": "margin_softmax", "scale": 8.0, "margin": 0.0, "kind": "combined"}]
    train(make_recipe(("train.epochs=12",), losses=losses), tmp_path / "run", device="cpu")
    curve = [record["loss"] for record in steps(tmp_path / "run")]
    assert sum(curve[-4:]) < 0.5 * sum(curve[:4])


@pytest.mark.parametrize("workers", [(0, 0, 0), (2, 2, 2), (0, 2, 1)])
def test_resume__ends_with_the_same_bits(distil, tmp_path: Path, workers: tuple[int, int, int]) -> None:
    sets = [{"synthetic": {"identities": 3, "samples": 2}}]
    recipe = distil(evaluate={"sets": sets, "every": 1.0, "fpr": [0.5], "select": "best"})
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(recipe, whole, device="cpu")
    one, other, last = [
        recipe.model_copy(update={"train": recipe.train.model_copy(update={"workers": count})}) for count in workers
    ]
    for number, step in enumerate((3, 8)):
        with pytest.raises(Interrupted):
            train((one, other)[number], broken, resume=number > 0, device="cpu", listener=stop_at(step))
    train(last, broken, resume=True, device="cpu")
    assert same(whole, broken)
    assert steps(whole) == steps(broken)


def test_resume__negative_control__a_forgotten_optimizer_does_not_end_with_the_same_bits(
    make_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(make_recipe(), tmp_path / "whole", device="cpu")
    with pytest.raises(Interrupted):
        train(make_recipe(), tmp_path / "broken", device="cpu", listener=stop_at(5))
    monkeypatch.setattr("facekd.engine.training.session.restore_optimizer", lambda *_: None)
    train(make_recipe(), tmp_path / "broken", resume=True, device="cpu")
    assert not same(tmp_path / "whole", tmp_path / "broken")


def test_resume__with_candidates__measures_what_they_leave_out_once_an_epoch(distil, tmp_path: Path) -> None:
    recipe = distil(losses=[{**INHERITED, "candidates": 2}])
    train(recipe, tmp_path / "whole", device="cpu")
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "broken", device="cpu", listener=stop_at(6))
    train(recipe, tmp_path / "broken", resume=True, device="cpu")
    assert same(tmp_path / "whole", tmp_path / "broken")
    records = steps(tmp_path / "whole")
    assert records == steps(tmp_path / "broken")
    told = [record["candidates"]["margin_softmax"] for record in records]
    assert [told.index(one) for one in told] == [0] * 4 + [4] * 4 + [8] * 4
    assert all(0 < one["left_out"] <= one["at_most"] for one in told)
    assert not any("found" in name or "neighbours" in name for name in bits(tmp_path / "whole"))


def test_resume__with_average_and_adamw(make_recipe, tmp_path: Path) -> None:
    recipe = make_recipe(
        ("train.ema=0.9", "optimizer.name=adamw", "optimizer.learning_rate=0.01", "optimizer.clip_gradient=1.0")
    )
    train(recipe, tmp_path / "whole", device="cpu")
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "broken", device="cpu", listener=stop_at(5))
    train(recipe, tmp_path / "broken", resume=True, device="cpu")
    assert same(tmp_path / "whole", tmp_path / "broken")
    saved = bits(tmp_path / "whole")
    assert not torch.equal(saved["checkpoint.average.linear.weight"], saved["checkpoint.student.linear.weight"])
    assert torch.equal(saved["student.linear.weight"], saved["checkpoint.average.linear.weight"])


def test_frozen_norm__keeps_the_running_statistics_of_the_last_epochs(make_recipe, tmp_path: Path) -> None:
    train(make_recipe(("train.max_steps=8", "schedule.name=constant")), tmp_path / "short", device="cpu")
    train(make_recipe(("schedule.name=constant", "train.freeze_norm_epochs=1")), tmp_path / "long", device="cpu")
    short, long = bits(tmp_path / "short"), bits(tmp_path / "long")
    assert torch.equal(short["student.bn.running_mean"], long["student.bn.running_mean"])
    assert not torch.equal(short["student.linear.weight"], long["student.linear.weight"])


def test_inherited_classifier__is_bit_identical_after_training_with_decay_and_momentum(
    distil, teacher: Path, tmp_path: Path
) -> None:
    train(distil(losses=[INHERITED]), tmp_path / "student", device="cpu")
    before, after = (load_classifier(run / "classifier.safetensors")[0] for run in (teacher, tmp_path / "student"))
    assert torch.equal(before, after)
    assert torch.equal(bits(tmp_path / "student")["checkpoint.objective.inherited.class_weights"], before)


def test_inherited_classifier__with_permuted_labels_is_refused(distil, teacher: Path, tmp_path: Path) -> None:
    path = teacher / "classifier.safetensors"
    weights, names, source = load_classifier(path)
    save_classifier(path, weights.roll(1, 0), names, source)
    for _ in range(2):
        with pytest.raises(UsageError, match="training images are nearest to their own class"):
            train(distil(losses=[INHERITED]), tmp_path / "student", device="cpu")


def test_inherited_classifier__of_other_identities_is_refused(distil, teacher: Path, tmp_path: Path) -> None:
    path = teacher / "classifier.safetensors"
    weights, names, source = load_classifier(path)
    save_classifier(path, weights, ["stranger", *names[1:]], source)
    with pytest.raises(InputError, match="lacks 1 of the data's 6 identities: person0"):
        train(distil(losses=[INHERITED]), tmp_path / "student", device="cpu")


def test_inherited_classifier__rows_follow_the_names_not_the_order(distil, teacher: Path, tmp_path: Path) -> None:
    path = teacher / "classifier.safetensors"
    weights, names, source = load_classifier(path)
    save_classifier(path, weights.flip(0), names[::-1], source)
    train(distil(losses=[INHERITED]), tmp_path / "student", device="cpu")
    assert torch.equal(load_classifier(tmp_path / "student" / "classifier.safetensors")[0], weights)


def test_variance_head__is_trained_and_checkpointed_but_not_part_of_the_student(distil, tmp_path: Path) -> None:
    train(distil(losses=[PAD]), tmp_path / "student", device="cpu")
    found = bits(tmp_path / "student")
    assert any(name.startswith("checkpoint.objective.parts.pad.head") for name in found)
    assert not any("variance" in name for name in found if name.startswith("student."))


def test_inherited_classifier__may_know_more_identities_than_the_data(distil, teacher: Path, tmp_path: Path) -> None:
    path = teacher / "classifier.safetensors"
    weights, names, source = load_classifier(path)
    more = torch.cat([torch.randn(2, 8), weights])
    save_classifier(path, more, ["a stranger", "another", *names], source)
    train(distil(losses=[INHERITED]), tmp_path / "student", device="cpu")
    assert torch.equal(load_classifier(tmp_path / "student" / "classifier.safetensors")[0], weights)


def test_class_means__stand_in_and_are_named(distil, teacher: Path, tmp_path: Path) -> None:
    (teacher / "classifier.safetensors").unlink()
    train(distil(losses=[INHERITED]), tmp_path / "student", device="cpu")
    record = json.loads((tmp_path / "student" / "environment.json").read_text())
    assert record["inherited_classifier"]["source"] == "class means of the teacher's embeddings"
    assert record["inherited_classifier"]["agreement"] > 0.5


def test_teacher_cache__is_shared_by_runs_side_by_side(distil, tmp_path: Path) -> None:
    for name in ("one", "two"):
        train(distil(losses=[{"name": "l2"}]), tmp_path / name, device="cpu")
    assert len(list((tmp_path / "teacher-cache").iterdir())) == 1


def test_live_teacher__sees_the_pixels_the_student_sees(distil, teacher: Path, tmp_path: Path) -> None:
    sections = {"losses": [{"name": "l2"}]}
    clean, same_view = distil(**sections), distil(**sections, teacher={"weights": str(teacher), "view": "same"})
    quiet = {"augment": clean.data.augment.model_copy(update={"shift": 0.0, "color": 0.0, "erase": 0.0})}
    runs = []
    for number, recipe in enumerate((clean, same_view)):
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update=quiet)})
        train(recipe, tmp_path / str(number), device="cpu")
        runs.append([record["loss"] for record in steps(tmp_path / str(number))])
    assert runs[0] == pytest.approx(runs[1], rel=1e-4)
    assert not (tmp_path / "1" / "teacher-cache").exists()


def test_versions__the_cached_teacher_saw_exactly_what_the_student_is_shown(
    distil, teacher: Path, tmp_path: Path
) -> None:
    changed = distil().data.model_dump() | {"versions": 2}
    changed["augment"] |= {"mix": 0.5}
    live = distil(losses=[{"name": "l2"}], data=changed, teacher={"weights": str(teacher), "view": "same"})
    runs = []
    for name, cached in (("cached", True), ("live", False)):
        with pytest.MonkeyPatch.context() as patch:
            if not cached:
                patch.setattr("facekd.engine.training.build.cached_views", lambda recipe: 0)
            train(live, tmp_path / name, device="cpu")
        runs.append([record["loss"] for record in steps(tmp_path / name)])
    assert runs[0] == pytest.approx(runs[1], rel=1e-4)


def test_a_loss_that_is_not_finite__stops_before_the_update_with_term_and_step(
    make_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = trainer.take_step

    def poisoned(session, network, batch):
        if session.step == 5:
            session.objective.own.class_weights.data[0, 0] = float("nan")
        return take(session, network, batch)

    monkeypatch.setattr(trainer, "take_step", poisoned)
    with pytest.raises(NonFiniteError, match="step 5: loss term margin_softmax is not finite; nothing was updated"):
        train(make_recipe(), tmp_path / "run", device="cpu")
    newest = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))[-1]
    assert all(torch.isfinite(t.float()).all() for t in load_file(newest).values())


def test_the_image_whose_embedding_is_not_finite_is_named(
    make_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, named = trainer.take_step, []

    def poisoned(session, network, batch):
        if session.step != 1:
            return take(session, network, batch)
        named.append(session.source.sample_name(int(batch.indices[2])))
        return take(session, lambda pixels: network(pixels).index_fill(0, torch.tensor([2]), float("inf")), batch)

    monkeypatch.setattr(trainer, "take_step", poisoned)
    with pytest.raises(NonFiniteError) as caught:
        train(make_recipe(), tmp_path / "run", device="cpu")
    assert f"nothing was updated; the student's embedding of {named[0]} is not, 1 of " in str(caught.value)


def test_a_gradient_that_is_not_finite__stops_before_the_update(
    make_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooked = []

    def hook(session, network, batch):
        if session.step == 3 and not hooked:
            parameter = next(session.student.parameters())
            hooked.append(parameter.register_hook(lambda g: g * float("inf")))
            hooked.append(parameter.detach().clone())
        return take(session, network, batch)

    take = trainer.take_step
    monkeypatch.setattr(trainer, "take_step", hook)
    with pytest.raises(NonFiniteError, match="step 3: gradient of .* is not finite"):
        train(make_recipe(), tmp_path / "run", device="cpu")


def test_an_image_that_does_not_decode__stops_with_its_name_and_a_checkpoint(make_recipe, faces: Path, tmp_path: Path):
    recipe = make_recipe()
    copy = tmp_path / "faces"
    for path in sorted(faces.rglob("*.png")):
        (copy / path.parent.name).mkdir(parents=True, exist_ok=True)
        (copy / path.parent.name / path.name).write_bytes(path.read_bytes())
    (copy / "person3" / "2.png").write_bytes(b"<html>not found</html>" * 9)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": str(copy)})})
    with pytest.raises(DataError, match="person3/2.png.*not an image"):
        train(recipe, tmp_path / "run", device="cpu")


def test_a_second_run_in_the_folder__is_refused_by_name(make_recipe, tmp_path: Path) -> None:
    train(make_recipe(), tmp_path / "run", device="cpu")
    with pytest.raises(UsageError, match="already holds a run .go on with --resume, or replace it with --overwrite"):
        train(make_recipe(), tmp_path / "run", device="cpu")
    changed = make_recipe(("optimizer.learning_rate=0.5",))
    with pytest.raises(UsageError, match="the recipe changed since this run began: optimizer.learning_rate"):
        train(changed, tmp_path / "run", resume=True, device="cpu")
    train(changed, tmp_path / "run", overwrite=True, device="cpu")
    with pytest.raises(UsageError, match="holds no run to resume"):
        train(changed, tmp_path / "new", resume=True, device="cpu")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file, not a folder"):
        train(changed, tmp_path / "file", device="cpu")


def test_a_folder_of_what_the_run_reads__is_refused(distil, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is or holds what the run reads: teacher.weights"):
        train(distil(), teacher, overwrite=True, device="cpu")
    recipe, before = distil(), (teacher / "student.safetensors").read_bytes()
    section = recipe.teacher.model_copy(update={"weights": str(teacher / "student.safetensors")})
    by_file = recipe.model_copy(update={"teacher": section})
    with pytest.raises(UsageError, match="is or holds what the run reads: teacher.weights"):
        train(by_file, teacher, overwrite=True, device="cpu")
    assert (teacher / "student.safetensors").read_bytes() == before
    train(by_file, tmp_path / "beside", device="cpu")


def test_a_folder_among_the_people__is_refused(make_recipe, faces: Path) -> None:
    with pytest.raises(UsageError, match="lies among the people of data.path"):
        train(make_recipe(), faces / "run", device="cpu")
    assert not (faces / "run").exists()


def test_changed_data__is_refused_on_resume(make_recipe, faces: Path, tmp_path: Path) -> None:
    recipe = make_recipe()
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "run", device="cpu", listener=stop_at(3))
    extra = faces / "person0" / "new.png"
    extra.write_bytes((faces / "person0" / "0.png").read_bytes())
    try:
        with pytest.raises(CheckpointError, match="the data changed since it was written"):
            train(recipe, tmp_path / "run", resume=True, device="cpu")
    finally:
        extra.unlink()


def test_a_checkpoint_of_other_tensors__is_refused_in_one_line(make_recipe, tmp_path: Path) -> None:
    recipe, folder = make_recipe(), tmp_path / "run" / "checkpoints"
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "run", device="cpu", listener=stop_at(3))
    saved, _ = load_checkpoint(folder)
    spoilt = {name: tensor.repeat(2) if tensor.dim() == 1 else tensor for name, tensor in saved.tensors.items()}
    (lost, *_) = (name for name in saved.tensors if name.startswith("student."))
    for tensors, facts in ((spoilt, saved.facts), ({**saved.tensors, lost: torch.zeros(3)}, saved.facts),
                           (saved.tensors, {**saved.facts, "best": 5})):  # fmt: skip
        save_checkpoint(folder, Checkpoint(3, tensors, facts))
        with pytest.raises(CheckpointError, match="step 3: holds other things than a run of this recipe: ") as caught:
            train(recipe, tmp_path / "run", resume=True, device="cpu")
        assert len(caught.value.lines) == 1
    save_checkpoint(folder, saved)
    with open(tmp_path / "run" / "metrics.jsonl", "a") as stream:
        stream.writelines(f"{rot}\n" for rot in ("[]", "7", "{}", '{"step": "x"}', '{"step": null}', "[" * 100_000))
    train(recipe, tmp_path / "run", resume=True, device="cpu")
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] == plan_run(recipe, "cpu").total_steps


def test_plan__sizes_the_run_and_refuses_what_cannot_fit(make_recipe, distil, tmp_path: Path) -> None:
    plan = plan_run(distil(), "cpu")
    assert (plan.images, plan.identities, plan.steps_per_epoch, plan.total_steps) == (24, 6, 4, 12)
    assert plan.cache_bytes == 24 * 2 * 8 * 4 and plan.classifier_bytes == 6 * 8 * 4
    near = plan_run(distil(losses=[{**INHERITED, "candidates": 2}]), "cpu")
    assert near.classifier_bytes == 6 * 8 * 4 + 6 * 3 * 4
    own = [
        plan_run(make_recipe(losses=[{"name": "margin_softmax", "sample_rate": rate}]), "cpu").classifier_bytes
        for rate in (1.0, 0.5)
    ]
    assert own == [6 * 8 * 4 * 3, 6 * 8 * 4 * (2 + 0.5 * 3)]
    with pytest.raises(UsageError, match="100, but there are 24 training images"):
        plan_run(make_recipe(("train.batch_size=100",)), "cpu")
    with pytest.raises(RecipeError, match="embedding_size: 16, the teacher's is 8"):
        plan_run(distil(student=distil().student.model_dump() | {"embedding_size": 16}), "cpu")


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal__saves_and_exits_with_the_field_s_code(make_recipe, tmp_path: Path, sent: int, code: int) -> None:
    make_recipe(("train.epochs=2000",))
    out = tmp_path / "run"
    command = [sys.executable, "-m", "facekd_cli", "train", str(tmp_path / "recipe.yaml")]
    command += ["--set", "train.epochs=2000", "--set", "train.workers=2", "--out", str(out), "--device", "cpu"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not (out / "metrics.jsonl").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert stderr.splitlines() == [f"facekd: error: {out}: stopped; go on with --resume"]
    assert sorted((out / "checkpoints").glob("step-*.safetensors"))
    assert not (out / ".lock").exists()


def test_a_student_that_cannot_be_compiled__is_trained_as_it_is_and_the_log_says_so(
    make_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch._dynamo.reset()
    with torch._inductor.config.patch({"cpp.cxx": (None, "/no/such/compiler"), "force_disable_caches": True}):
        train(make_recipe(("train.compile=true",)), tmp_path / "run", device="cpu")
    train(make_recipe(), tmp_path / "plain", device="cpu")
    told = [line for line in (tmp_path / "run" / "log.txt").read_text().splitlines() if "not compiled" in line]
    assert len(told) == 1 and "No working C++ compiler" in told[0]
    assert steps(tmp_path / "run") == steps(tmp_path / "plain")
