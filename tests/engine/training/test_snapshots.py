"""Snapshots of a run, whole and in step with it, and a student that learns from them in turn."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_trainer import bits, same, steps, stop_at

from facekd.engine.training import saving, trainer
from facekd.engine.training.run import Listener
from facekd.engine.training.series import Series, chosen_snapshots, open_series, teacher_epoch
from facekd.engine.training.snapshots import Manifest, Snapshot, read_manifest, snapshot_file
from facekd.engine.training.trainer import plan_run, train
from facekd.errors import CheckpointError, DeviceError, Interrupted, RecipeError, UsageError
from facekd.files import file_digest
from facekd.losses import l2
from facekd.models.embedder import TorchEmbedder, load_embedder
from facekd.recipe import Recipe

L2 = [{"name": "l2"}]


def listed(run: Path) -> list[dict]:
    return json.loads((run / "snapshots.json").read_text())["snapshots"]


@pytest.fixture
def teacher(make_recipe, tmp_path: Path) -> Path:
    out = tmp_path / "teacher"
    train(make_recipe(("train.snapshot_every=1",)), out, device="cpu")
    return out


@pytest.fixture
def able(make_recipe, tmp_path: Path) -> Path:
    """A teacher good enough for its classifier to be inherited."""
    quick = ("optimizer.name=adamw", "optimizer.learning_rate=0.01", "train.epochs=12", "data.augment.erase=0")
    train(make_recipe((*quick, "train.snapshot_every=1")), tmp_path / "able", device="cpu")
    return tmp_path / "able"


@pytest.fixture
def follow(make_recipe, teacher: Path):
    """A recipe that learns from the teacher's snapshots."""

    def make(overrides: tuple[str, ...] = (), **sections: object) -> Recipe:
        section = {"weights": str(teacher), "snapshots": "aligned", "view": "same"}
        return make_recipe(overrides, **({"teacher": section, "losses": L2} | sections))

    return make


def test_snapshots__are_the_deployable_weights_after_each_epoch(teacher: Path, make_recipe, tmp_path: Path) -> None:
    manifest = json.loads((teacher / "snapshots.json").read_text())
    assert (manifest["format"], manifest["epochs"]) == ("facekd-snapshots-1", 3)
    entries = manifest["snapshots"]
    assert [(e["epoch"], e["step"], e["file"]) for e in entries] == [
        (epoch, 4 * epoch, f"epoch-00{epoch}.safetensors") for epoch in (1, 2, 3)
    ]
    for entry in entries:
        path = teacher / "snapshots" / entry["file"]
        assert file_digest(path) == entry["sha256"] and entry["embedding_size"] == 8
        assert load_embedder(path).metadata["steps"] == str(entry["step"])
    newest = load_file(teacher / "snapshots" / "epoch-003.safetensors")
    final = load_file(teacher / "student.safetensors")
    assert all(torch.equal(newest[name], final[name]) for name in final)
    with pytest.raises(Interrupted):
        train(make_recipe(), tmp_path / "short", device="cpu", listener=stop_at(8))
    middle = load_file(teacher / "snapshots" / "epoch-002.safetensors")
    stopped = load_file(tmp_path / "short" / "checkpoints" / "step-000000008.safetensors")
    assert all(torch.equal(middle[name], stopped[f"student.{name}"]) for name in middle)


def test_snapshots__are_averaged_weights_where_those_are_deployed(make_recipe, tmp_path: Path) -> None:
    train(make_recipe(("train.snapshot_every=1", "train.ema=0.9")), tmp_path / "run", device="cpu")
    newest = load_file(tmp_path / "run" / "snapshots" / "epoch-003.safetensors")
    saved = bits(tmp_path / "run")
    assert torch.equal(newest["linear.weight"], saved["checkpoint.average.linear.weight"])
    assert not torch.equal(newest["linear.weight"], saved["checkpoint.student.linear.weight"])


@pytest.mark.parametrize(("every", "epochs"), [(2, [2, 3]), (3, [3]), (9, [3])])
def test_snapshots__of_every_so_many_epochs_and_the_last(make_recipe, tmp_path: Path, every: int, epochs: list) -> None:
    train(make_recipe((f"train.snapshot_every={every}",)), tmp_path / "run", device="cpu")
    assert [entry["epoch"] for entry in listed(tmp_path / "run")] == epochs


def test_snapshots__none_without_the_key_and_none_of_an_unfinished_epoch(make_recipe, tmp_path: Path) -> None:
    train(make_recipe(), tmp_path / "plain", device="cpu")
    assert not (tmp_path / "plain" / "snapshots.json").exists()
    train(make_recipe(("train.snapshot_every=1", "train.max_steps=7")), tmp_path / "short", device="cpu")
    assert [entry["epoch"] for entry in listed(tmp_path / "short")] == [1]


@pytest.mark.parametrize("steps_taken", [(1, 6), (4, 8), (3, 4), (11, 12)])
def test_resume__neither_loses_nor_doubles_a_snapshot(
    teacher: Path, make_recipe, tmp_path: Path, steps_taken: tuple[int, ...]
) -> None:
    broken, recipe = tmp_path / "broken", make_recipe(("train.snapshot_every=1",))
    for number, step in enumerate(steps_taken):
        with pytest.raises(Interrupted):
            train(recipe, broken, resume=number > 0, device="cpu", listener=stop_at(step))
    train(recipe, broken, resume=True, device="cpu")
    assert listed(broken) == listed(teacher)
    assert {p.name for p in (broken / "snapshots").iterdir()} == {entry["file"] for entry in listed(teacher)}


def test_resume__from_an_older_checkpoint_writes_the_later_snapshots_again(
    teacher: Path, make_recipe, tmp_path: Path
) -> None:
    broken, recipe = tmp_path / "broken", make_recipe(("train.snapshot_every=1",))
    with pytest.raises(Interrupted):
        train(recipe, broken, device="cpu", listener=stop_at(8))
    newest = sorted((broken / "checkpoints").glob("step-*"))[-1]
    newest.write_bytes(b"damaged")
    seen = []
    listener = Listener(step=lambda record, total: seen.append([e["epoch"] for e in listed(broken)]))
    train(recipe, broken, resume=True, device="cpu", listener=listener)
    assert seen[0] == [1] and listed(broken) == listed(teacher)


def test_resume__makes_up_for_a_snapshot_the_disk_had_no_room_for(
    teacher: Path, make_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, recipe = tmp_path / "broken", make_recipe(("train.snapshot_every=1",))
    save = saving._save_student

    def full(session, path: Path) -> str:
        if path.name == "epoch-002.safetensors":
            raise DeviceError(str(path), "cannot be written: No space left on device")
        return save(session, path)

    with monkeypatch.context() as patch:
        patch.setattr(saving, "_save_student", full)
        with pytest.raises(DeviceError, match="epoch-002"):
            train(recipe, broken, device="cpu")
    assert [entry["epoch"] for entry in listed(broken)] == [1]
    train(recipe, broken, resume=True, device="cpu")
    assert listed(broken) == listed(teacher)


def test_overwrite__clears_the_snapshots(teacher: Path, make_recipe) -> None:
    train(make_recipe(("train.max_steps=2",)), teacher, overwrite=True, device="cpu")
    assert not (teacher / "snapshots.json").exists() and not list((teacher / "snapshots").iterdir())


def manifest_of(epochs: list[int], planned: int) -> Manifest:
    entries = tuple(Snapshot(epoch, epoch, snapshot_file(epoch), str(epoch), 8) for epoch in epochs)
    return Manifest(Path("run/snapshots.json"), planned, entries)


def test_aligned__epoch_e_learns_from_the_teacher_after_e_plus_1_epochs() -> None:
    manifest = manifest_of(list(range(1, 27)), 26)
    assert [s.epoch for s in chosen_snapshots(manifest, 26, 26, "aligned")] == list(range(1, 27))
    assert [s.epoch for s in chosen_snapshots(manifest, 10, 10, "aligned")] == list(range(1, 11))


@pytest.mark.parametrize(("epochs", "teacher_epochs"), [(26, 26), (13, 26), (52, 26), (7, 26), (30, 26), (1, 26)])
def test_stretched__is_as_far_along_and_ends_with_the_last(epochs: int, teacher_epochs: int) -> None:
    found = [teacher_epoch(e, epochs=epochs, teacher_epochs=teacher_epochs, mapping="stretched") for e in range(epochs)]
    assert found[-1] == teacher_epochs and found == sorted(found)
    for epoch, chosen in enumerate(found):
        share = (epoch + 1) / epochs
        assert chosen - 1 < share * teacher_epochs + 1e-9 and chosen >= share * teacher_epochs - 1e-9
    if epochs == teacher_epochs:
        assert found == list(range(1, epochs + 1))


def test_stretched__takes_the_next_snapshot_where_epochs_were_left_out() -> None:
    manifest = manifest_of([2, 4, 6, 7], 7)
    assert [s.epoch for s in chosen_snapshots(manifest, 7, 7, "stretched")] == [2, 2, 4, 4, 6, 6, 7]


@pytest.mark.parametrize(
    ("epochs", "planned", "student", "mapping", "said"),
    [
        ([1, 2], 2, 3, "aligned", "no snapshot of the teacher's epoch 3 for the student's epoch 3; it lists 1, 2"),
        ([2, 4], 4, 4, "aligned", "no snapshot of the teacher's epoch 1 for the student's epoch 1; it lists 2, 4"),
        ([1, 2], 4, 2, "stretched", "no snapshot of the teacher's epoch 4 for the student's epoch 2; it lists 1, 2"),
        ([], 4, 2, "stretched", "no snapshot of the teacher's epoch 2 for the student's epoch 1; it lists none"),
    ],
)
def test_an_epoch_without_a_snapshot__is_refused(epochs, planned, student, mapping, said) -> None:
    with pytest.raises(CheckpointError, match=f"run/snapshots.json: {said}"):
        chosen_snapshots(manifest_of(epochs, planned), student, student, mapping)


def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digest of the teacher of each batch of a step, in order."""
    found, embed = [], TorchEmbedder.embed

    def watched(self: TorchEmbedder, images: torch.Tensor) -> torch.Tensor:
        if len(images) == 6:
            found.append(self.digest)
        return embed(self, images)

    monkeypatch.setattr(TorchEmbedder, "embed", watched)
    return found


def test_each_epoch__learns_from_its_own_snapshot(follow, teacher: Path, tmp_path: Path, monkeypatch) -> None:
    found = used(monkeypatch)
    train(follow(), tmp_path / "run", device="cpu")
    digests = [entry["sha256"] for entry in listed(teacher)]
    assert found == [digest for digest in digests for _ in range(4)]
    assert load_embedder(tmp_path / "run").metadata["teacher_digest"] not in digests
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "teacher: after its epochs 1, 2, 3, one for each of the student's; live. Its classifier is the last" in log


def test_the_term__is_the_distance_to_that_snapshot(follow, teacher: Path, tmp_path: Path, monkeypatch) -> None:
    seen: list[tuple[int, torch.Tensor, torch.Tensor]] = []
    take = trainer.take_step

    def watched(session, network, batch):
        with torch.no_grad():
            state = {name: tensor.clone() for name, tensor in session.student.state_dict().items()}
            session.student.train()
            own = session.student(
                session.preprocessing.apply(batch.images).contiguous(memory_format=torch.channels_last)
            )
            session.student.load_state_dict(state)
        entry = listed(teacher)[session.step // 4]
        other = load_embedder(teacher / "snapshots" / entry["file"]).embed(batch.images)
        seen.append((session.step, own, other))
        return take(session, network, batch)

    monkeypatch.setattr(trainer, "take_step", watched)
    train(follow(), tmp_path / "run", device="cpu")
    for record, (_, own, other) in zip(steps(tmp_path / "run"), seen, strict=True):
        assert record["terms"]["l2"] == pytest.approx(float(l2(own, other)), rel=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resume__in_the_middle_of_an_epoch_takes_up_the_right_snapshot(
    follow, teacher: Path, tmp_path: Path, monkeypatch, workers: int, precision: str
) -> None:
    recipe = follow((f"train.precision={precision}",))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(recipe, whole, device="cpu")
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"workers": workers})})
    with pytest.raises(Interrupted):
        train(recipe, broken, device="cpu", listener=stop_at(6))
    found = used(monkeypatch)
    train(recipe, broken, resume=True, device="cpu")
    second, third = (entry["sha256"] for entry in listed(teacher)[1:])
    assert found == [second] * 2 + [third] * 4
    assert same(whole, broken) and steps(whole) == steps(broken)


def test_opening_a_snapshot__draws_nothing_of_the_step_s_random_numbers(follow) -> None:
    series = open_series(follow(), 3, "cpu")
    assert isinstance(series, Series)
    before = torch.get_rng_state()
    series.at(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_manifest__may_stand_for_its_run(follow, teacher: Path, tmp_path: Path) -> None:
    train(follow(), tmp_path / "folder", device="cpu")
    section = {"weights": str(teacher / "snapshots.json"), "snapshots": "aligned", "view": "same"}
    train(follow(teacher=section), tmp_path / "manifest", device="cpu")
    assert steps(tmp_path / "folder") == steps(tmp_path / "manifest")


def test_the_classifier__is_that_of_the_teachers_last_epoch(follow, able: Path, tmp_path: Path, monkeypatch) -> None:
    section = {"weights": str(able), "snapshots": "aligned", "view": "same"}
    inherited = {"name": "margin_softmax", "class_weights": "teacher", "scale": 8.0, "margin": 0.2}
    found = used(monkeypatch)
    train(follow(teacher=section, losses=[inherited, *L2]), tmp_path / "run", device="cpu")
    held, own = (load_file(run / "classifier.safetensors") for run in (tmp_path / "run", able))
    assert torch.equal(held["class_weights"], own["class_weights"])
    assert found == [entry["sha256"] for entry in listed(able)[:3] for _ in range(4)]


def test_stkd__has_its_mixtures_seen_by_the_epochs_snapshot(follow, able: Path, tmp_path: Path, monkeypatch) -> None:
    section = {"weights": str(able), "snapshots": "stretched", "view": "same"}
    losses = [{"name": "margin_softmax", "scale": 8.0, "margin": 0.2}, {"name": "stkd", "scale": 8.0}]
    found = used(monkeypatch)
    train(follow(teacher=section, losses=losses), tmp_path / "run", device="cpu")
    assert found == [listed(able)[epoch - 1]["sha256"] for epoch in (4, 8, 12) for _ in range(4)]


def test_plan__runs_live_and_keeps_no_cache(follow) -> None:
    plan = plan_run(follow(), "cpu")
    assert (plan.cache_bytes, plan.teacher_step_images, plan.student_step_images) == (0, 6, 6)
    assert plan.teacher_parameters == plan.student_parameters


def refuse(recipe: Recipe, out: Path, said: str) -> None:
    for attempt in (lambda: plan_run(recipe, "cpu"), lambda: train(recipe, out, device="cpu")):
        with pytest.raises(CheckpointError, match=said):
            attempt()
    assert not out.exists()


def test_a_missing_or_altered_snapshot__is_refused_before_the_first_step(follow, teacher: Path, tmp_path: Path) -> None:
    path = teacher / "snapshots" / "epoch-002.safetensors"
    whole = path.read_bytes()
    os.replace(teacher / "snapshots" / "epoch-001.safetensors", path)
    path.rename(teacher / "snapshots" / "epoch-001.safetensors")
    refuse(follow(), tmp_path / "run", "epoch-002.safetensors: no such file .copy it again from the teacher's run.")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refuse(follow(), tmp_path / "run", "epoch-002.safetensors: is not the file that was written .digest differs.")
    path.write_bytes(whole)
    assert plan_run(follow(), "cpu").total_steps == 12


def test_an_unneeded_snapshot__may_be_missing(follow, teacher: Path, tmp_path: Path) -> None:
    (teacher / "snapshots" / "epoch-002.safetensors").unlink()
    train(follow(("train.max_steps=4",)), tmp_path / "run", device="cpu")
    assert len(steps(tmp_path / "run")) == 4


def test_a_snapshot_altered_under_way__ends_the_run_at_its_epoch(follow, teacher: Path, tmp_path: Path) -> None:
    path = teacher / "snapshots" / "epoch-002.safetensors"
    other = (teacher / "snapshots" / "epoch-001.safetensors").read_bytes()

    def alter(record: dict, total: int) -> None:
        if record["step"] == 2:
            path.write_bytes(other)

    with pytest.raises(CheckpointError, match="epoch-002.safetensors: is not the file that was written"):
        train(follow(), tmp_path / "run", device="cpu", listener=Listener(step=alter))
    assert [record["step"] for record in steps(tmp_path / "run")] == [1, 2, 3, 4]


def test_resume__with_other_snapshots_is_refused(follow, teacher: Path, make_recipe, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(follow(), tmp_path / "run", device="cpu", listener=stop_at(6))
    train(make_recipe(("train.snapshot_every=1", "train.seed=7")), teacher, overwrite=True, device="cpu")
    with pytest.raises(CheckpointError, match="the teacher changed since it was written"):
        train(follow(), tmp_path / "run", resume=True, device="cpu")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda held: None, "snapshots.json: no such file .train the teacher with train.snapshot_every: 1."),
        (lambda held: [], "snapshots.json: format is list, not facekd-snapshots-1"),
        (lambda held: held | {"format": "facekd-snapshots-9"}, "format is facekd-snapshots-9, not facekd-snapshots-1"),
        (lambda held: {"format": held["format"]}, "is not a manifest of snapshots: 'epochs'"),
        (lambda held: held | {"epochs": "3"}, "'3' is no number of epochs"),
        (lambda held: held | {"snapshots": [held["snapshots"][0]] * 2}, "its epochs do not rise"),
        (lambda held: held | {"snapshots": []}, "lists no snapshot"),
        (
            lambda held: held | {"snapshots": [held["snapshots"][0] | {"file": "../../x.safetensors"}]},
            "epoch 1 names '../../x.safetensors'",
        ),
    ],
)
def test_a_bad_manifest__is_refused_by_name(follow, teacher: Path, tmp_path: Path, change, said: str) -> None:
    path = teacher / "snapshots.json"
    recipe, held = follow(), change(json.loads(path.read_text()))
    path.unlink()
    if held is not None:
        path.write_text(json.dumps(held))
    refuse(recipe, tmp_path / "run", said)
    path.write_text("{")
    refuse(recipe, tmp_path / "run", "snapshots.json: cannot be read")
    with pytest.raises(CheckpointError, match=r"snapshots\.json"):
        read_manifest(path)


def test_recipe__refuses_what_contradicts_snapshots(follow, teacher: Path) -> None:
    section = {"weights": str(teacher), "snapshots": "aligned"}
    with pytest.raises(RecipeError, match=r"teacher\.view: clean asks one teacher once, and every epoch has another"):
        follow(teacher=section)
    with pytest.raises(RecipeError, match=r"teacher\.snapshots: missing; weights names a manifest of them"):
        follow(teacher={"weights": str(teacher / "snapshots.json")})
    only = [{"name": "margin_softmax", "class_weights": "teacher"}]
    with pytest.raises(RecipeError, match=r"teacher\.snapshots: no loss asks the teacher about images"):
        follow(losses=only)


def test_the_teachers_own_folder__is_refused(follow, teacher: Path) -> None:
    section = {"weights": str(teacher / "snapshots.json"), "snapshots": "aligned", "view": "same"}
    with pytest.raises(UsageError, match="is or holds what the run reads: teacher.weights"):
        train(follow(teacher=section), teacher, overwrite=True, device="cpu")


def test_the_weight_of_the_recipe__is_a_hundred_times_the_mean_over_its_dimensions() -> None:
    from facekd.recipe import load_recipe

    root = Path(__file__).resolve().parents[3] / "recipes"
    for name in ("multistep/iresnet100_pocketnet_s.yaml", "pocketnet/iresnet100_pocketnet_s.yaml"):
        recipe = load_recipe(root / name, allow_required=True)
        (term,) = [loss for loss in recipe.losses if loss.name == "l2"]
        size = recipe.student.embedding_size
        student, teacher = torch.randn(2, 5, size, dtype=torch.float64).unbind()
        unit, other = (torch.nn.functional.normalize(rows) for rows in (student, teacher))
        published = 100 * torch.nn.functional.mse_loss(unit, other)
        assert float(term.weight * l2(student, teacher)) == pytest.approx(float(published), rel=1e-12)
        closed = 100 / size * (2 - 2 * (unit * other).sum(1)).mean()
        assert float(published) == pytest.approx(float(closed), rel=1e-12)
