"""Every shipped recipe, unmodified but for sizes, is planned, trained, and resumed to the same bits under bf16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from run_bits import same, stop_at

from facekd.engine.training.trainer import plan_run, train
from facekd.errors import Interrupted
from facekd.models.backbone import build_backbone
from facekd.models.embedder import load_embedder
from facekd.models.preprocessing import Preprocessing
from facekd.models.weights import save_model
from facekd.recipe import Recipe, load_recipe, required_keys

ROOT = Path(__file__).resolve().parents[3] / "recipes"
SHIPPED = sorted(ROOT.rglob("*.yaml"))
SMALL = ("train.batch_size=8", "train.workers=0", "train.log_every=1", "evaluate.sets=[]", "data.allow_resize=true")
EVERYBODY = "{shots: {at_least: 2}}"
DRAWN = ("data.synthetic.identities=6", "data.synthetic.samples=2")


def smaller(path: Path, faces: Path, teachers: dict[int, Path], *changes: str) -> Recipe:
    """The recipe on a tiny data set, its required keys filled in."""
    wanted = load_recipe(path, allow_required=True)
    overrides = [*SMALL, *changes, *(DRAWN if wanted.data.source == "synthetic" else ())]
    if wanted.data.resolutions.sides:
        overrides.append("data.resolutions.sides=[16, 8]")
    listing = faces.parent / "faces.csv"
    rows = [f"{p.relative_to(faces).as_posix()},{p.parent.name}" for p in sorted(faces.rglob("*.png"))]
    listing.write_text("\n".join(["path,identity", *rows]) + "\n")
    fill = {
        "data.path": listing if wanted.data.source == "list" else faces,
        "data.images": faces,
        "teacher.weights": teachers[wanted.student.embedding_size],
        "student.weights": faces.parent / "student.safetensors",
    }
    if wanted.data.subset is not None:
        overrides.append(f"data.subset={EVERYBODY}")
    for number in range(len(wanted.subsets)):
        fill[f"subsets.{number}.weights"] = fill["teacher.weights"]
        overrides.append(f"subsets.{number}.identities={EVERYBODY}")
    if wanted.train.superclasses is not None:
        overrides += ["train.superclasses=2"]
    if wanted.teacher is not None and wanted.teacher.normalize == "none":
        overrides += ["teacher.normalize=half"]
    if wanted.teacher is not None and wanted.teacher.snapshots is not None:
        fill["teacher.weights"] = fill["teacher.weights"].parent
    overrides += [f"{key}={fill[key]}" for key in required_keys(wanted)]
    recipe = load_recipe(path, overrides)
    if recipe.student.weights is not None:
        save_student(recipe, Path(recipe.student.weights))
    return recipe


def save_student(recipe: Recipe, path: Path) -> None:
    """A student of random weights for a recipe that begins with a finished one."""
    student = recipe.student
    torch.manual_seed(0)
    save_model(
        path,
        build_backbone(
            student.backbone,
            embedding_size=student.embedding_size,
            input_size=student.input_size,
            options=student.options,
        ),
        backbone=student.backbone,
        embedding_size=student.embedding_size,
        options=student.options,
        preprocessing=Preprocessing.named(student.normalize, student.color, (student.input_size, student.input_size)),
        extra={},
    )


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory, faces: Path) -> dict[int, Path]:
    """A teacher without a stored classifier for every embedding size a recipe uses."""
    found = {}
    for path in SHIPPED:
        size = load_recipe(path, allow_required=True).student.embedding_size
        if size not in found:
            folder = tmp_path_factory.mktemp("teacher")
            recipe = folder / "recipe.yaml"
            recipe.write_text(
                f"name: t\nstudent: {{backbone: resnet_tiny, embedding_size: {size}, input_size: 32, "
                f"options: {{channels: '4,8', blocks: '1,1'}}}}\ndata: {{source: folder, path: '{faces}'}}\n"
                "losses: [{name: margin_softmax}]\noptimizer: {learning_rate: 0.01}\n"
                "train: {epochs: 1, batch_size: 24, snapshot_every: 1}\n"
            )
            train(load_recipe(recipe), folder / "run", device="cpu")
            found[size] = folder / "run" / "student.safetensors"
    return found


every_recipe = pytest.mark.parametrize(
    "path", SHIPPED, ids=[str(path.relative_to(ROOT).with_suffix("")) for path in SHIPPED]
)


@pytest.mark.slow
@every_recipe
def test_shipped_recipe__plans_and_trains_two_steps(
    path: Path, faces: Path, teachers: dict[int, Path], tmp_path: Path
) -> None:
    recipe = smaller(path, faces, teachers, "train.max_steps=2")
    plan = plan_run(recipe, "cpu")
    assert plan.total_steps == 2 and plan.student_macs > 0
    train(recipe, tmp_path / "run", device="cpu")
    assert load_embedder(tmp_path / "run").parameters == plan.student_parameters


@pytest.mark.slow
@every_recipe
def test_shipped_recipe__broken_off_under_bf16_with_workers_ends_with_the_bits_of_the_unbroken_run(
    path: Path, faces: Path, teachers: dict[int, Path], tmp_path: Path
) -> None:
    backbone = "{channels: '4,8', blocks: '1,1'}"
    tiny = ("student.backbone=resnet_tiny", f"student.options={backbone}", "student.input_size=32")
    changes = (*tiny, "train.max_steps=3", "train.precision=bf16")
    train(smaller(path, faces, teachers, *changes), tmp_path / "whole", device="cpu")
    loaded = smaller(path, faces, teachers, *changes, "train.workers=2")
    with pytest.raises(Interrupted):
        train(loaded, tmp_path / "broken", device="cpu", listener=stop_at(2))
    train(loaded, tmp_path / "broken", device="cpu", resume=True)
    assert same(tmp_path / "whole", tmp_path / "broken")
