"""A run of two processes is the run of one: the same steps, one folder, resumed by any number, ended as one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
import torch
import yaml
from run_bits import bits, same, steps, stop_at
from several_processes import free_port, in_several, launcher_variables
from test_shipped_training import ROOT, SHIPPED, heads_trained, smaller

from facekd.engine.training.checkpoint import load_checkpoint
from facekd.engine.training.distributed import World
from facekd.engine.training.trainer import train
from facekd.errors import Elsewhere, Interrupted
from facekd.recipe import load_recipe, recipe_yaml

pytestmark = pytest.mark.slow

STAGES = {"channels": "4,8", "blocks": "1,1"}
TINY = {"backbone": "resnet_tiny", "embedding_size": 16, "input_size": 32, "options": STAGES}
SMALL_STUDENT = tuple(f"student.{key}={json.dumps(value)}" for key, value in TINY.items())
RECIPES = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "__"): path for path in SHIPPED}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


def plain_recipe(folder: Path, faces: Path, **train_section: object) -> Path:
    """A recipe of one term on a tiny student whose BatchNorm stands still unless told otherwise."""
    recipe = {
        "name": "tiny",
        "student": TINY,
        "data": {"source": "folder", "path": str(faces), "augment": {"shift": 0.1, "color": 0.2}},
        "losses": [{"name": "margin_softmax", "scale": 8.0, "margin": 0.2}],
        "optimizer": {"learning_rate": 0.05},
        "train": {"epochs": 2, "batch_size": 6, "log_every": 1, "freeze_norm_epochs": 2} | train_section,
    }
    path = folder / f"recipe{len(list(folder.glob('*.yaml')))}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def small_recipe(name: str, folder: Path, faces: Path, teacher: Path) -> Path:
    """A shipped recipe for a tiny student whose BatchNorm stands still."""
    epochs = load_recipe(RECIPES[name], allow_required=True).train.epochs
    still = ("train.max_steps=3", "train.precision=fp32", f"train.freeze_norm_epochs={epochs}")
    path = folder / f"{name}.yaml"
    path.write_text(recipe_yaml(smaller(RECIPES[name], faces, defaultdict(lambda: teacher), *still, *SMALL_STUDENT)))
    return path


def take_up_jobs(world: World, folder: Path) -> None:
    """Train what ``jobs.json`` lists, in its order."""
    for job in json.loads((folder / "jobs.json").read_text()):
        given = {"resume": job["resume"], "device": "cpu", "world": world}
        if job["stop"] and world.leads:
            given["listener"] = stop_at(job["stop"])
        try:
            train(load_recipe(job["recipe"]), Path(job["out"]), **given)
        except (Interrupted, Elsewhere):
            if not job["stop"]:
                raise


def job(recipe: Path, out: Path, *, stop: int = 0, resume: bool = False) -> dict[str, object]:
    return {"recipe": str(recipe), "out": str(out), "stop": stop, "resume": resume}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, faces: Path) -> Path:
    """A folder of recipes and of what two processes, and for ``taken`` one before them, made of each."""
    folder = tmp_path_factory.mktemp("done")
    train(
        load_recipe(plain_recipe(folder, faces, freeze_norm_epochs=0, snapshot_every=1, epochs=12)),
        folder / "teacher",
        device="cpu",
    )
    teacher = folder / "teacher" / "student.safetensors"  # without a classifier: its class means stand in
    jobs = [job(small_recipe(name, folder, faces, teacher), folder / "two" / name) for name in RECIPES]
    whole = plain_recipe(folder, faces).rename(folder / "whole.yaml")
    normed = plain_recipe(folder, faces, freeze_norm_epochs=0, ema=0.9).rename(folder / "normed.yaml")
    with pytest.raises(Interrupted):
        train(load_recipe(whole), folder / "taken", device="cpu", listener=stop_at(5))
    jobs += [job(whole, folder / "whole"), job(normed, folder / "normed"), job(normed, folder / "resumed", stop=5)]
    jobs += [job(normed, folder / "resumed", resume=True), job(whole, folder / "handed", stop=5)]
    jobs += [job(whole, folder / "taken", resume=True)]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    assert in_several(take_up_jobs, folder) == [0, 0]
    return folder


def close(one: Path, other: Path) -> None:
    one_bits, other_bits = (
        {name: tensor for name, tensor in bits(run).items() if name != "checkpoint.objective.inherited.class_weights"}
        for run in (one, other)
    )
    torch.testing.assert_close(one_bits, other_bits, rtol=2e-4, atol=2e-5)
    figures = ([[r["loss"], r["gradient_norm"]] for r in steps(run)] for run in (one, other))
    torch.testing.assert_close(*(torch.tensor(figure) for figure in figures), rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_every_shipped_recipe__trains_by_two_as_by_one(name: str, done: Path, tmp_path: Path) -> None:
    recipe = load_recipe(done / f"{name}.yaml")
    train(recipe, tmp_path / "one", device="cpu")
    close(done / "two" / name, tmp_path / "one")
    assert heads_trained(recipe, tmp_path / "one")


def test_a_frozen_classifier_is_held_in_parts_and_handed_on_between_numbers_of_processes(
    done: Path, tmp_path: Path
) -> None:
    name, frozen = "proxylesskd__iresnet50_mobilefacenet", "checkpoint.objective.inherited.class_weights"
    recipe, runs = load_recipe(done / f"{name}.yaml"), {number: tmp_path / f"from{number}" for number in (1, 2)}
    with pytest.raises(Interrupted):
        train(recipe, runs[1], device="cpu", listener=stop_at(1))
    jobs = [job(done / f"{name}.yaml", runs[2], stop=1), job(done / f"{name}.yaml", runs[1], resume=True)]
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    assert in_several(take_up_jobs, tmp_path) == [0, 0]
    assert frozen not in bits(runs[1]) and frozen not in bits(done / "two" / name)
    train(recipe, runs[2], resume=True, device="cpu")
    assert frozen in bits(runs[2])
    for run in runs.values():
        close(run, done / "two" / name)


def test_one_folder__with_the_records_of_one_run(done: Path, tmp_path: Path) -> None:
    train(load_recipe(done / "whole.yaml"), tmp_path / "one", device="cpu")
    close(done / "whole", tmp_path / "one")
    assert {p.name for p in (done / "whole").iterdir()} == {p.name for p in (tmp_path / "one").iterdir()}
    assert [record["step"] for record in steps(done / "whole")] == list(range(1, 9))
    assert (done / "whole" / "log.txt").read_text().count("student written") == 1
    assert json.loads((done / "whole" / "environment.json").read_text())["processes"] == 2


def test_moving_batch_statistics__are_those_of_a_share(done: Path, tmp_path: Path) -> None:
    train(load_recipe(done / "normed.yaml"), tmp_path / "one", device="cpu")
    assert abs(steps(done / "normed")[0]["loss"] - steps(tmp_path / "one")[0]["loss"]) > 1e-3


def test_resumed_by_two__ends_with_the_bits_of_the_unbroken_run_of_two(done: Path) -> None:
    assert same(done / "normed", done / "resumed")
    assert steps(done / "normed") == steps(done / "resumed")
    assert "not bit-exact" not in (done / "resumed" / "log.txt").read_text()


def test_resumed_by_another_number__gives_the_same_figures_and_says_that_bits_differ(done: Path) -> None:
    train(load_recipe(done / "whole.yaml"), done / "handed", resume=True, device="cpu")
    for name, before, now in (("handed", 2, 1), ("taken", 1, 2)):
        close(done / "whole", done / name)
        line = f"resume is not bit-exact: saved with processes {before}, running with {now}"
        assert line in (done / name / "log.txt").read_text()


def test_torchrun__trains_with_loading_processes_and_tells_once(faces: Path, done: Path, tmp_path: Path) -> None:
    changes = ["--set", "train.workers=2", "--out", str(tmp_path / "run"), "--device", "cpu", "--json", "-"]
    command = [*TORCHRUN, "facekd_cli", "train", str(done / "whole.yaml"), *changes]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {"run": str(tmp_path / "run"), "results": []}
    assert ended.stderr.count("student written") == 1 and ended.stderr.count("step 8/8") == 1
    assert same(tmp_path / "run", done / "whole")


def test_torchrun__sigterm_to_all_leaves_a_checkpoint_to_go_on_from(faces: Path, tmp_path: Path) -> None:
    recipe = plain_recipe(tmp_path, faces, epochs=5000, checkpoint_every=5000)
    command = [*TORCHRUN, "facekd_cli", "train", str(recipe), "--out", str(tmp_path / "run"), "--device", "cpu"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    told = [line for line in stderr.splitlines() if line.startswith("facekd: ")]
    assert told == [f"facekd: error: {tmp_path / 'run'}: stopped; go on with --resume"], stderr
    saved, passed_over = load_checkpoint(tmp_path / "run" / "checkpoints")
    assert saved.step == steps(tmp_path / "run")[-1]["step"] and not passed_over
    assert not (tmp_path / "run" / ".lock").exists()


def launched(*arguments: str) -> list[tuple[int, str]]:
    """Exit code and stderr of ``facekd train`` in each of two processes, as any launcher starts them."""
    port, command = free_port(), [sys.executable, "-m", "facekd_cli", "train", *arguments, "--device", "cpu"]
    started = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | launcher_variables(rank, port))
        for rank in range(2)
    ]
    told = [process.communicate(timeout=200)[1] for process in started]
    return [(process.returncode, text) for process, text in zip(started, told, strict=True)]


def test_a_bad_image_of_one__ends_both_with_its_line_and_code(faces: Path, tmp_path: Path) -> None:
    recipe = plain_recipe(tmp_path, faces)
    for person in faces.iterdir():
        (tmp_path / "faces" / person.name).mkdir(parents=True)
        for image in person.iterdir():
            (tmp_path / "faces" / person.name / image.name).write_bytes(image.read_bytes())
    bad = tmp_path / "faces" / "person1" / "1.png"  # shown first by rank 1, in the third step
    bad.write_bytes(bad.read_bytes()[:300])
    first, second = launched(str(recipe), "--set", f"data.path={tmp_path / 'faces'}", "--out", str(tmp_path / "run"))
    assert first == (3, "")
    line = f"facekd: error: {bad}: cut short or damaged: the png does not decode (restore the file)\n"
    assert second == (3, line)
    assert load_checkpoint(tmp_path / "run" / "checkpoints")[0].step == 2


@pytest.mark.parametrize(
    ("change", "code", "line"),
    [
        ("train.batch_size=5", 2, "train.batch_size: 5 images cannot be shared out evenly among 2 processes"),
        ("train.batches=5", 2, "train.batches: unknown key"),
        ("optimizer.learning_rate=1e2 optimizer.weight_decay=10", 4, "is not finite; nothing was updated"),
    ],
)
def test_what_both_meet__is_told_once(change: str, code: int, line: str, faces: Path, tmp_path: Path) -> None:
    recipe = plain_recipe(tmp_path, faces, epochs=50)
    changes = [word for one in change.split() for word in ("--set", one)]
    first, second = launched(str(recipe), *changes, "--out", str(tmp_path / "run"))
    assert first[0] == code and second == (code, "")
    assert line in first[1] and len(first[1].splitlines()) == 1
