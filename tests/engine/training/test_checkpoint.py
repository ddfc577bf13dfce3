"""Checkpoints: the same tensors back, damage noticed, the one before used, nothing lost."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import struct
from pathlib import Path

import pytest
import torch
from torch import nn

from facekd import __version__
from facekd.engine.training.checkpoint import (
    Checkpoint,
    any_finished,
    forget_newer,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from facekd.errors import CheckpointError, DeviceError, NonFiniteError
from facekd.models import safetensors_file


def _checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step, {"student.weight": torch.full((3,), float(step))}, {"best": {}})


def test_round_trip(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, _checkpoint(5))
    loaded, warnings = load_checkpoint(tmp_path)
    assert loaded.step == 5 and warnings == [] and loaded.facts["best"] == {}
    assert torch.equal(loaded.tensors["student.weight"], torch.full((3,), 5.0))


def test_keeps_the_newest_two(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, _checkpoint(step))
    assert [p.name for p in sorted(tmp_path.glob("step-*"))] == [
        "step-000000002.safetensors",
        "step-000000003.safetensors",
    ]


@pytest.mark.parametrize("damage", ["flip", "truncate", "swap", "empty"])
def test_damaged_newest__is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, _checkpoint(1))
    path = save_checkpoint(tmp_path, _checkpoint(2))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    other = (tmp_path / "step-000000001.safetensors").read_bytes()
    path.write_bytes({"flip": bytes(data), "truncate": path.read_bytes()[:-4], "swap": other, "empty": b""}[damage])
    loaded, warnings = load_checkpoint(tmp_path)
    assert loaded.step == 1
    assert warnings == ["passed over step-000000002.safetensors: digest differs from the recorded one"]


def test_a_later_damaged_file_does_not_push_out_a_good_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, _checkpoint(1))
    save_checkpoint(tmp_path, _checkpoint(9)).write_bytes(b"rot")
    save_checkpoint(tmp_path, _checkpoint(2))
    save_checkpoint(tmp_path, _checkpoint(3))
    assert load_checkpoint(tmp_path)[0].step == 3
    assert len(list(tmp_path.glob("step-*"))) == 2


def test_what_a_resume_passed_over_does_not_push_out_a_good_one(tmp_path: Path) -> None:
    """A file of a signal's step is never written again, and lies before all that follow."""
    save_checkpoint(tmp_path, _checkpoint(10))
    save_checkpoint(tmp_path, _checkpoint(13)).write_bytes(b"rot")
    forget_newer(tmp_path, load_checkpoint(tmp_path)[0].step)
    save_checkpoint(tmp_path, _checkpoint(20)).write_bytes(b"rot")
    assert load_checkpoint(tmp_path)[0].step == 10


def test_every_checkpoint_damaged__each_is_named(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, _checkpoint(step)).write_bytes(b"rot")
    with pytest.raises(CheckpointError, match="000002.*digest differs.*000001.*digest differs"):
        load_checkpoint(tmp_path)


def test_killed_between_file_and_record__the_recorded_one_is_used(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, _checkpoint(1))
    save_checkpoint(tmp_path, _checkpoint(2))
    lines = (tmp_path / "checkpoints.jsonl").read_text().splitlines()
    (tmp_path / "checkpoints.jsonl").write_text(lines[0] + "\n" + lines[1][:20])
    loaded, warnings = load_checkpoint(tmp_path)
    assert loaded.step == 1 and "never recorded" in warnings[0]


def test_killed_within_a_record__the_next_one_is_a_line_of_its_own(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, _checkpoint(step))
    text = (tmp_path / "checkpoints.jsonl").read_text()
    (tmp_path / "checkpoints.jsonl").write_text(text[:-20])
    save_checkpoint(tmp_path, _checkpoint(2))
    assert load_checkpoint(tmp_path)[0].step == 2


def test_a_first_checkpoint_without_a_record_is_none_yet__and_rotten_records_of_two_are_an_error(
    tmp_path: Path,
) -> None:
    assert not any_finished(tmp_path)
    save_checkpoint(tmp_path, _checkpoint(1))
    assert any_finished(tmp_path)
    (tmp_path / "checkpoints.jsonl").write_bytes(b'{"st')
    assert not any_finished(tmp_path)
    save_checkpoint(tmp_path, _checkpoint(2))
    (tmp_path / "checkpoints.jsonl").write_bytes(b"\xff" * 100)
    assert any_finished(tmp_path)
    with pytest.raises(CheckpointError, match="000002.*never recorded.*000001.*never recorded"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("line", ['{"file": "step-000000002.safetensors"}', "[]", '{"file": []}', "7", "\udcff"])
def test_a_record_that_says_nothing_is_none(tmp_path: Path, line: str) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, _checkpoint(step))
    kept = (tmp_path / "checkpoints.jsonl").read_text().splitlines()[0]
    (tmp_path / "checkpoints.jsonl").write_bytes(f"{kept}\n{line}\n".encode("utf-8", "surrogateescape"))
    assert load_checkpoint(tmp_path)[0].step == 1


@pytest.mark.parametrize("room", [0, 7, 100, 200])
def test_no_room__the_older_checkpoint_stands(tmp_path: Path, room: int) -> None:
    assert save_checkpoint(tmp_path, _checkpoint(1)).stat().st_size > 200
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(
            DeviceError, match="step-000000002.safetensors: cannot be written: File too large .free some"
        ):
            save_checkpoint(tmp_path, _checkpoint(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_checkpoint(tmp_path)[0].step == 1 and not list(tmp_path.glob("*.tmp.*"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_state_that_is_not_finite_is_not_written(tmp_path: Path, bad: float) -> None:
    save_checkpoint(tmp_path, _checkpoint(1))
    spoilt = Checkpoint(2, {"student.norm.running_mean": torch.tensor([0.0, bad]), "count": torch.tensor(3)}, {})
    with pytest.raises(NonFiniteError, match="step 2: student.norm.running_mean is not finite; no checkpoint was"):
        save_checkpoint(tmp_path, spoilt)
    assert load_checkpoint(tmp_path)[0].step == 1 and len(list(tmp_path.glob("*.safetensors"))) == 1


def _recorded_as(path: Path, data: bytes) -> None:
    """Put other bytes in a checkpoint's place, with the digest of these."""
    path.write_bytes(data)
    line = {"step": 2, "file": path.name, "sha256": hashlib.sha256(data).hexdigest()}
    with open(path.parent / "checkpoints.jsonl", "a") as stream:
        stream.write(json.dumps(line) + "\n")


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (None, "not a safetensors file"),
        ("{", "does not say which step"),
        ("[]", "does not say which step"),
        ("[" * 100_000, "does not say which step"),
        ('{"format": "facekd-checkpoint-1"}', "does not say which step"),
        ('{"format": "facekd-checkpoint-1", "step": []}', "does not say which step"),
    ],
)
def test_a_checkpoint_of_the_recorded_digest_that_is_none_is_passed_over(
    tmp_path: Path, facts: str | None, told: str
) -> None:
    save_checkpoint(tmp_path, _checkpoint(1))
    path = save_checkpoint(tmp_path, _checkpoint(2))
    data = b"rot" * 9 if facts is None else safetensors_file.encode({"a": torch.zeros(1)}, {"facts": facts})
    _recorded_as(path, data)
    loaded, warnings = load_checkpoint(tmp_path)
    assert loaded.step == 1 and len(warnings) == 1 and told in warnings[0]


def test_a_checkpoint_of_another_release_is_an_error_and_not_passed_over(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, _checkpoint(1))
    facts = {"facts": '{"format": "facekd-checkpoint-9", "step": 2, "facekd": "0.9"}'}
    _recorded_as(save_checkpoint(tmp_path, _checkpoint(2)), safetensors_file.encode({"a": torch.zeros(1)}, facts))
    told = (
        f"written by facekd 0.9 in format facekd-checkpoint-9; this is {__version__}, of facekd-checkpoint-1 .use the"
    )
    with pytest.raises(CheckpointError, match=told):
        load_checkpoint(tmp_path)


def test_a_checkpoint_of_the_first_release_is_taken_up(tmp_path: Path) -> None:
    """Its bytes are written out, for what writes checkpoints now may change."""
    facts = {"format": "facekd-checkpoint-1", "step": 7, "facekd": "0.1.0", "best": {}, "evaluated": 4}
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    head = json.dumps({"__metadata__": {"facts": json.dumps(facts)}, "student.weight": tensor}).encode()
    data = struct.pack("<Q", len(head)) + head + struct.pack("<2f", 0.5, -3.0)
    (tmp_path / "step-000000007.safetensors").write_bytes(data)
    line = {"step": 7, "file": "step-000000007.safetensors", "sha256": hashlib.sha256(data).hexdigest()}
    (tmp_path / "checkpoints.jsonl").write_text(json.dumps(line) + "\n")
    loaded, warnings = load_checkpoint(tmp_path)
    assert (loaded.step, loaded.facts["evaluated"], warnings) == (7, 4, [])
    assert loaded.tensors["student.weight"].tolist() == [0.5, -3.0]


def test_item_073_a_clock_that_goes_backwards_changes_nothing(tmp_path: Path) -> None:
    for step, moment in ((1, 3_000_000_000), (2, 2_000_000_000), (3, 1)):
        os.utime(save_checkpoint(tmp_path, _checkpoint(step)), (moment, moment))
    assert load_checkpoint(tmp_path)[0].step == 3
    assert [path.name[-13] for path in sorted(tmp_path.glob("step-*"))] == ["2", "3"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "link to nothing"])
def test_item_100_what_is_no_plain_file_is_passed_over(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "checkpoints"
    save_checkpoint(folder, _checkpoint(1))
    path = save_checkpoint(folder, _checkpoint(2))
    moved = path.rename(tmp_path / "elsewhere.safetensors")
    make = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(moved),
        "link to nothing": lambda: path.symlink_to(tmp_path / "nothing"),
    }
    make[kind]()
    loaded, warnings = load_checkpoint(folder)
    assert loaded.step == 1 and warnings == [f"passed over {path.name}: is not a plain file"]


def test_item_101_what_is_checked_is_what_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = save_checkpoint(tmp_path, _checkpoint(1)), []
    plain = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: opened.append(self) or plain(self))
    assert load_checkpoint(tmp_path)[0].step == 1
    assert opened == [path]


@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), lambda p: torch.optim.AdamW(p, 0.1)])
def test_optimizer__goes_on_with_the_same_bits(make) -> None:
    def steps(layer: nn.Linear, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            layer(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    optimizer = make(layer.parameters())
    steps(layer, optimizer, 3)
    saved_layer = {name: t.clone() for name, t in layer.state_dict().items()}
    saved = {name: t.clone() for name, t in optimizer_tensors(optimizer).items()}
    steps(layer, optimizer, 3)
    other = nn.Linear(3, 2)
    other.load_state_dict(saved_layer)
    resumed = make(other.parameters())
    restore_optimizer(resumed, saved)
    steps(other, resumed, 3)
    assert torch.equal(layer.weight, other.weight) and torch.equal(layer.bias, other.bias)
