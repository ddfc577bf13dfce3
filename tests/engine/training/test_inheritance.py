"""Where a student's inherited classifier comes from, in which order, and what is proved before it is taken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from facekd.data.identities import IdentitySource
from facekd.data.open_source import open_identities
from facekd.data.record_writer import write_records
from facekd.engine.training.inheritance import CLASS_MEANS, class_means, embedded_class_means, inherit_classifier
from facekd.engine.training.plan import needs_class_means
from facekd.engine.training.teacher import embed_views, mirror_views
from facekd.engine.training.trainer import plan_run, train
from facekd.errors import CheckpointError, InputError, UsageError
from facekd.models.backbone import build_backbone
from facekd.models.embedder import Embedder, load_embedder
from facekd.models.weights import load_classifier, save_classifier

SIDE, DIM, CLASSES = 32, 16, 6
INHERITED = {"name": "margin_softmax", "class_weights": "teacher", "scale": 8.0, "margin": 0.2}
STUDENT = {
    "backbone": "resnet_tiny",
    "embedding_size": DIM,
    "input_size": SIDE,
    "options": {"channels": "4,8", "blocks": "1,1"},
}


@pytest.fixture
def source(faces: Path) -> IdentitySource:
    return open_identities(faces)


@pytest.fixture
def state(source: IdentitySource) -> dict[str, Tensor]:
    """A backbone whose BatchNorm knows the faces."""
    torch.manual_seed(0)
    options = {"width": 0.25, "activation": "prelu", "affine": True}
    module = build_backbone("mobilefacenet", embedding_size=DIM, input_size=SIDE, options=options).train()
    images = torch.stack([torch.from_numpy(source.read(i).copy()).permute(2, 0, 1) for i in range(len(source))])
    with torch.no_grad():
        for _ in range(30):
            module((images.float() - 127.5) / 127.5)
    return {key: value.clone() for key, value in module.state_dict().items()}


def foreign(path: Path) -> Embedder:
    return load_embedder(path, color="rgb", normalize="half")


@pytest.fixture
def means(state: dict[str, Tensor], source: IdentitySource, tmp_path: Path) -> Tensor:
    torch.save(state, tmp_path / "bare.pth")
    return embedded_class_means(foreign(tmp_path / "bare.pth"), source)


def whole(path: Path, state: dict[str, Tensor], rows: Tensor) -> Path:
    """One checkpoint with backbone and classifier, as FaceX-Zoo leaves it."""
    torch.save({"state_dict": {**{f"backbone.{k}": v for k, v in state.items()}, "head.weight": rows.T.clone()}}, path)
    return path


def ranks(folder: Path, state: dict[str, Tensor], rows: Tensor, world: int) -> Path:
    """A checkpoint a process, each with the backbone and its share of the classifier, as arcface_torch leaves them."""
    folder.mkdir()
    start = 0
    for rank in range(world):
        stop = start + len(rows) // world + (rank < len(rows) % world)
        tree = {"state_dict_backbone": state, "state_dict_softmax_fc": {"weight": rows[start:stop].clone()}}
        torch.save(tree, folder / f"checkpoint_gpu_{rank}.pt")
        start = stop
    return folder / "checkpoint_gpu_0.pt"


def teaching(make_recipe, weights: Path, **options: object):
    given = {"weights": str(weights), "color": "rgb", "normalize": "half", **options}
    return make_recipe(("train.max_steps=2",), student=STUDENT, teacher=given, losses=[INHERITED])


def inherited(run: Path) -> tuple[str, Tensor]:
    """What the record says, and the rows."""
    record = json.loads((run / "environment.json").read_text())["inherited_classifier"]
    assert record["agreement"] >= 0.5
    return record["source"], load_classifier(run / "classifier.safetensors")[0]


def test_class_means_do_not_depend_on_blocks(state, means: Tensor, source: IdentitySource, tmp_path: Path) -> None:
    rows = embed_views(foreign(tmp_path / "bare.pth"), mirror_views(source), np.arange(len(source)))
    assert torch.allclose(class_means(rows, source.labels, CLASSES), means, atol=1e-6)


def test_a_classifier_inside_the_checkpoint_is_used_by_auto(make_recipe, state, means, tmp_path: Path) -> None:
    recipe = teaching(make_recipe, whole(tmp_path / "whole.pth", state, 5 * means))
    assert not needs_class_means(recipe, foreign(tmp_path / "whole.pth"))
    assert plan_run(recipe, "cpu").cache_bytes == 0
    train(recipe, tmp_path / "run", device="cpu")
    source, rows = inherited(tmp_path / "run")
    assert source == "FaceX-Zoo checkpoint: whole.pth" and torch.equal(rows, 5 * means)


def test_a_checkpoint_of_one_process_stands_for_all(make_recipe, state, means, tmp_path: Path) -> None:
    recipe = teaching(make_recipe, ranks(tmp_path / "pfc", state, means, 4))
    train(recipe, tmp_path / "run", device="cpu")
    source, rows = inherited(tmp_path / "run")
    assert source == "arcface_torch partial FC v2: checkpoint_gpu_0.pt and 3 more shards" and torch.equal(rows, means)


def test_class_means_are_taken_where_asked_or_where_nothing_else_is(make_recipe, state, means, tmp_path: Path) -> None:
    for number, (path, choice) in enumerate(
        ((whole(tmp_path / "whole.pth", state, means), "class_means"), (tmp_path / "bare.pth", "auto"))
    ):
        recipe = teaching(make_recipe, path, classifier=choice)
        assert needs_class_means(recipe, foreign(path)) and plan_run(recipe, "cpu").cache_bytes > 0
        train(recipe, tmp_path / f"run{number}", device="cpu")
        source, rows = inherited(tmp_path / f"run{number}")
        assert source == CLASS_MEANS and torch.allclose(rows, means, atol=1e-6)


def test_class_weights_that_are_named_come_before_all_others(make_recipe, state, means, tmp_path: Path) -> None:
    torch.save({"kernel": 7 * means.T}, tmp_path / "9header.pth")
    for weights in (whole(tmp_path / "whole.pth", state, means), tmp_path / "bare.pth"):
        recipe = teaching(make_recipe, weights, class_weights=str(tmp_path / "9header.pth"))
        train(recipe, tmp_path / "run", overwrite=True, device="cpu")
        source, rows = inherited(tmp_path / "run")
        assert source == "AdaDistill or PocketNet header: 9header.pth" and torch.equal(rows, 7 * means)


def test_shards_with_permuted_labels_are_refused(make_recipe, state, means, tmp_path: Path) -> None:
    recipe = teaching(make_recipe, ranks(tmp_path / "pfc", state, means.roll(1, 0), 3))
    with pytest.raises(UsageError, match="nearest to their own class in its classifier .*labels in another order"):
        train(recipe, tmp_path / "run", device="cpu")


def test_another_number_of_classes_names_both(make_recipe, state, means, tmp_path: Path) -> None:
    recipe = teaching(make_recipe, whole(tmp_path / "whole.pth", state, torch.cat([means, means])))
    message = r"has 12 rows, the data 6 identities \(.*set teacher.classifier=class_means\)"
    with pytest.raises(InputError, match=message):
        train(recipe, tmp_path / "run", device="cpu")


def test_a_run_is_not_resumed_with_another_file_of_class_weights(make_recipe, state, means, tmp_path: Path) -> None:
    header = tmp_path / "header.pth"
    torch.save({"kernel": means.T}, header)
    recipe = teaching(make_recipe, tmp_path / "bare.pth", class_weights=str(header))
    train(recipe, tmp_path / "run", device="cpu")
    train(recipe, tmp_path / "run", resume=True, device="cpu")
    torch.save({"kernel": (means + 1e-3).T}, header)
    with pytest.raises(CheckpointError, match="the classifier changed since it was written"):
        train(recipe, tmp_path / "run", resume=True, device="cpu")


def test_class_weights_of_another_width_name_both(make_recipe, state, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "bare.pth")
    torch.save({"weight": torch.randn(CLASSES, DIM + 1)}, tmp_path / "Head_A.pth")
    recipe = teaching(make_recipe, tmp_path / "bare.pth", class_weights=str(tmp_path / "Head_A.pth"))
    with pytest.raises(InputError, match="are 6 x 17, and neither is the teacher's embedding width of 16"):
        train(recipe, tmp_path / "run", device="cpu")


def test_a_classifier_made_for_another_model_file_is_told(state, means, source: IdentitySource, tmp_path: Path) -> None:
    embedder = foreign(tmp_path / "bare.pth")
    for digest, notes in ((embedder.digest, 0), ("f" * 64, 1), ("", 0)):
        save_classifier(tmp_path / "c.safetensors", means, source.names, "trained", teacher_digest=digest)
        found = inherit_classifier(tmp_path / "c.safetensors", embedder, source)
        assert len(found.notes) == notes and all("was made for another model file" in note for note in found.notes)


def test_momentum_files_are_named_in_the_log(make_recipe, state, means, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "bare.pth")
    (tmp_path / "head").mkdir()
    torch.save(means, tmp_path / "head" / "rank_0_softmax_weight.pt")
    torch.save(means, tmp_path / "head" / "rank_0_softmax_weight_mom.pt")
    recipe = teaching(make_recipe, tmp_path / "bare.pth", class_weights=str(tmp_path / "head"))
    train(recipe, tmp_path / "run", device="cpu")
    assert "1 momentum files left out: rank_0_softmax_weight_mom.pt" in (tmp_path / "run" / "log.txt").read_text()


def test_labels_of_a_record_file_are_row_numbers(state, means, source: IdentitySource, tmp_path: Path) -> None:
    """A label that does not occur leaves a gap in the numbers, not a shift of the rows."""
    (tmp_path / "pack").mkdir()
    numbers = [0, 1, 2, 4, 5, 7]
    samples = [(numbers[label], source.encoded(index)) for index, label in enumerate(source.labels.tolist())]
    write_records(tmp_path / "pack" / "train.rec", samples, [str(number) for number in range(8)])
    (tmp_path / "pack" / "classes.txt").unlink()
    rows = torch.randn(9, DIM)
    rows[numbers] = means
    packed = open_identities(tmp_path / "pack")
    torch.save(rows, tmp_path / "rank_0_softmax_weight.pt")
    found = inherit_classifier(tmp_path / "rank_0_softmax_weight.pt", foreign(tmp_path / "bare.pth"), packed)
    assert torch.equal(found.class_weights, means) and packed.names == [str(number) for number in numbers]
