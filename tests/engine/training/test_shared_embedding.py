"""Teacher caches and evaluations of several processes are those of one to the bit, each embedding its share of them."""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from random_model import save_random_model
from several_processes import in_several

from facekd.data import embedding_cache
from facekd.data.image_folder import ImageFolder
from facekd.engine.evaluation.figures import EvalSettings
from facekd.engine.training import selection, shares, teacher
from facekd.engine.training.build import Caches, make_dataset, make_session
from facekd.engine.training.distributed import ALONE, World
from facekd.engine.training.plan import make_plan
from facekd.engine.training.selection import evaluate_student, open_sets
from facekd.engine.training.sources import open_source
from facekd.engine.training.trainer import train
from facekd.errors import DataError, FacekdError, NonFiniteError
from facekd.models.embedder import TorchEmbedder
from facekd.recipe import Recipe, load_recipe

pytestmark = pytest.mark.slow

PEOPLE = ["person0", "person2", "person3", "person5"]
STUDENT = {"backbone": "resnet_tiny", "embedding_size": 8, "input_size": 32}
COUNTS = (2, 3)
BAD, LAST = 13, 23
"""Images that do not decode: of two processes, rank 1 has the first in the second round; the last one has the other."""
MEASURED = {"every": 0.5, "fpr": [0.2], "resolutions": [16], "gallery": "both"}


def small_work(put: Callable[[Any, str, Any], None]) -> None:
    """So few images at once that two dozen are many blocks, batches and rounds."""
    put(embedding_cache, "BLOCK", 4)
    put(teacher, "BLOCK", 4)
    put(teacher, "EMBED_BATCH", 4)
    put(shares, "ROUND", 2)
    put(selection, "EvalSettings", partial(EvalSettings, batch_size=2))


class Counting:
    """Counts the images that each model embeds, and may send this process a signal after so many.

    Args:
        put: Changes an attribute.
        stop_after: Images of all models together.
    """

    def __init__(self, put: Callable[[Any, str, Any], None], stop_after: int | None = None) -> None:
        self.images: Counter[str] = Counter()
        embed = TorchEmbedder.embed

        def count(model: TorchEmbedder, images: torch.Tensor) -> torch.Tensor:
            self.images[model.name] += len(images)
            if stop_after is not None and self.images.total() >= stop_after:
                signal.raise_signal(signal.SIGTERM)
            return embed(model, images)

        put(TorchEmbedder, "embed", count)


def recipe_file(folder: Path, faces: Path, measured: Path | None = None, **sections: object) -> Path:
    """A recipe with three caches of teachers: clean views, augmented versions, and the clean views of a subset."""
    subset = {"name": "some", "weights": str(folder / "subset.safetensors"), "classifier": "class_means"}
    recipe: dict[str, Any] = {
        "name": "student",
        "student": STUDENT | {"options": {"channels": "4,8", "blocks": "1,1"}},
        "teacher": {"weights": str(folder / "teacher.safetensors"), "view": "same", "classifier": "class_means"},
        "subsets": [subset | {"identities": {"file": str(folder / "people.txt")}}],
        "data": {"source": "folder", "path": str(faces), "versions": 3, "augment": {"shift": 0.1, "color": 0.2}},
        "losses": [{"name": "l2"}, {"name": "margin_softmax", "class_weights": "teacher"}, {"name": "subset_kd"}],
        "optimizer": {"learning_rate": 0.05},
        "train": {"epochs": 1, "batch_size": 6, "max_steps": 3, "channels_last": True},
        "evaluate": MEASURED | {"sets": [{"path": str(measured or faces)}]},
    }
    path = folder / f"recipe{len(list(folder.glob('*.yaml')))}.yaml"
    path.write_text(yaml.safe_dump(recipe | sections))
    return path


def run_jobs(world: World, folder: Path) -> None:
    """Train what ``jobs.json`` lists, then evaluate; what each process embedded, and the error it met, on disk."""
    small_work(setattr)
    embed = TorchEmbedder.embed
    for job in json.loads((folder / "jobs.json").read_text()):
        TorchEmbedder.embed = embed
        stopped = job["stop"] if world.rank == job["stopped"] else None
        counting, out, told = Counting(setattr, stopped), Path(job["out"]), ""
        try:
            train(load_recipe(job["recipe"]), out, resume=job["resume"], device="cpu", world=world)
        except FacekdError as error:
            told = f"{type(error).__name__} {error.exit_code} {error}"
        (out / f"rank{world.rank}.json").write_text(json.dumps({"images": counting.images, "error": told}))
    TorchEmbedder.embed = embed
    evaluate(world, folder)


def job(recipe: Path, out: Path, *, stop: int = 0, stopped: int = 1, resume: bool = False) -> dict[str, object]:
    """Of ``run_jobs``; rank ``stopped`` is sent a signal once it embedded ``stop`` images, where that is given."""
    return {"recipe": str(recipe), "out": str(out), "stop": stop or None, "stopped": stopped, "resume": resume}


def told(out: Path, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"rank{rank}.json").read_text())
    return found


def caches(folder: Path) -> dict[str, bytes]:
    """Every file of the caches of the runs in a folder."""
    root = folder / "teacher-cache"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def half_made(folder: Path) -> list[tuple[int, int]]:
    """Images done, and images in all, of the caches that are not whole."""
    records = [json.loads(path.read_text()) for path in (folder / "teacher-cache").glob("*/cache.json")]
    return [(record["done"], record["shape"][0]) for record in records if "sha256" not in record]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, one of a subset, and whom that knows."""
    folder = tmp_path_factory.mktemp("models")
    save_random_model(folder / "teacher.safetensors", size=8)
    save_random_model(folder / "subset.safetensors", size=12, seed=1)
    (folder / "people.txt").write_text("\n".join(PEOPLE))
    return folder


@pytest.fixture(scope="module")
def alone(models: Path, faces: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counter[str]]:
    """What one process makes of the recipe, and how many images it embedded."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        small_work(patch.setattr)
        counting = Counting(patch.setattr)
        train(load_recipe(recipe_file(models, faces)), folder / "run", device="cpu")
    assert len(caches(folder)) == 6 and not half_made(folder)
    return folder, counting.images


@pytest.fixture(scope="module")
def done(models: Path, faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes, and after them three, made of whole runs, stopped ones and bad images."""
    root = tmp_path_factory.mktemp("done")
    shutil.copytree(faces, root / "faces")
    source = ImageFolder(root / "faces")
    recipe, folders = recipe_file(models, faces), {count: root / str(count) for count in COUNTS}
    own = {
        "losses": [{"name": "margin_softmax"}],
        "teacher": None,
        "subsets": [],
        "data": {"source": "folder", "path": str(faces)},
    }
    for count, folder in folders.items():
        folder.mkdir()
        for name, measured in (("whole", faces), ("damaged", root / "faces")):
            recipe_file(models, faces, measured, **own).rename(folder / f"{name}.yaml")
        jobs = [job(recipe, folder / "whole" / "run"), job(recipe, folder / "stopped" / "run", stop=4)]
        bad = root / "faces" / source.sample_name(BAD if count == 2 else LAST)
        sound = bad.read_bytes()
        bad.write_bytes(sound[:200] + bytes(len(sound) - 200))
        if count == 2:
            jobs.append(job(recipe_file(models, root / "faces"), folder / "bad" / "run"))
        else:
            shutil.copytree(folders[2] / "stopped", folder / "resumed")
            jobs.append(job(recipe, folder / "resumed" / "run", resume=True))
        (folder / "jobs.json").write_text(json.dumps(jobs))
        assert in_several(run_jobs, folder, count) == [0] * count
        bad.write_bytes(sound)
    return root


@pytest.mark.parametrize("count", COUNTS)
def test_caches__are_those_of_one_process_and_asked_for_by_all(
    count: int, alone: tuple[Path, Counter[str]], done: Path
) -> None:
    folder = done / str(count) / "whole"
    assert caches(folder) == caches(alone[0])
    ranks = [told(folder / "run", rank) for rank in range(count)]
    assert [rank["error"] for rank in ranks] == [""] * count
    for model, images in alone[1].items():
        each = [rank["images"][model] for rank in ranks]
        assert sum(each) == images and min(each) >= 0.7 * images / count, (model, each)


@pytest.mark.parametrize("count", COUNTS)
def test_a_signal_to_one__stops_all_at_the_block_that_is_done(count: int, done: Path) -> None:
    folder = done / str(count) / "stopped"
    assert half_made(folder) == [(4 * count, 24)]
    assert told(folder / "run", 0)["error"] == f"Elsewhere 143 process 1 of {count}: met an error, which it tells"
    line = f"Interrupted 143 {folder / 'run'}: stopped; go on with --resume"
    assert told(folder / "run", 1)["error"] == line


def test_another_number_of_processes__goes_on_where_it_was_stopped(
    models: Path, faces: Path, alone: tuple[Path, Counter[str]], done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (name,) = (name for name in alone[1] if name.endswith("teacher.safetensors"))
    resumed = done / "3" / "resumed"
    assert caches(resumed) == caches(alone[0])
    asked = sum(told(resumed / "run", rank)["images"].get(name, 0) for rank in range(3))
    assert asked == alone[1][name] - 2 * 8
    small_work(monkeypatch.setattr)
    counting, stopped = Counting(monkeypatch.setattr), done / "3" / "stopped"
    train(load_recipe(recipe_file(models, faces)), stopped / "run", resume=True, device="cpu")
    assert caches(stopped) == caches(alone[0])
    assert counting.images[name] == alone[1][name] - 2 * 12


def test_a_bad_image_of_another_s_share__is_told_by_that_one(
    models: Path, alone: tuple[Path, Counter[str]], done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, faces = done / "2" / "bad", done / "faces"
    assert told(folder / "run", 0)["error"] == "Elsewhere 3 process 1 of 2: met an error, which it tells"
    assert told(folder / "run", 1)["error"].startswith(f"DataError 3 {faces / ImageFolder(faces).sample_name(BAD)}: ")
    assert half_made(folder) == [(8, 24)]
    small_work(monkeypatch.setattr)
    train(load_recipe(recipe_file(models, faces)), folder / "run", resume=True, device="cpu")
    assert caches(folder) == caches(alone[0])


def evaluated(recipe: Recipe, world: World, broken: float | None = None) -> list[dict[str, Any]]:
    """The results of a student of random weights, or all ``broken`` ones; those that others hold do not matter."""
    source = open_source(recipe.data)
    dataset, plan = make_dataset(recipe, source), make_plan(recipe, source, None)
    session = make_session(recipe, plan, source, dataset, None, Caches(), torch.device("cpu"))
    session.join(world)
    filled = broken if world.leads else 0.5
    for parameter in session.student.parameters() if filled is not None else ():
        parameter.detach().fill_(filled)
    return evaluate_student(session, open_sets(recipe.evaluate), lambda: None, bootstrap=20)


def evaluate(world: World, folder: Path) -> None:
    """What each process is answered, how many images it embeds, and what it meets of a bad image and bad weights."""
    recipe, damaged = (load_recipe(folder / f"{name}.yaml") for name in ("whole", "damaged"))
    counting = Counting(setattr)
    results = evaluated(recipe, world)
    found: dict[str, Any] = {"results": results, "images": counting.images.total(), "met": []}
    for one, broken in ((damaged, None), (recipe, 0.0), (recipe, float("nan"))):
        try:
            evaluated(one, world, broken)
        except FacekdError as error:
            found["met"].append(f"{type(error).__name__} {error.exit_code} {error}")
    (folder / f"evaluated{world.rank}.json").write_text(json.dumps(found))


def without_clocks(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in result.items() if key != "seconds"} for result in results]


@pytest.mark.parametrize("count", COUNTS)
def test_figures__are_those_of_one_process_which_embeds_a_part(
    count: int, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = done / str(count)
    ranks = [json.loads((folder / f"evaluated{rank}.json").read_text()) for rank in range(count)]
    small_work(monkeypatch.setattr)
    counting = Counting(monkeypatch.setattr)
    whole, damaged = (load_recipe(folder / f"{name}.yaml") for name in ("whole", "damaged"))
    wanted = json.loads(json.dumps(evaluated(whole, ALONE)))
    assert len(wanted) == 3 and 0 < wanted[0]["auc"] < 1 and wanted[0]["failed_images"] == 0
    assert without_clocks(ranks[0]["results"]) == without_clocks(wanted)
    assert all(rank["results"] == [] for rank in ranks[1:])
    assert [rank["images"] for rank in ranks] == [counting.images.total() // count] * count
    bad = done / "faces" / ImageFolder(done / "faces").sample_name(BAD if count == 2 else LAST)
    whole_bytes = bad.read_bytes()
    bad.write_bytes(whole_bytes[:200] + bytes(len(whole_bytes) - 200))
    lines = []
    for recipe, broken in ((damaged, None), (whole, 0.0), (whole, float("nan"))):
        with pytest.raises(DataError if broken is None else NonFiniteError) as met:
            evaluated(recipe, ALONE, broken)
        lines.append(f"{type(met.value).__name__} {met.value.exit_code} {met.value}")
    bad.write_bytes(whole_bytes)
    assert str(bad) in lines[0] and "24 of 24" in lines[1]
    for number, (line, code, teller) in enumerate(zip(lines, (3, 4, 4), (1 if count == 2 else 2, 0, 0), strict=True)):
        silent = f"Elsewhere {code} process {teller} of {count}: met an error, which it tells"
        for rank, found in enumerate(ranks):
            assert found["met"][number] == (line if rank == teller else silent)
