"""Weights that are not as they were written: a seal finds it in facekd's own files, the archive's checksums in .pt."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bad_weights import packed, rezipped, state
from random_model import tiny_model_bytes

from facekd.errors import CheckpointError
from facekd.models import safetensors_file, torch_file
from facekd.models.embedder import load_embedder
from facekd.models.heads import VarianceHead
from facekd.models.safetensors_file import SEAL
from facekd.models.uncertainty_file import load_head, save_head
from facekd.models.weights import load_classifier, read_state, save_classifier

SEALED = "is not as it was written: its SHA-256 differs from the one it carries"


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def student(tmp_path: Path) -> Path:
    path = tmp_path / "student.safetensors"
    path.write_bytes(tiny_model_bytes())
    return path


def test_1000_flipped_bits_of_a_students_file_are_all_refused(student: Path) -> None:
    whole, draw = student.read_bytes(), random.Random(0)
    key = whole.index(SEAL.encode())
    header = 8 * (8 + int.from_bytes(whole[:8], "little"))
    bits = [draw.randrange(8 * len(whole)) for _ in range(600)] + [draw.randrange(header) for _ in range(400)]
    for bit in bits:
        if key <= bit // 8 < key + len(SEAL):
            continue
        student.write_bytes(flipped(whole, bit))
        with pytest.raises(CheckpointError) as caught:
            read_state(student)
        (line,) = caught.value.lines
        assert line.startswith(str(student))


def test_a_bit_of_a_weight_is_told_as_what_it_is(student: Path) -> None:
    student.write_bytes(flipped(student.read_bytes(), 8 * (student.stat().st_size - 3)))
    with pytest.raises(CheckpointError, match=rf"{SEALED} .copy or download it again; .* drop facekd.seal"):
        load_embedder(student)


def test_negative_control__without_a_seal_the_same_bit_loads(student: Path) -> None:
    tensors, metadata = read_state(student)
    safetensors_file.write(student, tensors, metadata)
    whole = student.read_bytes()
    student.write_bytes(flipped(whole, 8 * (len(whole) - 3)))
    assert not same(read_state(student)[0], tensors)


def test_a_bit_of_the_seals_name_leaves_a_whole_model_without_one(student: Path) -> None:
    whole = student.read_bytes()
    tensors, metadata = read_state(student)
    key = whole.index(SEAL.encode())
    student.write_bytes(flipped(whole, 8 * (key + 3)))
    found, told = read_state(student)
    assert same(found, tensors) and metadata.items() <= told.items()


def test_a_file_of_before_the_seal_opens_alike(student: Path, tmp_path: Path) -> None:
    tensors, metadata = read_state(student)
    assert SEAL not in metadata and SEAL.encode() in student.read_bytes()
    old = tmp_path / "old.safetensors"
    safetensors_file.write(old, tensors, metadata)
    assert SEAL.encode() not in old.read_bytes()
    one, other = load_embedder(student), load_embedder(old)
    assert same(one.module.state_dict(), other.module.state_dict())
    assert one.metadata == other.metadata


def test_metadata_carried_to_other_weights_is_refused(student: Path, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(student, "pt") as stream:
        held = {key: stream.get_tensor(key) for key in stream.keys()} | {"linear.weight": torch.zeros(8, 8)}  # noqa: SIM118
        save_file(held, tmp_path / "a.safetensors", stream.metadata())
    with pytest.raises(CheckpointError, match=SEALED):
        read_state(tmp_path / "a.safetensors")


@pytest.mark.parametrize("seal", ["", "0" * 64, "0" * 3, "\\u0000"])
def test_a_seal_that_is_none_is_refused(seal: str) -> None:
    data = safetensors_file.encode({"a": torch.ones(2)}, {SEAL: seal})
    with pytest.raises(CheckpointError, match=SEALED):
        safetensors_file.decode(data, "a.safetensors")


def classifier(path: Path) -> Callable[[], object]:
    save_classifier(path, torch.eye(3), ["a", "b", "c"], "trained")
    return lambda: load_classifier(path)


def head(path: Path) -> Callable[[], object]:
    save_head(path, VarianceHead(8, 1), student_digest="abc", loss="none")
    return lambda: load_head(path, "abc")


@pytest.mark.parametrize("make", [classifier, head])
def test_classifiers_and_heads_are_sealed_too(make: Callable, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    load = make(path)
    load()
    whole = path.read_bytes()
    for byte in range(8 + int.from_bytes(whole[:8], "little"), len(whole), 7):
        path.write_bytes(flipped(whole, 8 * byte))
        with pytest.raises(CheckpointError, match=SEALED):
            load()


def test_flipped_bits_of_a_pt_file_are_refused_or_change_nothing() -> None:
    wanted = state()
    whole, draw = packed(wanted), random.Random(1)
    records = bytearray(len(whole))
    for entry in zipfile.ZipFile(io.BytesIO(whole)).infolist():
        name, extra = (int.from_bytes(whole[entry.header_offset + at :][:2], "little") for at in (26, 28))
        start = entry.header_offset + 30 + name + extra
        records[start : start + entry.file_size] = b"\1" * entry.file_size
    refused = 0
    for bit in (draw.randrange(8 * len(whole)) for _ in range(500)):
        try:
            found = torch_file.decode(flipped(whole, bit), "a.pt")
        except CheckpointError as error:
            refused += 1
            assert error.lines[0].startswith("a.pt: ")
        else:
            assert not records[bit // 8] and same(found, wanted)
    assert refused > 200


def test_a_flipped_weight_of_a_pt_file_is_told_by_its_record() -> None:
    data = packed({"a": torch.arange(64.0)})
    at = data.index(torch.arange(64.0).numpy().tobytes())
    with pytest.raises(CheckpointError, match="a.pt: damaged: archive/data/0 is not as its archive says"):
        torch_file.decode(flipped(data, 8 * at + 100), "a.pt")


def test_a_pt_file_saved_without_checksums_is_taken() -> None:
    torch.serialization.set_crc32_options(False)
    try:
        data = packed(state())
    finally:
        torch.serialization.set_crc32_options(True)
    assert zipfile.ZipFile(io.BytesIO(data)).testzip() is not None
    assert same(torch_file.decode(data, "a.pt"), state())
    again = rezipped(packed(state()), lambda name, content: [(name, content)])
    assert same(torch_file.decode(again, "a.pt"), state())
