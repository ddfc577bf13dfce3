"""A classifier in training of which each process holds a part: the run of one process, its checkpoints, its ends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from run_bits import bits, same, steps, stop_at
from several_processes import in_several
from test_distributed_training import TINY, close, job

from facekd.data.images import encode_png
from facekd.engine.training import checkpoint, trainer
from facekd.engine.training.checkpoint import load_checkpoint
from facekd.engine.training.distributed import World
from facekd.engine.training.objective import Objective
from facekd.engine.training.outputs import Sizes, SubsetSizes
from facekd.engine.training.run import Run
from facekd.engine.training.trainer import train
from facekd.errors import DeviceError, Elsewhere, Interrupted
from facekd.losses import ClassShare
from facekd.models.weights import load_classifier
from facekd.recipe import load_recipe
from facekd.recipe.loss_options import Dul, LogitKD, MarginSoftmax, SubsetKD

PEOPLE, DIM, EPOCHS = 17, TINY["embedding_size"], 2
"""17 is no multiple of 2 or 3."""
ARC = {"name": "margin_softmax", "scale": 8.0, "margin": 0.2}
SAMPLED = {**ARC, "sample_rate": 0.5}
SGD = {"name": "sgd", "learning_rate": 0.05}
ADAMW = {"name": "adamw", "learning_rate": 0.002, "weight_decay": 0.1}
RUNS = {
    "plain": (ARC, SGD),
    "dul": ({"name": "dul", "scale": 8.0, "margin": 0.2}, SGD),
    "sampled": (SAMPLED, SGD),
    "sampled adamw": (SAMPLED, ADAMW),
    "few": ({**ARC, "sample_rate": 0.01}, SGD),
}


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A recipe a run, of a little more than an epoch on two images of each person."""
    root = tmp_path_factory.mktemp("split")
    draw = np.random.default_rng(1)
    for person in range(PEOPLE):
        (root / "faces" / f"person{person:02}").mkdir(parents=True)
        for image in range(2):
            pixels = draw.integers(0, 256, (32, 32, 3)).astype(np.uint8)
            (root / "faces" / f"person{person:02}" / f"{image}.png").write_bytes(encode_png(pixels))
    paths = {}
    for name, (loss, optimizer) in RUNS.items():
        train_section = {"epochs": EPOCHS, "batch_size": 6, "log_every": 1, "freeze_norm_epochs": EPOCHS}
        train_section |= {"max_steps": 6, "checkpoint_every": EPOCHS}
        recipe = {
            "name": name.replace(" ", "-"),
            "student": TINY,
            "data": {"source": "folder", "path": str(root / "faces")},
            "losses": [loss],
            "optimizer": optimizer,
            "train": train_section,
        }
        paths[name] = root / f"{name}.yaml"
        paths[name].write_text(yaml.safe_dump(recipe))
    return paths


def held_numbers(run: Run) -> dict[str, int]:
    """How many numbers of the classifier, and of what the optimizer remembers of it, are held by a process."""
    table = run.session.objective.own.class_weights
    kept = [tensor for tensor in run.session.optimizer.state[table].values() if tensor.dim()]
    return {"rows": table.numel(), "remembered": sum(tensor.numel() for tensor in kept), "tables": len(kept)}


def take_up_jobs(world: World, folder: Path) -> None:
    """Train what ``jobs.json`` lists, and write down how much each process holds at its end."""
    loop = trainer._loop

    def watched(run: Run) -> None:
        loop(run)
        told = folder / "held" / f"{run.folder.path.name} {world.size} {world.rank}"
        told.write_text(json.dumps(held_numbers(run)))

    trainer._loop = watched
    for one in json.loads((folder / "jobs.json").read_text()):
        given = {"resume": one["resume"], "device": "cpu", "world": world}
        if one["stop"] and world.leads:
            given["listener"] = stop_at(one["stop"])
        try:
            train(load_recipe(one["recipe"]), Path(one["out"]), **given)
        except (Interrupted, Elsewhere):
            if not one["stop"]:
                raise


def taken_up(folder: Path, jobs: list[dict], count: int) -> None:
    (folder / "jobs.json").write_text(json.dumps(jobs))
    assert in_several(take_up_jobs, folder, count) == [0] * count


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, recipes: dict[str, Path]) -> Path:
    """Each recipe by one, two and three processes; some broken off and gone on with, ``A-B`` begun by A, ended by B."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "held").mkdir()
    for name, path in recipes.items():
        train(load_recipe(path), folder / "1" / name, device="cpu")
    sampled = recipes["sampled adamw"]
    for end in (2, 3):
        with pytest.raises(Interrupted):
            train(load_recipe(sampled), folder / f"1-{end}", device="cpu", listener=stop_at(3))
    for count in (2, 3):
        jobs = [job(path, folder / str(count) / name) for name, path in recipes.items()]
        for name in (f"{count}-1", f"{count}-{count}", f"{count}-{5 - count}")[: 2 + (count == 2)]:
            jobs.append(job(sampled, folder / name, stop=3))
        jobs += [job(sampled, folder / name, resume=True) for name in (f"{count}-{count}", f"1-{count}")]
        jobs += [job(sampled, folder / "2-3", resume=True)] * (count == 3)
        taken_up(folder, jobs, count)
    for count in (2, 3):
        train(load_recipe(sampled), folder / f"{count}-1", device="cpu", resume=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", RUNS)
def test_several__train_as_one(name: str, count: int, done: Path) -> None:
    several, one = done / str(count) / name, done / "1" / name
    close(several, one)
    assert set(bits(several)) == set(bits(one))
    remembered = [kept for key, kept in bits(several).items() if "optimizer" in key and kept.shape == (PEOPLE, DIM)]
    assert len(remembered) == 1 + (RUNS[name][1] is ADAMW)
    rows, names, source = load_classifier(several / "classifier.safetensors")
    assert source == "trained" and len(names) == PEOPLE
    assert torch.equal(rows, bits(several)["checkpoint.objective.own.class_weights"])


@pytest.mark.slow
def test_a_sample__makes_another_run(done: Path) -> None:
    losses = [[record["loss"] for record in steps(done / "2" / name)] for name in ("plain", "sampled", "few")]
    assert losses[0][0] > losses[1][0] > losses[2][0]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", RUNS)
def test_each_process__holds_its_classes_and_what_is_remembered_of_them_alone(
    name: str, count: int, done: Path
) -> None:
    held = [json.loads((done / "held" / f"{name} {count} {rank}").read_text()) for rank in range(count)]
    shares = [PEOPLE * (rank + 1) // count - PEOPLE * rank // count for rank in range(count)]
    assert [one["rows"] for one in held] == [share * DIM for share in shares]
    assert all(one["remembered"] == one["tables"] * one["rows"] and one["tables"] for one in held)
    assert sum(one["rows"] for one in held) == PEOPLE * DIM


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_resumed_by_as_many__ends_with_the_bits_of_the_unbroken_run(count: int, done: Path) -> None:
    whole, broken = done / str(count) / "sampled adamw", done / f"{count}-{count}"
    assert same(whole, broken) and steps(whole) == steps(broken)
    assert "not bit-exact" not in (broken / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("begun", "ended"), [(1, 2), (1, 3), (2, 1), (3, 1), (2, 3)])
def test_resumed_by_another_number__is_the_same_run(begun: int, ended: int, done: Path) -> None:
    close(done / f"{begun}-{ended}", done / "1" / "sampled adamw")
    line = f"resume is not bit-exact: saved with processes {begun}, running with {ended}"
    assert line in (done / f"{begun}-{ended}" / "log.txt").read_text()


def meet_trouble(world: World, folder: Path) -> None:
    """Three runs that end badly while a checkpoint is written, or in one process alone; what each process meets."""
    recipe = load_recipe(folder / "recipe.yaml", ("train.checkpoint_every=0.4", "train.max_steps=4"))
    write, snapshot = checkpoint.safetensors_file.write, trainer.keep_snapshot_if_due
    told = []

    def meets(out: str, stopped: int = 0) -> None:
        try:
            train(recipe, folder / out, device="cpu", world=world, resume=stopped > 0)
            told.append("nothing")
        except Exception as error:
            told.append(f"{type(error).__name__} {getattr(error, 'exit_code', None)}")

    def full(path: Path, tensors: dict, metadata: dict) -> str:
        if "step-000000002" in path.name:
            return write(path, tensors, metadata)
        next(tensors["objective.own.class_weights"].rows())
        raise DeviceError(str(path), "cannot be written: No space left on device")

    def buggy(run: Run) -> None:
        if world.rank == 1 and run.session.step == 3:
            raise ValueError("a bug")

    checkpoint.safetensors_file.write = full
    meets("full")
    checkpoint.safetensors_file.write = write
    trainer.keep_snapshot_if_due = buggy
    meets("buggy")
    trainer.keep_snapshot_if_due = snapshot
    meets("buggy", 2)
    (folder / f"{world.rank}.json").write_text(json.dumps(told))


@pytest.mark.slow
def test_trouble__ends_all_and_leaves_what_was_saved(recipes: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(recipes["sampled"].read_text())
    assert in_several(meet_trouble, tmp_path) == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == ["DeviceError 5", "Elsewhere 1", "nothing"]
    assert second == ["Elsewhere 5", "ValueError None", "nothing"]
    assert load_checkpoint(tmp_path / "full" / "checkpoints")[0].step == 2
    assert "resumed at step 2 of" in (tmp_path / "buggy" / "log.txt").read_text()


def nothing_gathered(rows: torch.Tensor) -> torch.Tensor:
    return rows


SUBSET = SubsetSizes("one", DIM, 9, torch.arange(3), None, torch.eye(3, DIM))
SIZES = Sizes(classes=PEOPLE, embedding_size=DIM, teacher_size=DIM, batch_size=4, steps_per_epoch=1, subsets=(SUBSET,))
OWN, TEACHER = (MarginSoftmax(name="margin_softmax", class_weights=whose) for whose in ("own", "teacher"))


@pytest.mark.parametrize(
    ("losses", "inherits", "split"),
    [
        ((OWN,), False, "own"),
        ((OWN.model_copy(update={"sample_rate": 0.1}),), False, "own"),
        ((Dul(name="dul"),), False, "own"),
        ((Dul(name="dul", class_weights="teacher"),), True, "inherited"),
        ((TEACHER,), True, "inherited"),
        ((TEACHER.model_copy(update={"candidates": 3}),), True, None),
        ((OWN, LogitKD(name="logit_kd")), True, None),
        ((OWN, SubsetKD(name="subset_kd")), False, None),
        ((TEACHER, SubsetKD(name="subset_kd")), True, None),
    ],
)
def test_classes_are_split__unless_a_loss_asks_for_those_of_others(
    losses: tuple, inherits: bool, split: str | None
) -> None:
    sizes = replace(SIZES, class_share=ClassShare(1, 3, nothing_gathered))
    objective = Objective(losses, sizes, torch.randn(PEOPLE, DIM) if inherits else None)
    held = {name: len(part.class_weights) for name in ("own", "inherited") if (part := getattr(objective, name))}
    assert held == {name: 6 if name == split else PEOPLE for name in held}
    assert objective.split == ("own.class_weights" if split == "own" else None)


def test_fewer_classes_than_processes__are_held_whole_by_each() -> None:
    objective = Objective([OWN], replace(SIZES, classes=2, class_share=ClassShare(1, 3, nothing_gathered)))
    assert objective.share is None and len(objective.own.class_weights) == 2
