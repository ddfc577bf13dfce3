"""Files of tensors: the library's own bytes, written a piece at a time."""

from __future__ import annotations

import errno
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from facekd.errors import DeviceError
from facekd.models.safetensors_file import Blocks, decode, encode, write, write_sealed

TENSORS = {
    "z.rows": torch.randn(7, 3),
    "a.half": torch.randn(5, 1).bfloat16(),
    "count": torch.tensor(7),
    "step": torch.tensor(3.0),
    "none": torch.zeros(0, 4),
    "mask": torch.tensor([True, False, True]),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "b.wide": torch.randn(2, 2, 2, dtype=torch.float64),
    "turned": torch.randn(4, 3).T,
    "half": torch.randn(3).half(),
    "small": torch.arange(3, dtype=torch.int32),
}


def in_pieces(held: Tensor, rows: int = 2) -> Blocks:
    return Blocks(tuple(held.shape), held.dtype, lambda: iter(held.split(rows)))


def test_bytes_are_those_of_the_library() -> None:
    plain = {name: tensor.contiguous() for name, tensor in TENSORS.items()}
    assert encode(TENSORS, {"made": "by"}) == save(plain, {"made": "by"})


def test_a_tensor_in_pieces_is_written_as_the_whole_one(tmp_path: Path) -> None:
    pieces = {name: in_pieces(tensor) if tensor.dim() else tensor for name, tensor in TENSORS.items()}
    assert encode(pieces, {"made": "by"}) == encode(TENSORS, {"made": "by"})
    for wrote in (write, write_sealed):
        assert wrote(tmp_path / "whole", TENSORS, {"made": "by"}) == wrote(tmp_path / "parts", pieces, {"made": "by"})
        assert (tmp_path / "whole").read_bytes() == (tmp_path / "parts").read_bytes()
        found, metadata = decode((tmp_path / "parts").read_bytes(), "parts")
        assert metadata == {"made": "by"}
        assert found.keys() == TENSORS.keys() and all(torch.equal(found[name], TENSORS[name]) for name in found)


def test_no_piece_is_held_once_the_next_is_asked_for(tmp_path: Path) -> None:
    made: list[weakref.ref[Tensor]] = []

    def piece(number: int) -> Tensor:
        assert sum(one() is not None for one in made) <= 1
        tensor = torch.full((2, 3), float(number))
        made.append(weakref.ref(tensor))
        return tensor

    write(tmp_path / "file", {"rows": Blocks((20, 3), torch.float32, lambda: map(piece, range(10)))}, {})
    assert load_file(tmp_path / "file")["rows"][:, 0].tolist() == [number // 2 for number in range(20)]
    assert len(made) == 10


def test_pieces_that_end_in_an_error_leave_the_file_that_was_there(tmp_path: Path) -> None:
    def failing() -> Iterator[Tensor]:
        yield torch.zeros(1, 3)
        raise OSError(errno.ENOSPC, "No space left on device")

    write(tmp_path / "file", {"old": torch.ones(1)}, {})
    with pytest.raises(DeviceError, match="No space left on device"):
        write(tmp_path / "file", {"rows": Blocks((2, 3), torch.float32, failing)}, {})
    assert list(load_file(tmp_path / "file")) == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
