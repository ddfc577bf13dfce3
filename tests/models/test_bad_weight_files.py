"""Weight files that lie, break or attack: one line each, nothing run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bad_weights import FILES, packed, rezipped, state, with_value

from facekd.errors import CheckpointError, FacekdError
from facekd.models.embedder import load_embedder


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("item", FILES)
def test_item(item: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, message = FILES[item]
    (tmp_path / "a.pt").write_bytes(make())
    with pytest.raises(FacekdError, match=message) as caught:
        load_embedder(tmp_path / "a.pt", color="rgb", normalize="half")
    (line,) = caught.value.lines
    assert line.startswith(str(tmp_path / "a.pt")) and "\n" not in line
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pt"]


def test_the_file_behind_them_all_opens(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(packed(state()))
    assert load_embedder(tmp_path / "a.pt", color="rgb", normalize="half").embedding_size == 16
    (tmp_path / "b.pt").write_bytes(rezipped(packed(state()), lambda name, content: [(name, content)]))
    assert load_embedder(tmp_path / "b.pt", color="rgb", normalize="half").embedding_size == 16


def test_item_086_bfloat16_is_widened(tmp_path: Path) -> None:
    half = state()["linear.weight"].bfloat16()
    (tmp_path / "a.pt").write_bytes(with_value("linear.weight", half))
    embedder = load_embedder(tmp_path / "a.pt", color="rgb", normalize="half")
    assert torch.equal(embedder.module.linear.weight, half.float())


def test_item_100_a_symlink_is_its_file_and_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(packed(state()))
    (tmp_path / "link.pt").symlink_to(tmp_path / "a.pt")
    one, other = (load_embedder(tmp_path / name, color="rgb", normalize="half") for name in ("a.pt", "link.pt"))
    assert one.digest == other.digest
    (tmp_path / "dcp.pt").mkdir()
    with pytest.raises(CheckpointError, match="dcp.pt: a folder without student.safetensors"):
        load_embedder(tmp_path / "dcp.pt")


def test_item_101_the_digest_is_of_the_bytes_that_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    from facekd.models import weights

    first = packed(state())
    path = tmp_path / "a.pt"
    path.write_bytes(first)
    read = weights.read_bytes

    def then_replace(file: Path) -> bytes:
        data = read(file)
        path.write_bytes(b"another file")
        return data

    monkeypatch.setattr(weights, "read_bytes", then_replace)
    embedder = load_embedder(path, color="rgb", normalize="half")
    assert embedder.digest == hashlib.sha256(first).hexdigest()
