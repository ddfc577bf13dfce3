"""What a run will cost: from small steps of the run itself, and nothing of its size beforehand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from facekd_cli.main import cli

from facekd.engine.allocations import peak_bytes
from facekd.engine.training import forecast as module
from facekd.engine.training.build import Caches, make_batches, make_dataset, make_session
from facekd.engine.training.forecast import forecast_run, some_rows
from facekd.engine.training.plan import make_plan
from facekd.engine.training.sources import open_source
from facekd.engine.training.step import take_step

CPU = torch.device("cpu")
FACES = {"source": "synthetic", "synthetic": {"identities": 20, "samples": 10}, "augment": {"flip": 0.5}}


def in_one_go(recipe) -> int:
    """Bytes of a step of the whole run with all that it holds, measured at its own size."""
    source = open_source(recipe.data)
    plan, dataset = make_plan(recipe, source, None), make_dataset(recipe, source)
    session = make_session(recipe, plan, source, dataset, None, Caches(), CPU)
    batches = make_batches(session)
    take_step(session, session.student, next(batches))
    peak = peak_bytes(lambda: take_step(session, session.student, next(batches)))
    return module.held_bytes(session) + peak + dataset.images.pixels.nbytes


def test_memory_is_that_of_the_whole_run_within_a_quarter(make_recipe) -> None:
    recipe = make_recipe(("train.batch_size=48", "student.input_size=64"), data=FACES)
    told = forecast_run(recipe, "cpu")[1]
    assert told is not None
    assert told.memory_bytes == pytest.approx(in_one_go(recipe), rel=0.25)


def test_times_follow_the_size_of_the_run(make_recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1_000_000))
    monkeypatch.setattr(module, "perf_counter", lambda: float(next(ticks)))
    plan, told = forecast_run(make_recipe(("train.batch_size=16",), data=FACES), "cpu")
    assert told is not None and told.cache_seconds == 0
    # by this clock every step lasts a second, whatever its size, and so do reading a set of images and a softmax
    images, classes = 32, plan.identities
    assert told.step_seconds == pytest.approx(1 + 1 * classes / classes + 16 * 1 / images)
    assert told.epoch_seconds == pytest.approx(told.step_seconds * plan.steps_per_epoch)
    assert told.run_seconds == pytest.approx(told.step_seconds * plan.total_steps)


def test_a_sample_costs_its_own_classes_and_the_draw(make_recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLASSES", 5)
    monkeypatch.setattr(module, "SCORED", 4)
    ticks = iter(range(1_000_000))
    monkeypatch.setattr(module, "perf_counter", lambda: float(next(ticks)))
    losses = [{"name": "margin_softmax", "sample_rate": 0.5}]
    plan, told = forecast_run(make_recipe(("train.batch_size=16",), data=FACES, losses=losses), "cpu")
    assert told is not None and plan.identities == 20
    # by this clock: a step, a softmax over 5 of the 10 drawn, a draw among 4 of 20, and reading 32 images
    assert told.step_seconds == pytest.approx(1 + 1 * 10 / 5 + 1 * 20 / 4 + 16 * 1 / 32)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("rate", [1.0, 0.1])
def test_memory_of_a_classifier_in_training_is_foretold_sampled_or_not(rate: float, name: str, make_recipe) -> None:
    faces = {"source": "synthetic", "synthetic": {"identities": 3000, "samples": 1}}
    losses = [{"name": "margin_softmax", "sample_rate": rate}]
    optimizer = {"name": name, "learning_rate": 0.05}
    wide = ("train.batch_size=48", "student.embedding_size=512", "train.checkpoint_every=1")
    recipe = make_recipe(wide, data=faces, losses=losses, optimizer=optimizer)
    plan, told = forecast_run(recipe, "cpu")
    assert told is not None
    images = plan.images * 112 * 112 * 3
    assert plan.classifier_bytes > 0.5 * (told.memory_bytes - images)
    assert told.memory_bytes - images == pytest.approx(in_one_go(recipe) - images, rel=0.25)


def test_with_loading_processes_the_slower_of_both_counts(make_recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1_000_000))
    monkeypatch.setattr(module, "perf_counter", lambda: float(next(ticks)))
    told = forecast_run(make_recipe(("train.batch_size=16", "train.workers=2"), data=FACES), "cpu")[1]
    assert told is not None and told.step_seconds == pytest.approx(2)


def test_no_more_than_a_few_images_are_read_and_nothing_is_left(
    make_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, read = make_recipe(("train.batch_size=48",), data=FACES), set()
    source = open_source(recipe.data)
    plain = type(source).read

    def watched(self, index: int) -> np.ndarray:
        read.add(index)
        return plain(self, index)

    monkeypatch.setattr(type(source), "read", watched)
    before = set(tmp_path.rglob("*"))
    forecast_run(recipe, "cpu")
    assert len(read) <= 2 * module.LARGEST["cpu"] < len(source)
    assert set(tmp_path.rglob("*")) == before


def test_rows_are_of_as_many_people_as_can_be() -> None:
    labels = np.repeat(np.arange(50), 20)
    np.random.default_rng(0).shuffle(labels)
    rows = some_rows(labels, 32, 4)
    counts = np.bincount(labels[rows])
    assert len(rows) == 32 and (np.diff(rows) > 0).all() and counts.max() <= 4 and (counts > 0).sum() >= 8


def test_the_command_tells_it(make_recipe, tmp_path: Path) -> None:
    make_recipe()
    recipe = next(tmp_path.rglob("*.yaml"))
    result = CliRunner().invoke(cli, ["train", str(recipe), "--dry-run", "--device", "cpu", "--json", "-"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)["forecast"]
    assert set(told) == {"step_seconds", "epoch_seconds", "run_seconds", "cache_seconds", "memory_bytes"}
    assert told["run_seconds"] > told["step_seconds"] > 0 and "seconds an epoch, about" in result.stderr
