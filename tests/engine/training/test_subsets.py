"""Teachers of some identities: trained, mapped by name, asked about their own images, and taken up again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from run_bits import same, stop_at
from safetensors.torch import load_file
from test_trainer import steps

from facekd.data.loading import Batch
from facekd.engine.export.exporter import export_onnx
from facekd.engine.training import trainer
from facekd.engine.training.objective import Objective
from facekd.engine.training.outputs import Sizes, StepOutputs, SubsetSizes
from facekd.engine.training.session import Session
from facekd.engine.training.step import subset_embeddings
from facekd.engine.training.trainer import plan_run, train
from facekd.errors import CheckpointError, InputError, Interrupted, RecipeError, UsageError
from facekd.losses import logit_kd
from facekd.models.embedder import load_embedder
from facekd.models.weights import load_classifier, save_classifier
from facekd.recipe import load_recipe
from facekd.recipe.loss_options import L2, MarginSoftmax, SubsetKD, SubsetL2

ARC = {"name": "margin_softmax", "scale": 8.0, "margin": 0.2}
KD, FEATURES = {"name": "subset_kd", "scale": 8.0}, {"name": "subset_l2"}
QUICK = ("optimizer.name=adamw", "optimizer.learning_rate=0.01", "train.epochs=14", "data.augment.erase=0")
PEOPLE = {"low": ["person0", "person1", "person2", "person3"], "high": ["person3", "person4", "person5"]}


@pytest.fixture(scope="module")
def trained(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two teachers of overlapping subsets, in spaces of different width, each trained on its own people alone."""
    root = tmp_path_factory.mktemp("subsets")
    for number, (name, people) in enumerate(PEOPLE.items()):
        (root / f"{name}.txt").write_text("\n".join(people))
        (root / "recipe.yaml").write_text(
            f"name: t\nstudent: {{backbone: resnet_tiny, embedding_size: {8 + 4 * number}, input_size: 32, "
            f"options: {{channels: '4,8', blocks: '1,1'}}}}\n"
            f"data: {{source: folder, path: '{faces}', subset: {{file: '{root / name}.txt'}}}}\n"
            "losses: [{name: margin_softmax, scale: 8.0, margin: 0.2}]\n"
            "optimizer: {name: adamw, learning_rate: 0.01}\ntrain: {epochs: 14, batch_size: 6}\n"
        )
        train(load_recipe(root / "recipe.yaml"), root / name, device="cpu")
    return root


@pytest.fixture
def teachers(trained: Path, tmp_path: Path) -> dict[str, Path]:
    """Copies of the trained teachers, free to be changed."""
    for name in PEOPLE:
        shutil.copytree(trained / name, tmp_path / name)
        shutil.copy(trained / f"{name}.txt", tmp_path)
    return {name: tmp_path / name for name in PEOPLE}


@pytest.fixture
def distil(make_recipe, teachers: dict[str, Path]):
    def make(*overrides: str, **sections: object):
        subsets = [{"name": name, "weights": str(path), "licence": f"of {name}"} for name, path in teachers.items()]
        given = {"subsets": subsets, "losses": [ARC, KD, FEATURES]} | sections
        return make_recipe(overrides, **given)

    return make


def session_of(recipe, out: Path, monkeypatch: pytest.MonkeyPatch):
    """The session of a run that takes no step."""
    kept = []
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_loop", lambda run: kept.append(run.session))
        train(recipe, out, device="cpu")
    return kept[0]


def test_a_teacher_of_a_subset__knows_its_own_people_only(teachers: dict[str, Path]) -> None:
    for name, people in PEOPLE.items():
        weights, names, _ = load_classifier(teachers[name] / "classifier.safetensors")
        assert names == people and len(weights) == len(people)


@pytest.mark.parametrize("named", [False, True])
def test_classifiers__are_mapped_by_name(
    distil, teachers: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    path = teachers["low"] / "classifier.safetensors"
    weights, names, _ = load_classifier(path)
    order = [2, 0, 3, 1]
    save_classifier(path, weights[order], [names[i] for i in order], "trained")
    overrides = (f"subsets.low.identities={{file: '{tmp_path}/low.txt'}}",) if named else ()
    session = session_of(distil(*overrides), tmp_path / "run", monkeypatch)
    low, high = session.subsets
    assert low.source.names == PEOPLE["low"] and high.source.names == PEOPLE["high"]
    assert [session.source.names[c] for c in high.source.columns] == PEOPLE["high"]
    assert torch.equal(low.classifier.class_weights, weights)
    assert torch.equal(session.objective.parts["subset_kd"].classifiers[0].class_weights, weights)
    assert low.classifier.agreement > 0.9 and high.classifier.agreement > 0.9


def test_classifiers__may_be_class_means_of_the_subset(distil, tmp_path: Path, monkeypatch) -> None:
    chosen = [f"subsets.{name}.identities={{file: '{tmp_path}/{name}.txt'}}" for name in PEOPLE]
    means = [f"subsets.{name}.classifier=class_means" for name in PEOPLE]
    session = session_of(distil(*chosen, *means), tmp_path / "run", monkeypatch)
    for subset in session.subsets:
        rows = torch.nn.functional.normalize(torch.from_numpy(np.array(subset.cached)), dim=2)
        first = rows[subset.source.labels == 0].flatten(0, 1).mean(0)
        found = subset.classifier.class_weights[0]
        assert float(torch.cosine_similarity(first, found, dim=0)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("view", "versions"), [("clean", "null"), ("same", "null"), ("same", "3")])
def test_teachers__are_asked_about_images_of_their_people_as_the_step_shows_them(
    distil, tmp_path: Path, monkeypatch, view: str, versions: str
) -> None:
    views = [f"subsets.{name}.view={view}" for name in PEOPLE]
    session = session_of(distil(*views, f"data.versions={versions}"), tmp_path / "run", monkeypatch)
    epoch = 1
    samples = [session.dataset[epoch, index] for index in range(len(session.source))]
    images = torch.from_numpy(np.stack([sample[0] for sample in samples])).permute(0, 3, 1, 2)
    _, labels, indices, shown = (torch.tensor([sample[i] for sample in samples]) if i else None for i in range(4))
    batch = Batch(images, labels, indices, shown)
    for subset in session.subsets:
        assert (subset.cached is None) == (view == "same" and versions == "null")
        inside = torch.from_numpy(np.isin(session.source.labels, subset.source.columns))
        found = subset_embeddings(session, subset, batch)
        assert (found[~inside] == 0).all()
        pixels = images
        if view == "clean":
            plain = [session.source.read(i)[:, :: -1 if shown[i] else 1] for i in range(len(samples))]
            pixels = torch.from_numpy(np.stack(plain)).permute(0, 3, 1, 2)
        expected = subset.teacher.embed(pixels[inside])
        torch.testing.assert_close(found[inside], expected, atol=1e-4, rtol=1e-4)


def test_unlabelled_blends__are_nobody_s_business(distil, tmp_path: Path, monkeypatch) -> None:
    session = session_of(distil(), tmp_path / "run", monkeypatch)
    monkeypatch.setattr(Session, "all_labelled", False)
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    batch = Batch(images, torch.tensor([-1, 0]), torch.tensor([0, 0]), torch.tensor([0, 0]))
    found = subset_embeddings(session, session.subsets[0], batch)
    assert (found[0] == 0).all() and (found[1] != 0).any()


def test_one_teacher_of_everybody__is_the_single_teacher_bit_for_bit_in_its_loss(
    make_recipe, tmp_path: Path, monkeypatch
) -> None:
    train(make_recipe(QUICK), tmp_path / "all", device="cpu")
    weights = str(tmp_path / "all")
    one = make_recipe(teacher={"weights": weights}, losses=[ARC, {"name": "logit_kd", "scale": 8.0}])
    many = make_recipe(subsets=[{"name": "all", "weights": weights}], losses=[ARC, KD])
    train(one, tmp_path / "one", device="cpu")
    train(many, tmp_path / "many", device="cpu")
    terms = [[record["terms"] for record in steps(tmp_path / run)] for run in ("one", "many")]
    for a, b in zip(*terms, strict=True):
        assert a["logit_kd"] == pytest.approx(b["subset_kd"], rel=1e-4)
        assert a["margin_softmax"] == pytest.approx(b["margin_softmax"], rel=1e-4)


def test_training__lowers_both_terms_and_leaves_no_projector_in_the_student(distil, tmp_path: Path) -> None:
    train(distil(*QUICK, "train.epochs=30", "data.augment={}"), tmp_path / "run", device="cpu")
    for name in ("subset_kd", "subset_l2"):
        curve = [record["terms"][name] for record in steps(tmp_path / "run")]
        assert sum(curve[-12:]) < 0.6 * sum(curve[:12])
    assert not any("projector" in name for name in load_file(tmp_path / "run" / "student.safetensors"))
    last = sorted((tmp_path / "run" / "checkpoints").glob("step-*.safetensors"))[-1]
    assert "objective.parts.subset_l2.projectors.1.weight" in load_file(last)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "subset low: 4 identities, 16 images; classifier: trained; " in log
    assert "subset_kd: shares low 0.5, high 0.5" in log


def test_provenance__of_every_teacher_goes_with_the_student_and_its_export(
    distil, teachers: dict[str, Path], tmp_path: Path
) -> None:
    train(distil("train.max_steps=2"), tmp_path / "run", device="cpu")
    student = load_embedder(tmp_path / "run")
    told = json.loads(student.metadata["subset_teachers"])
    assert [one["name"] for one in told] == ["low", "high"]
    assert [one["digest"] for one in told] == [load_embedder(path).digest for path in teachers.values()]
    assert [one["licence"] for one in told] == ["of low", "of high"]
    assert [one["identities"] for one in told] == [4, 3]
    export_onnx(student, tmp_path / "run.onnx")
    exported = load_embedder(tmp_path / "run.onnx")
    assert json.loads(exported.metadata["facekd.subset_teachers"]) == told


def test_plan__counts_every_teacher_and_its_cache(distil, teachers: dict[str, Path]) -> None:
    plan, without = plan_run(distil(), "cpu"), plan_run(distil(subsets=[], losses=[ARC]), "cpu")
    low, high = (load_embedder(path) for path in teachers.values())
    assert (plan.teachers, without.teachers) == (2, 0)
    assert plan.teacher_parameters == low.parameters + high.parameters
    assert plan.cache_bytes == 2 * 4 * (16 * 8 + 12 * 12)
    assert plan.classifier_bytes - without.classifier_bytes == 4 * (4 * 8 + 3 * 12)
    live = plan_run(distil("subsets.high.view=same"), "cpu")
    assert live.cache_bytes == 2 * 4 * 16 * 8 and live.teacher_step_images == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_resume__ends_with_the_same_bits(distil, tmp_path: Path, workers: int) -> None:
    teacher = {"weights": str(tmp_path / "low"), "view": "same"}
    losses = [ARC, KD, FEATURES, {"name": "l2"}]
    recipe = distil("data.augment.mix=0.2", "train.precision=bf16", teacher=teacher, losses=losses)
    train(recipe, tmp_path / "whole", device="cpu")
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"workers": workers})})
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "broken", device="cpu", listener=stop_at(5))
    train(recipe, tmp_path / "broken", resume=True, device="cpu")
    assert same(tmp_path / "whole", tmp_path / "broken")
    assert steps(tmp_path / "whole") == steps(tmp_path / "broken")


def test_resume__with_another_teacher_in_the_place_of_one_is_refused(
    distil, teachers: dict[str, Path], make_recipe, tmp_path: Path
) -> None:
    recipe = distil()
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "run", device="cpu", listener=stop_at(3))
    shutil.rmtree(teachers["high"])
    subset = (f"data.subset={{file: '{tmp_path}/high.txt'}}", "student.embedding_size=12", "train.seed=5")
    train(make_recipe((*QUICK, *subset)), teachers["high"], device="cpu")
    with pytest.raises(CheckpointError, match="the subsets changed since it was written"):
        train(recipe, tmp_path / "run", resume=True, device="cpu")


SIZED = (
    SubsetSizes("a", 4, images=30, columns=torch.tensor([0, 1]), share=3.0),
    SubsetSizes("b", 4, images=10, columns=torch.tensor([1, 2]), share=1.0),
)


@pytest.mark.parametrize(
    ("shares", "found"), [("equal", [0.5, 0.5]), ("images", [0.25, 0.75]), ("given", [0.75, 0.25])]
)
def test_shares__sum_to_1(shares: str, found: list[float]) -> None:
    sizes = Sizes(classes=3, embedding_size=4, teacher_size=4, batch_size=2, steps_per_epoch=1, subsets=SIZED)
    objective = Objective((SubsetL2(name="subset_l2", shares=shares),), sizes)
    assert objective.parts["subset_l2"].shares.tolist() == pytest.approx(found)


def test_projected_student__subset_kd_stands_on_the_classifier_the_run_has() -> None:
    """On the student's own classifier it sees the student as it is; on the teacher's, through the projector."""
    torch.manual_seed(0)
    everybody = SubsetSizes("all", 6, images=9, columns=torch.arange(3), class_weights=torch.randn(3, 6))
    sizes = Sizes(3, 4, 5, 3, 1, projected=True, subsets=(everybody,))
    theirs, inherited = torch.randn(3, 6), torch.randn(3, 5)
    outputs = StepOutputs(torch.randn(3, 4), torch.randn(3, 5), torch.arange(3), subset_teachers=(theirs,))
    for whose in ("own", "teacher"):
        losses = (MarginSoftmax(name="margin_softmax", class_weights=whose), SubsetKD(name="subset_kd"), L2(name="l2"))
        objective = Objective(losses, sizes, inherited)
        student = outputs.student if whose == "own" else objective.projector(outputs.student)
        held = objective.own.class_weights if whose == "own" else inherited
        expected = logit_kd(student, theirs, held, everybody.class_weights)
        torch.testing.assert_close(objective(outputs, 0)["subset_kd"], expected)


def test_refusals__before_the_first_step(distil, make_recipe, teachers: dict[str, Path], tmp_path: Path) -> None:
    path = teachers["low"] / "classifier.safetensors"
    weights, names, _ = load_classifier(path)
    save_classifier(path, weights, [*names[:3], "stranger"], "trained")
    with pytest.raises(InputError, match=r"subsets.low: names 1 identities that the data does not have: 'stranger'"):
        plan_run(distil(), "cpu")
    (tmp_path / "high.txt").write_text("person3\nperson0\n")
    one = [{"name": "high", "weights": str(teachers["high"]), "identities": {"file": f"{tmp_path}/high.txt"}}]
    with pytest.raises(InputError, match="lacks 1 of the data's 2 identities: person0"):
        train(distil(subsets=one), tmp_path / "a", device="cpu")
    bare = str(teachers["high"] / "student.safetensors")
    with pytest.raises(InputError, match="has no classifier that names its identities .add identities to subsets.high"):
        plan_run(distil(subsets=[{"name": "high", "weights": bare}]), "cpu")
    with pytest.raises(UsageError, match="is or holds what the run reads: subsets"):
        train(distil(), teachers["high"], device="cpu")
    with pytest.raises(InputError, match="data.subset: selects 0 of 6 identities"):
        plan_run(make_recipe(("data.subset={shots: {at_least: 99}}",)), "cpu")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("losses=[{name: l2}]", "subsets=[]"), "losses.0: l2 needs a teacher"),
        (("subsets=[]",), "losses.1: subset_kd needs teachers of subsets"),
        (("losses=[{name: margin_softmax}]",), "subsets: no loss asks these teachers"),
        (("losses.1.shares=given",), "losses.1.shares: given, but subsets.low has no share"),
        (("subsets.0.share=2",), "subsets.0.share: has no effect without shares: given"),
        (("subsets.1.name=low",), "subsets.1.name: low is there twice"),
        (("subsets.0.view=sharp",), "subsets.0.view: sharp is not for a teacher of a subset"),
        (("subsets.0.snapshots=aligned", "subsets.0.view=same"), "subsets.0.snapshots: a teacher of a subset is one"),
        (("subsets.0.classifier=none",), "subsets.0.classifier: none, but subset_kd needs it"),
        (("subsets.0.classifier=class_means",), "subsets.0.identities: missing; class_means"),
        (("subsets.0.identities={}",), "subsets.0.identities: give exactly one of shots, attribute and file"),
        (("data.subset={shots: {}}",), "data.subset.shots: selects everybody"),
        (("data.subset={shots: {at_least: 5, at_most: 2}}",), "data.subset.shots.at_least: 5 is above at_most: 2"),
        (("losses=[{name: subset_kd}]",), None),
    ],
)
def test_contradictions__name_the_key(make_recipe, overrides: tuple[str, ...], line: str | None) -> None:
    subsets = [{"name": "low", "weights": "a"}, {"name": "high", "weights": "b"}]
    if line is None:
        assert make_recipe(overrides, subsets=subsets, losses=[ARC, KD]).subsets[1].name == "high"
        return
    with pytest.raises(RecipeError) as told:
        make_recipe(overrides, subsets=subsets, losses=[ARC, KD])
    assert line in str(told.value).replace("--set ", "")
