"""Cross-resolution distillation end to end: who sees what, who learns by what, and the same bits however it is run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from facekd.data.images import decode
from facekd.engine.training.trainer import Listener, plan_run, train
from facekd.errors import Interrupted, NonFiniteError, RecipeError, UsageError
from facekd.files import file_digest
from facekd.models.embedder import load_embedder
from facekd.models.macs import count_parameters
from facekd.recipe import Recipe

PAIR = {
    "backbone": "resnet_tiny",
    "embedding_size": 8,
    "input_size": 32,
    "options": {"channels": "4,8", "blocks": "1,1"},
    "assistant": {"backbone": "resnet_tiny", "options": {"channels": "2,4", "blocks": "1,1"}},
}
ALONE = {key: value for key, value in PAIR.items() if key != "assistant"}
LOSSES = [{"name": "residual"}]
RESOLUTIONS = {"sides": [16, 8], "share": 0.75}


@pytest.fixture(scope="module")
def teacher(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a dozen epochs whose student the runs of this module learn from."""
    from facekd.recipe import load_recipe

    folder = tmp_path_factory.mktemp("teacher")
    (folder / "recipe.yaml").write_text(
        "name: t\nstudent: {backbone: resnet_tiny, embedding_size: 8, input_size: 32, "
        f"options: {{channels: '4,8', blocks: '1,1'}}}}\ndata: {{source: folder, path: '{faces}'}}\n"
        "losses: [{name: margin_softmax, scale: 8.0, margin: 0.2}]\noptimizer: {name: adamw, learning_rate: 0.01}\n"
        "train: {epochs: 12, batch_size: 6}\n"
    )
    train(load_recipe(folder / "recipe.yaml"), folder / "run", device="cpu")
    return folder / "run"


@pytest.fixture
def distil(make_recipe, teacher: Path, faces: Path):
    """A recipe of a student and an assistant at low resolution."""

    def make(*overrides: str, view: str = "clean", **sections: object) -> Recipe:
        data = {"source": "folder", "path": str(faces), "augment": {"flip": 0.5, "color": 0.2}}
        given = {
            "student": PAIR,
            "teacher": {"weights": str(teacher), "view": view},
            "losses": LOSSES,
            "data": data | {"resolutions": RESOLUTIONS},
        }
        return make_recipe(overrides, **(given | sections))

    return make


def bits(run: Path) -> dict[str, torch.Tensor]:
    last = sorted((run / "checkpoints").glob("step-*.safetensors"))[-1]
    return load_file(last) | load_file(run / "student.safetensors")


def same(one: Path, other: Path) -> bool:
    a, b = bits(one), bits(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def curve(run: Path) -> list[float]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "terms" in record]


def stop_at(step: int) -> Listener:
    import signal

    def listen(record: dict, total: int) -> None:
        if record["step"] == step and "terms" in record:
            signal.raise_signal(signal.SIGTERM)

    return Listener(step=listen)


def test_run__trains_both_and_leaves_one_model_that_adds_them(distil, teacher: Path, tmp_path: Path) -> None:
    before = file_digest(teacher / "student.safetensors")
    recipe = distil()
    train(recipe, tmp_path / "run", device="cpu")
    assert curve(tmp_path / "run")[-1] < curve(tmp_path / "run")[0]
    assert file_digest(teacher / "student.safetensors") == before
    train(distil("train.max_steps=1"), tmp_path / "first", device="cpu")
    early, late = load_file(tmp_path / "first" / "student.safetensors"), load_file(tmp_path / "run/student.safetensors")
    for part in ("student", "assistant"):
        assert not torch.equal(early[f"{part}.backbone.linear.weight"], late[f"{part}.backbone.linear.weight"])
    embedder = load_embedder(tmp_path / "run")
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    pixels, module = embedder.preprocessing.apply(images), embedder.module
    assert torch.allclose(embedder.embed(images), module.student(pixels) + module.assistant(pixels), atol=1e-6)


def test_sizes__are_told_of_each_and_of_both(distil, tmp_path: Path) -> None:
    recipe = distil("train.max_steps=1")
    plan = plan_run(recipe, "cpu")
    train(recipe, tmp_path / "run", device="cpu")
    embedder = load_embedder(tmp_path / "run")
    assistant, both = count_parameters(embedder.module.assistant), count_parameters(embedder.module)
    assert (plan.assistant_parameters, plan.student_parameters, embedder.parameters) == (assistant, both, both)
    told = json.loads(embedder.metadata["sizes"])
    assert [told[name]["parameters"] for name in ("student", "assistant", "together")] == [
        both - assistant,
        assistant,
        both,
    ]
    assert told["together"]["macs"] == plan.student_macs > plan.assistant_macs == told["assistant"]["macs"] > 0
    alone = plan_run(distil(student=ALONE, losses=[{"name": "l2"}]), "cpu")
    scale_and_bias = 16
    assert (alone.assistant_parameters, alone.student_parameters) == (0, both - assistant - scale_and_bias)


@pytest.mark.slow
@pytest.mark.parametrize("view", ["clean", "sharp"])
@pytest.mark.parametrize("workers", [0, 2])
def test_resume__ends_with_the_same_bits(distil, tmp_path: Path, view: str, workers: int) -> None:
    quick = ["train.ema=0.9", *(["data.versions=2"] if view == "sharp" else [])]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(distil(*quick, view=view), whole, device="cpu")
    recipe = distil(*quick, f"train.workers={workers}", view=view)
    with pytest.raises(Interrupted):
        train(recipe, broken, device="cpu", listener=stop_at(5))
    train(recipe, broken, resume=True, device="cpu")
    assert same(whole, broken) and curve(whole) == curve(broken)


@pytest.mark.parametrize("view", ["clean", "same"])
def test_both_begin_with_the_teachers_length__cached_or_live(distil, faces: Path, tmp_path: Path, view: str) -> None:
    recipe = distil("train.max_steps=1", view=view)
    train(recipe, tmp_path / "run", device="cpu")
    saved = load_file(tmp_path / "run" / "student.safetensors")
    images = [decode(path.read_bytes(), path.name) for path in sorted(faces.rglob("*.png"))]
    given = load_embedder(recipe.teacher.weights).embed(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
    expected = given.square().mean().sqrt()
    assert torch.allclose(saved["student.unit"], expected, rtol=1e-4)
    assert torch.equal(saved["assistant.unit"], saved["student.unit"])


def test_bf16__stays_near_float32_without_being_it(distil, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        train(distil(f"train.precision={precision}"), tmp_path / precision, device="cpu")
    narrow, wide = curve(tmp_path / "bf16"), curve(tmp_path / "fp32")
    assert narrow != wide and abs(narrow[0] - wide[0]) < 0.02 * wide[0] and narrow[-1] < narrow[0]
    assert {t.dtype for t in load_file(tmp_path / "bf16" / "student.safetensors").values()} == {
        torch.float32,
        torch.int64,
    }


@pytest.mark.slow
def test_own_size__is_the_run_without_resolutions(distil, faces: Path, tmp_path: Path) -> None:
    plain = {"source": "folder", "path": str(faces), "augment": {"flip": 0.5, "color": 0.2}}
    for name, data in (("plain", plain), ("own", plain | {"resolutions": {"sides": [32]}})):
        train(distil(data=data), tmp_path / name, device="cpu")
    train(distil(), tmp_path / "lowered", device="cpu")
    assert curve(tmp_path / "plain") == curve(tmp_path / "own") != curve(tmp_path / "lowered")


@pytest.mark.slow
def test_sharp_teacher__saw_the_augmented_faces_at_full_resolution(distil, faces: Path, tmp_path: Path) -> None:
    """Its embeddings are those of the run without resolutions, from one cache; and with equal sizes so is the run."""
    augmented = {"source": "folder", "path": str(faces), "versions": 2, "augment": {"shift": 0.1, "mix": 0.5}}
    train(distil(data=augmented, view="same"), tmp_path / "same", device="cpu")
    own = augmented | {"resolutions": {"sides": [32]}}
    train(distil(data=own, view="sharp"), tmp_path / "own", device="cpu")
    train(distil(data=augmented | {"resolutions": RESOLUTIONS}, view="sharp"), tmp_path / "low", device="cpu")
    assert len(list((tmp_path / "teacher-cache").iterdir())) == 1
    assert curve(tmp_path / "same") == curve(tmp_path / "own") != curve(tmp_path / "low")


def test_weights_to_start_from__fill_each_its_own(distil, teacher: Path, tmp_path: Path) -> None:
    weights = str(teacher / "student.safetensors")
    assistant = {"backbone": "resnet_tiny", "options": dict(PAIR["options"]), "weights": weights}
    started = PAIR | {"weights": weights, "assistant": assistant}
    quick = ("train.max_steps=1", "optimizer.learning_rate=1e-12")
    train(distil(*quick, student=started), tmp_path / "run", device="cpu")
    saved, given = load_file(tmp_path / "run" / "student.safetensors"), load_file(weights)
    for part in ("student", "assistant"):
        assert torch.allclose(saved[f"{part}.backbone.linear.weight"], given["linear.weight"], atol=1e-9)


def test_embeddings_that_overflow__stop_the_run_with_a_clear_line(distil, tmp_path: Path, monkeypatch) -> None:
    from facekd.engine.training import trainer

    take = trainer.take_step

    def poisoned(session, network, batch):
        if session.step == 2:
            session.student.assistant.backbone.linear.weight.data[0, 0] = float("nan")
        return take(session, network, batch)

    monkeypatch.setattr(trainer, "take_step", poisoned)
    with pytest.raises(NonFiniteError, match="step 2: loss term residual is not finite; nothing was updated"):
        train(distil(), tmp_path / "run", device="cpu")


def refused(distil, **sections: object) -> str:
    with pytest.raises(RecipeError) as caught:
        distil(**sections)
    return "\n".join(caught.value.lines)


def test_recipes_that_make_no_sense__are_refused_by_key(distil, teacher: Path, faces: Path, tmp_path: Path) -> None:
    data = {"source": "folder", "path": str(faces)}
    found = refused(distil, student=ALONE)
    assert "losses.0: residual needs an assistant (add student.assistant: {backbone: NAME})" in found
    found = refused(distil, losses=[{"name": "l2"}])
    assert "student.assistant: no loss trains it (add the loss residual, or write assistant: null)" in found
    found = refused(distil, data=data | {"versions": 2}, view="sharp")
    assert "teacher.view: sharp is same where data.resolutions has no sides" in found
    found = refused(distil, view="sharp")
    assert "teacher.view: sharp needs embeddings kept of a number of versions (add data.versions: 8" in found
    found = refused(distil, data=data | {"versions": 2, "resolutions": RESOLUTIONS}, view="same")
    assert "teacher.view: same cannot be cached: data.resolutions draws anew in every epoch" in found
    found = refused(distil, data=data | {"resolutions": {"share": 0.5}})
    assert "data.resolutions.share: has no effect without sides" in found
    found = refused(distil, data=data | {"resolutions": {"sides": [16, 16]}})
    assert "data.resolutions.sides: names a side twice" in found
    found = refused(distil, student=PAIR | {"assistant": {"backbone": "resnet_tiny", "options": {"blocks": [1]}}})
    assert "student.assistant.options.blocks: expected a number, text, true or false, got a list" in found
    with pytest.raises(UsageError, match="data.resolutions.sides: 64, but the images are 32x32 .at most 32."):
        plan_run(distil(data=data | {"resolutions": {"sides": [64, 16]}}), "cpu")
