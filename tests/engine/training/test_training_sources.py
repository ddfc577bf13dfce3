"""The same images train the same student, whatever they are stored in, and every command takes them."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from facekd_cli.main import cli
from safetensors.torch import load_file
from tar_shards import write_tar_shards

from facekd.data.identities import IdentitySource
from facekd.data.image_folder import ImageFolder
from facekd.data.images import encode_png
from facekd.data.record_writer import write_records
from facekd.engine.resumable import Watched
from facekd.engine.training import trainer
from facekd.engine.training.build import make_caches, make_dataset, make_student, make_superclasses
from facekd.engine.training.plan import make_plan, open_teacher
from facekd.engine.training.sources import open_source
from facekd.engine.training.teacher import Asking
from facekd.engine.training.trainer import Listener, train
from facekd.errors import CheckpointError, DataError, DeviceError, UsageError
from facekd.recipe.sections import Data


@pytest.fixture
def stored(faces: Path, tmp_path: Path) -> dict[str, Path]:
    """The images of :func:`faces` by the source that reads them."""
    source = ImageFolder(faces)
    rows = [f"{source.sample_name(k)}\t{source.names[source.labels[k]]}\n" for k in range(len(source))]
    (tmp_path / "faces.tsv").write_text("path\tidentity\n" + "".join(rows))
    samples = [(int(source.labels[k]), source.encoded(k)) for k in range(len(source))]
    (tmp_path / "records").mkdir()
    write_records(tmp_path / "records" / "train.rec", samples, source.names, insightface_header=True)
    write_tar_shards(tmp_path / "shards", samples, source.names, shard_size=10)
    return {
        "folder": faces,
        "list": tmp_path / "faces.tsv",
        "record": tmp_path / "records",
        "tar": tmp_path / "shards",
    }


def losses(run: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["terms"] for record in records if "terms" in record]


def data_of(source: str, path: Path, images: Path | None = None, augment: bool = True) -> dict[str, object]:
    section: dict[str, object] = {"source": source, "path": str(path)}
    if images is not None:
        section["images"] = str(images)
    return section | {"augment": {"flip": 0.5, "shift": 0.1, "erase": 0.2} if augment else {}}


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_losses_are_the_same_bits_from_every_source(
    workers: int, make_recipe, stored: dict[str, Path], tmp_path: Path
) -> None:
    found = {}
    for source, path in stored.items():
        images = stored["folder"] if source == "list" else None
        section = data_of(source, path, images)
        recipe = make_recipe(("train.epochs=1", f"train.workers={workers}"), data=section)
        train(recipe, tmp_path / source, device="cpu")
        found[source] = losses(tmp_path / source)
        automatic = make_recipe((), data=section | {"source": "auto"}).data
        assert type(open_source(automatic)) is type(open_source(recipe.data))
    assert len(found["folder"]) == 4
    assert all(found[source] == found["folder"] for source in found)


def test_another_order_of_the_images_gives_other_losses(make_recipe, faces: Path, tmp_path: Path) -> None:
    source = ImageFolder(faces)
    samples = [(int(source.labels[k]), source.encoded(k)) for k in reversed(range(len(source)))]
    write_records(tmp_path / "train.rec", samples, source.names)
    for name, section in (("one", data_of("folder", faces)), ("other", data_of("record", tmp_path / "train.rec"))):
        train(make_recipe(("train.epochs=1",), data=section), tmp_path / name, device="cpu")
    assert losses(tmp_path / "one") != losses(tmp_path / "other")


def test_a_run_is_not_resumed_on_relabelled_records(make_recipe, faces: Path, tmp_path: Path) -> None:
    source, path = ImageFolder(faces), tmp_path / "data"
    path.mkdir()
    samples = [(int(source.labels[k]), source.encoded(k)) for k in range(len(source))]
    write_records(path / "train.rec", samples, source.names)
    recipe = make_recipe(("train.max_steps=4",), data=data_of("auto", path))
    train(recipe, tmp_path / "run", device="cpu")
    for entry in list(path.iterdir()):
        entry.unlink()
    write_records(path / "train.rec", [*samples[:-1], (0, samples[-1][1])], source.names)
    with pytest.raises(CheckpointError, match="data"):
        train(
            make_recipe(("train.max_steps=4",), data=data_of("auto", path)), tmp_path / "run", device="cpu", resume=True
        )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_deleted_while_training_is_named_and_its_neighbour_is_not_taken(
    workers: int, make_recipe, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(faces, tmp_path / "faces"))
    recipe = make_recipe((f"train.workers={workers}", "train.epochs=1"), data=data_of("auto", copy))

    def open_and_delete(data: Data) -> IdentitySource:
        source = open_source(data)
        shutil.rmtree(copy / "person3")
        return source

    monkeypatch.setattr(trainer, "open_source", open_and_delete)
    with pytest.raises(DataError, match=r"person3/\d.png: no such file .check the path, or restore the file"):
        train(recipe, tmp_path / "run", device="cpu")
    assert list((tmp_path / "run" / "checkpoints").glob("step-*.safetensors"))


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_of_a_run_ends_it_with_one_line(make_recipe, faces: Path, tmp_path: Path) -> None:
    recipe = make_recipe(("train.workers=2", "train.epochs=200"), data=data_of("auto", faces))
    others = multiprocessing.active_children()

    def kill(record: dict, total: int) -> None:
        if record["step"] == 9:
            worker = next(child for child in multiprocessing.active_children() if child not in others)
            os.kill(worker.pid or 0, signal.SIGKILL)

    with pytest.raises(DeviceError) as caught:
        train(recipe, tmp_path / "run", device="cpu", listener=Listener(step=kill))
    assert caught.value.what.startswith("was killed (Killed)") and caught.value.exit_code == 5
    assert list((tmp_path / "run" / "checkpoints").glob("step-*.safetensors"))


def test_eval_and_embed_take_every_source(make_recipe, stored: dict[str, Path], tmp_path: Path) -> None:
    recipe = make_recipe(("train.max_steps=2",), data=data_of("auto", stored["record"]))
    train(recipe, tmp_path / "run", device="cpu")
    results = {}
    for source, path in stored.items():
        options = ["--images", str(stored["folder"])] if source == "list" else []
        words = ["eval", str(tmp_path / "run"), "--on", str(path), "--json", "-", "--fpr", "0.1", *options]
        told = CliRunner().invoke(cli, words)
        assert told.exit_code == 0, told.output
        (result,) = json.loads(told.stdout)["results"]
        results[source] = [result[key] for key in ("protocol", "pairs", "genuine", "auc", "tpr_at_fpr")]
        out = tmp_path / f"{source}.npz"
        told = CliRunner().invoke(cli, ["embed", str(tmp_path / "run"), str(path), "-o", str(out), *options])
        assert told.exit_code == 0, told.output
        assert "24 embeddings of 6 identities" in told.stdout
    assert all(result == results["folder"] for result in results.values())


def test_a_root_that_is_gone__ends_the_run_as_a_disk_does_and_leaves_a_checkpoint(
    make_recipe, faces: Path, tmp_path: Path
) -> None:
    root, away = tmp_path / "mounted", tmp_path / "away"
    shutil.copytree(faces, root)

    def unmount(record: dict, total: int) -> None:
        root.rename(away)

    recipe = make_recipe((f"data.path={root}",))
    with pytest.raises(DeviceError, match="mounted: is gone since it was opened .mount or restore it.*--resume"):
        train(recipe, tmp_path / "run", device="cpu", listener=Listener(step=unmount))
    away.rename(root)
    train(recipe, tmp_path / "run", device="cpu", resume=True)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "resumed at step 1 of 12" in log


def test_images_of_a_size_that_aligned_faces_do_not_have__are_told(make_recipe, tmp_path: Path) -> None:
    train(make_recipe(("train.max_steps=1",)), tmp_path / "run", device="cpu")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "warning: the images are 32x32 pixels, no size of aligned faces; facekd data align" in log


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_another_cut_of_the_face__is_refused_by_name_unless_it_is_allowed(
    make_recipe, faces: Path, tmp_path: Path, workers: int
) -> None:
    copied = tmp_path / "faces"
    shutil.copytree(faces, copied)
    wide = np.zeros((32, 48, 3), np.uint8)
    (copied / "person4" / "3.png").write_bytes(encode_png(wide))
    data, loader = {"source": "folder", "path": str(copied)}, f"train.workers={workers}"
    with pytest.raises(DataError, match=r"person4/3.png: 48x32 pixels, and the model takes 32x32") as refusal:
        train(make_recipe((loader,), data=data), tmp_path / "run", device="cpu")
    assert "data.allow_resize: true" in str(refusal.value)
    allowed = make_recipe((loader, "data.allow_resize=true", "train.epochs=1"), data=data)
    train(allowed, tmp_path / "allowed", device="cpu")


def test_another_cut_of_the_face__is_refused_while_planning(make_recipe, faces: Path, tmp_path: Path) -> None:
    recipe = make_recipe(("student.input_size=112",))
    with pytest.raises(DataError, match="32x32 pixels, and the model takes 112x112"):
        make_plan(recipe, open_source(recipe.data), None)


def test_partial_weights__take_what_fits_and_tell_how_much(make_recipe, tmp_path: Path) -> None:
    train(make_recipe(("train.max_steps=1",)), tmp_path / "first", device="cpu")
    file = tmp_path / "first" / "student.safetensors"
    changes = (f"student.weights={file}", "student.embedding_size=4", "train.max_steps=1")
    with pytest.raises(CheckpointError):
        train(make_recipe(changes), tmp_path / "refused", device="cpu")
    recipe = make_recipe((*changes, "student.partial=true"))
    student, notes = make_student(recipe.student, 0)
    held, own = load_file(file), student.state_dict()
    fitting = [key for key in own if key in held and held[key].shape == own[key].shape]
    assert 0 < len(fitting) < len(own)
    assert notes == [f"student.weights: loaded {len(fitting)} of {len(own)} tensors of {file}; the others are drawn"]
    assert all(torch.equal(own[key], held[key]) for key in fitting)
    train(recipe, tmp_path / "second", device="cpu")
    assert f"loaded {len(fitting)} of {len(own)} tensors" in (tmp_path / "second" / "log.txt").read_text()


def test_superclasses__fill_a_batch_with_people_who_look_alike_to_the_teacher(make_recipe, tmp_path: Path) -> None:
    train(make_recipe(("train.max_steps=4",)), tmp_path / "teacher", device="cpu")
    drawn = {"images_per_identity": 4, "superclasses": 2, "batch_size": 4, "epochs": 2, "log_every": 1}
    teacher = {"weights": str(tmp_path / "teacher"), "classifier": "class_means"}
    recipe = make_recipe(teacher=teacher, train=drawn, losses=[{"name": "margin_softmax"}, {"name": "cckd"}])
    source = open_source(recipe.data)
    embedder = open_teacher(recipe.teacher, "cpu")
    plan = make_plan(recipe, source, embedder)
    asking = Asking(tmp_path / "cache", Watched())
    caches = make_caches(recipe, make_dataset(recipe, source), source, embedder, asking)
    groups = make_superclasses(recipe, source, caches.clean)
    assert plan.cache_bytes == 24 * 2 * 8 * 4
    assert groups is not None and len(np.unique(groups)) == 2 and len(groups) == 6
    train(recipe, tmp_path / "run", device="cpu")
    assert len(losses(tmp_path / "run")) == plan.total_steps == 12
    too_small = make_recipe(teacher=teacher, train=drawn | {"batch_size": 24}, losses=[{"name": "cckd"}])
    with pytest.raises(UsageError, match="train.superclasses: 6 identities do not fall into groups of at least 6"):
        make_superclasses(too_small, source, caches.clean)
