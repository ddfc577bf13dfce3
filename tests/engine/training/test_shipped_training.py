"""Every shipped recipe, unmodified but for sizes, is planned, trained, and resumed to the same bits under bf16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from run_bits import bits, same, stop_at

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
    heads = [number for number, loss in enumerate(recipe.losses) if getattr(loss, "warmup_epochs", 0.0)]
    if heads:  # one step of warm-up each, so that the next steps train the head
        one = 1.0 / plan_run(recipe, "cpu").steps_per_epoch
        recipe = load_recipe(path, [*overrides, *(f"losses.{number}.warmup_epochs={one}" for number in heads)])
    return recipe


def heads_trained(recipe: Recipe, run: Path) -> bool:
    """Whether every variance head of a recipe was trained in two steps or more, by the count of its BatchNorm."""
    counts = [int(tensor) for name, tensor in bits(run).items() if name.endswith("head.bn.num_batches_tracked")]
    return len(counts) == sum("variance_head" in loss.needs() for loss in recipe.losses) and min(counts, default=2) >= 2


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
    assert heads_trained(loaded, tmp_path / "broken")


@pytest.mark.slow
def test_ekd__anchors_that_the_pairs_of_a_step_are_too_few_for_are_named_in_the_log(
    faces: Path, teachers: dict[int, Path], tmp_path: Path
) -> None:
    recipe = smaller(ROOT / "ekd" / "iresnet50_mobilefacenet.yaml", faces, teachers, "train.max_steps=1")
    train(recipe, tmp_path / "run", device="cpu")
    told = "ekd: 32,796 pairs a step are too few for FPR 1e-05, 1e-06; left out"  # 8 * 7 / 2 + 8 * 4096
    assert told in (tmp_path / "run" / "log.txt").read_text()
