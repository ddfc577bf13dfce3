"""Class weights of every system's files: any number of shards gives one matrix, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from facekd.errors import CheckpointError, InputError, NonFiniteError
from facekd.models.classifier_files import class_rows, read_classifier_files
from facekd.models.weights import save_classifier

CLASSES, DIM = 29, 6
WORLDS = (1, 2, 3, 8)
ROWS = torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(0))

Write = Callable[[Path, int, Tensor], None]


def save(path: Path, tree: object) -> None:
    torch.save(tree, path)


def pfc2(folder: Path, rank: int, rows: Tensor) -> None:
    tree = {
        "epoch": 3,
        "global_step": 7,
        "state_dict_backbone": {"conv1.weight": torch.ones(2, 3, 1, 1), "fc.weight": torch.ones(DIM, 9)},
        "state_dict_softmax_fc": {"weight": torch.nn.Parameter(rows)},
        "state_optimizer": {"state": {0: {"momentum_buffer": torch.zeros_like(rows)}}, "param_groups": []},
        "state_lr_scheduler": {"last_epoch": 3},
    }
    save(folder / f"checkpoint_gpu_{rank}.pt", tree)


def pfc1(folder: Path, rank: int, rows: Tensor) -> None:
    save(folder / f"rank_{rank}_softmax_weight.pt", rows)
    save(folder / f"rank_{rank}_softmax_weight_mom.pt", torch.zeros_like(rows))


def pfc1_colon(folder: Path, rank: int, rows: Tensor) -> None:
    save(folder / f"rank:{rank}_softmax_weight.pt", rows)


def cvlface(folder: Path, rank: int, rows: Tensor) -> None:
    save(folder / f"classifier_rank{rank}.pt", {"partial_fc.weight": rows, "partial_fc.batch_mean": torch.ones(1)})


def tface(folder: Path, rank: int, rows: Tensor) -> None:
    tree = {"faces": {"kernel": rows.T.contiguous()}}
    save(folder / f"HEAD_Epoch_5_Split_{rank}_checkpoint.pth", tree)


def shards(folder: Path, write: Write, world: int, rows: Tensor = ROWS, *, padded: bool = False) -> Path:
    """The rows as ``world`` processes store them."""
    folder.mkdir(exist_ok=True)
    if padded:
        rows = torch.cat([rows, torch.ones(-len(rows) % world, rows.shape[1])])
    start = 0
    for rank in range(world):
        size = len(rows) // world + (rank < len(rows) % world)
        write(folder, rank, rows[start : start + size].clone())
        start += size
    assert start == len(rows)
    return folder


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("write", [pfc2, pfc1, pfc1_colon, tface], ids=lambda write: write.__name__)
def test_shards_of_any_world_size_give_the_same_matrix(tmp_path: Path, write: Write, world: int) -> None:
    found = read_classifier_files(shards(tmp_path / "head", write, world), DIM)
    assert torch.equal(found.class_weights, ROWS) and found.class_names is None
    assert found.source.endswith(f"and {world - 1} more shards" if world > 1 else (".pt", ".pth"))


@pytest.mark.parametrize("world", WORLDS)
def test_padding_of_cvlface_is_taken_away(tmp_path: Path, world: int) -> None:
    folder = shards(tmp_path / "head", cvlface, world, padded=True)
    assert torch.equal(read_classifier_files(folder, DIM, CLASSES).class_weights, ROWS)
    assert torch.equal(class_rows(folder, DIM, [f"p{n:02d}" for n in range(CLASSES)]).class_weights, ROWS)


def test_padding_nobody_counts_is_refused_unless_it_is_zero(tmp_path: Path) -> None:
    folder = shards(tmp_path / "head", cvlface, 8, padded=True)
    with pytest.raises(InputError, match=r"pads its 32 rows, and up to 7 at the end stand for nobody \(say how many"):
        read_classifier_files(folder, DIM)
    with pytest.raises(InputError, match="has 32 rows, up to 7 of them padding, the data 24 identities"):
        read_classifier_files(folder, DIM, 24)
    zeroed = torch.cat([ROWS, torch.zeros(3, DIM)])
    assert torch.equal(read_classifier_files(shards(tmp_path / "z", cvlface, 8, zeroed), DIM).class_weights, ROWS)


def test_one_shard_stands_for_all_of_them(tmp_path: Path) -> None:
    folder = shards(tmp_path / "head", pfc1, 3)
    found = read_classifier_files(folder / "rank_1_softmax_weight.pt", DIM)
    assert torch.equal(found.class_weights, ROWS)
    (note,) = found.notes
    assert "3 momentum files left out: rank_0_softmax_weight_mom.pt" in note


WHOLE = {
    "120header.pth": {"kernel": ROWS.T},
    "Head_ArcFace_Epoch_9.pth": {"weight": ROWS},
    "Head_AmSoftmax.pth": {"module.kernel": ROWS.T},
    "HEAD_Epoch_4_checkpoint.pth": {"faces": {"weight": ROWS.T}},
    "adaface.ckpt": {
        "state_dict": {
            "model.output_layer.3.weight": torch.ones(DIM, 8),
            "head.kernel": ROWS.T,
            "head.t": torch.ones(1),
        }
    },
    "magface.pth": {
        "state_dict": {
            "features.module.layer1.0.conv1.weight": torch.ones(2, 2, 1, 1),
            "features.module.fc.weight": torch.ones(DIM, 8),
            "fc.weight": ROWS.T,
        }
    },
    "magface_ddp.pth": {
        "state_dict": {
            "module.features.layer1.0.conv1.weight": torch.ones(2, 2, 1, 1),
            "module.features.fc.weight": torch.ones(DIM, 8),
            "module.fc.weight": ROWS.T,
        }
    },
    "facexzoo.pt": {"state_dict": {"backbone.linear.weight": torch.ones(DIM, 8), "head.weight": ROWS.T}, "epoch": 3},
    "ema.pt": {"state_dict_softmax_fc": {"weight": ROWS.half().float()}},
    "half.pt": {"partial_fc.weight": ROWS.half()},
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_classifier_in_one_file(tmp_path: Path, name: str) -> None:
    save(tmp_path / name, WHOLE[name])
    found = read_classifier_files(tmp_path / name, DIM)
    expected = ROWS.half().float() if name in ("ema.pt", "half.pt") else ROWS
    assert torch.equal(found.class_weights, expected) and found.class_weights.dtype == torch.float32
    assert found.source.endswith(name)


def test_equal_sizes_follow_the_order_of_the_source(tmp_path: Path) -> None:
    square = torch.randn(DIM, DIM)
    save(tmp_path / "1header.pth", {"kernel": square})
    save(tmp_path / "Head_A.pth", {"weight": square})
    assert torch.equal(read_classifier_files(tmp_path / "1header.pth", DIM).class_weights, square.T)
    assert torch.equal(read_classifier_files(tmp_path / "Head_A.pth", DIM).class_weights, square)


def test_a_square_shard_is_turned_as_its_neighbours_are(tmp_path: Path) -> None:
    rows = torch.randn(2 * DIM - 1, DIM)  # shards of 6 x 6 and 5 x 6, which contradict the source's dim x classes
    folder = shards(tmp_path / "head", lambda f, r, part: tface(f, r, part.T), 2, rows)
    assert torch.equal(read_classifier_files(folder, DIM).class_weights, rows)


def test_own_files_keep_names_and_rows_are_found_by_name(tmp_path: Path) -> None:
    names = [f"p{n}" for n in range(CLASSES)]
    for name in ("classifier.safetensors", "another.safetensors"):
        save_classifier(tmp_path / name, ROWS, names, "trained", teacher_digest="abc")
        found = read_classifier_files(tmp_path / name, DIM)
        assert found.class_names == tuple(names) and (found.source, found.teacher_digest) == ("trained", "abc")
    chosen = class_rows(tmp_path, DIM, ["p7", "p3"])
    assert torch.equal(chosen.class_weights, ROWS[[7, 3]]) and chosen.class_names == ("p7", "p3")
    with pytest.raises(InputError, match="lacks 1 of the data's 2 identities: nobody"):
        class_rows(tmp_path, DIM, ["p7", "nobody"])
    with pytest.raises(InputError, match="class weights have 6 columns, the teacher's embedding 7"):
        class_rows(tmp_path, 7, ["p7"])


def test_numbers_in_rising_order_are_row_numbers(tmp_path: Path) -> None:
    folder = shards(tmp_path / "head", cvlface, 8, padded=True)
    kept = [n for n in range(CLASSES) if n != 9]  # a label that does not occur, and padding that could hide it
    found = class_rows(folder, DIM, [str(n) for n in kept])
    assert torch.equal(found.class_weights, ROWS[kept])
    sorted_as_text = sorted(str(n) for n in range(CLASSES))
    assert torch.equal(class_rows(folder, DIM, sorted_as_text).class_weights, ROWS)


def other_width(folder: Path) -> None:
    shards(folder, pfc1, 3)
    pfc1(folder, 1, torch.ones(10, DIM + 1))


def other_turn(folder: Path) -> None:
    shards(folder, tface, 2)
    save(folder / "HEAD_Epoch_5_Split_1_checkpoint.pth", {"faces": {"kernel": ROWS[15:].clone()}})


def twice(folder: Path) -> None:
    shards(folder, pfc1, 2)
    shards(folder, pfc1_colon, 1)


def missing(folder: Path) -> None:
    shards(folder, pfc2, 8)
    (folder / "checkpoint_gpu_2.pt").unlink()
    (folder / "checkpoint_gpu_5.pt").unlink()


def uneven(folder: Path) -> None:
    shards(folder, pfc1, 3)
    pfc1(folder, 1, torch.ones(4, DIM))


def epochs(folder: Path) -> None:
    shards(folder, tface, 2)
    save(folder / "HEAD_Epoch_6_Split_0_checkpoint.pth", {"faces": {"kernel": ROWS.T}})


def several(folder: Path) -> None:
    save(folder / "Head_A.pth", {"a": ROWS, "b": ROWS})


def zero(folder: Path) -> None:
    rows = ROWS.clone()
    rows[17] = 0
    shards(folder, pfc1, 3, rows)


def integers(folder: Path) -> None:
    save(folder / "Head_A.pth", {"weight": torch.ones(CLASSES, DIM, dtype=torch.int64)})


def spread(folder: Path) -> None:
    save(folder / "Head_A.pth", {"weight": torch.ones(1, DIM).expand(CLASSES, DIM)})


def nothing(folder: Path) -> None:
    save(folder / "model.pt", {"fc.weight": torch.ones(DIM, 9)})


REFUSALS = {
    other_width: r"rank_1_softmax_weight.pt: its class weights are 10 x 7, and neither is the teacher's .* width of 6",
    other_turn: r"Split_1_checkpoint.pth|Split_0_checkpoint.pth: lies the other way round than HEAD_Epoch_5_Split_",
    twice: r"rank 0 is there twice: rank:0_softmax_weight.pt and rank_0_softmax_weight.pt \(keep one of them\)",
    missing: r"checkpoint_gpu_0.pt: rank 2 is missing, 2 of 8 shards \(copy every shard into one folder\)",
    uneven: r"rank_0_softmax_weight.pt: holds 10 classes, but shard 0 of 3 with 23 classes in all holds 8",
    epochs: r"holds 2 classifiers: HEAD_Epoch_5_Split_0_.*, HEAD_Epoch_6_Split_0_.* \(give the path of one of them\)",
    several: r"Head_A.pth: no class weights that are known here in it \(2 tensors: a \(29, 6\), b \(29, 6\)\)",
    zero: r"rank_0_softmax_weight.pt: class 17 of 29 is all zeros, 1 such rows: no cosine can be taken of it",
    integers: r"Head_A.pth: its class weights are torch.int64 \(29, 6\), not a matrix",
    nothing: r"holds no classifier file known here \(known: checkpoint_gpu_R.pt",
}


@pytest.mark.parametrize("damage", REFUSALS, ids=lambda damage: damage.__name__)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(tmp_path)
    with pytest.raises(InputError, match=REFUSALS[damage]) as caught:
        read_classifier_files(tmp_path, DIM)
    assert len(caught.value.lines) == 1 and caught.value.exit_code == 2


def test_one_epoch_of_several_is_read_by_its_path(tmp_path: Path) -> None:
    epochs(tmp_path)
    for name in ("HEAD_Epoch_5_Split_1_checkpoint.pth", "HEAD_Epoch_6_Split_0_checkpoint.pth"):
        assert torch.equal(read_classifier_files(tmp_path / name, DIM).class_weights, ROWS)


def test_values_that_are_not_finite_are_refused_with_their_class(tmp_path: Path) -> None:
    rows = ROWS.clone()
    rows[11, 2] = float("nan")
    shards(tmp_path, pfc2, 2, rows)
    with pytest.raises(NonFiniteError, match="class 11 of 29 is not finite, 1 such rows"):
        read_classifier_files(tmp_path, DIM)


def test_both_counts_are_named(tmp_path: Path) -> None:
    shards(tmp_path, pfc2, 2)
    for ask in (
        lambda: class_rows(tmp_path, DIM, ["a", "b"]),
        lambda: read_classifier_files(tmp_path, DIM, 2),
    ):
        with pytest.raises(InputError, match="has 29 rows, the data 2 identities"):
            ask()


def test_a_backbone_alone_and_a_missing_path(tmp_path: Path) -> None:
    nothing(tmp_path)
    with pytest.raises(CheckpointError, match=r"model.pt: no class weights that are known .*\(one tensor: fc.weight"):
        read_classifier_files(tmp_path / "model.pt", DIM)
    for beside in ("blocks.0.attn.qkv.weight", "features.weight"):
        own_layers = {beside: torch.ones(3, 3, 1), "head.weight": torch.ones(DIM, 9), "fc.weight": torch.ones(DIM, 9)}
        save(tmp_path / "model.pt", {"state_dict": own_layers})
        with pytest.raises(CheckpointError, match="model.pt: no class weights that are known here"):
            read_classifier_files(tmp_path / "model.pt", DIM)
    with pytest.raises(InputError, match="absent.pt: no such file or folder"):
        read_classifier_files(tmp_path / "absent.pt", DIM)
    (tmp_path / "head.weight").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        read_classifier_files(tmp_path / "head.weight", DIM)


def test_shards_that_run_code_are_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return print, ("run",)

    torch.save({"weight": Trap()}, tmp_path / "Head_A.pth")
    with pytest.raises(CheckpointError, match="pickled code"):
        read_classifier_files(tmp_path, DIM)


def test_a_matrix_that_stores_one_row_for_all_is_refused(tmp_path: Path) -> None:
    spread(tmp_path)
    with pytest.raises(CheckpointError, match="stores fewer values than it claims"):
        read_classifier_files(tmp_path, DIM)
