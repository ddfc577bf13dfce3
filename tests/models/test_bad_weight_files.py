"""Weight files that lie, break or attack, by their number in the list of bad inputs: one line each, nothing run."""

from __future__ import annotations

import argparse
import builtins
import io
import os
import pathlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from facekd.errors import CheckpointError, FacekdError
from facekd.models.backbone import build_backbone
from facekd.models.embedder import load_embedder


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    options = {"channels": "8,16", "blocks": "1,1"}
    module = build_backbone("resnet_tiny", embedding_size=16, input_size=32, options=options)
    with torch.no_grad():
        module(torch.randn(8, 3, 32, 32))
    return module.state_dict()


def packed(tree: object) -> bytes:
    stream = io.BytesIO()
    torch.save(tree, stream)
    return stream.getvalue()


def rezipped(
    data: bytes, change: Callable[[str, bytes], list[tuple[str, bytes]]], how: int = zipfile.ZIP_STORED
) -> bytes:
    """The same archive with each entry put through ``change``."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(stream, "w", how) as target:
        for name in source.namelist():
            for new, content in change(name, source.read(name)):
                target.writestr(new, content)
    return stream.getvalue()


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple:
        return self.function, self.arguments


def shorter(name: str, content: bytes) -> list[tuple[str, bytes]]:
    return [(name, content[: len(content) // 2] if "/data/" in name else content)]


def longer(name: str, content: bytes) -> list[tuple[str, bytes]]:
    return [(name, content + bytes(64) if "/data/" in name else content)]


def climbing(name: str, content: bytes) -> list[tuple[str, bytes]]:
    return [(name, content), *([("archive/../../evil.pkl", b"")] if name.endswith("data.pkl") else [])]


def doubled(name: str, content: bytes) -> list[tuple[str, bytes]]:
    return [(name, content)] * (2 if name.endswith("data.pkl") else 1)


def with_value(key: str, value: object) -> bytes:
    return packed(state() | {key: value})


FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "074-empty": (lambda: b"", "empty file"),
    "075-truncated": (lambda: packed(state())[:-400], "truncated: the end of its zip archive is missing"),
    "077-os.system": (
        lambda: packed({"a": Call(os.system, "touch owned")}),
        f"pickled code: asks for {os.system.__module__}.system; nothing was run",
    ),
    "077-eval": (
        lambda: packed({"a": Call(builtins.eval, "open('owned', 'w')")}),
        r"pickled code: asks for (builtins\.)?eval; nothing was run",
    ),
    "077-nested": (
        lambda: packed({"a": Call(torch.storage._load_from_bytes, packed({"b": Call(os.mkdir, "owned")}))}),
        "pickled code: asks for torch.storage._load_from_bytes; nothing was run",
    ),
    "077-getattr": (
        lambda: packed({"a": Call(getattr, "text", "upper")}),
        r"pickled code: asks for (builtins\.)?getattr; nothing was run",
    ),
    "078-numpy": (lambda: packed({"state_dict": state(), "best": np.float64(0.9)}), r"holds a numpy\.\S+ beside"),
    "078-namespace": (
        lambda: packed({"state_dict": state(), "args": argparse.Namespace(lr=0.1)}),
        "holds a argparse.Namespace beside its tensors, which only pickled code makes; nothing was run "
        r".if you trust it, where it was written: torch.save.torch.load.FILE, weights_only=False.\['state_dict'\]",
    ),
    "078-path": (
        lambda: packed({"state_dict": state(), "p": pathlib.PurePosixPath("a")}),
        r"holds a pathlib\S* beside",
    ),
    "079-module": (lambda: packed(nn.Linear(2, 2)), "a whole nn.Module .torch.nn.modules.linear.Linear"),
    "081-deflated": (
        lambda: rezipped(packed(state()), lambda name, content: [(name, content)], zipfile.ZIP_DEFLATED),
        "its archive is compressed, which torch.save never does",
    ),
    "082-stride-0": (
        lambda: with_value("linear.weight", torch.zeros(1).expand(1_000_000, 1_000_000)),
        "linear.weight stores fewer values than it claims",
    ),
    "082-sparse": (
        lambda: with_value("linear.weight", torch.sparse_coo_tensor(size=(1_000_000, 1_000_000)).coalesce()),
        "linear.weight is no plain tensor .sparse_coo.",
    ),
    "083-storage-too-short": (lambda: rezipped(packed(state()), shorter), "truncated, damaged or no checkpoint"),
    "083-storage-too-long": (lambda: rezipped(packed(state()), longer), "truncated, damaged or no checkpoint"),
    "084-outside": (lambda: rezipped(packed(state()), climbing), "its archive names files outside itself"),
    "084-twice": (lambda: rezipped(packed(state()), doubled), "its archive holds one entry twice"),
    "085-nan": (
        lambda: with_value("bn.running_var", torch.full((16,), float("nan"))),
        "bn.running_var: 16 non-finite values",
    ),
    "086-int64": (
        lambda: with_value("linear.weight", torch.zeros(16, 16, dtype=torch.int64)),
        "linear.weight is torch.int64, not torch.float32",
    ),
    "086-float64": (
        lambda: with_value("linear.weight", torch.zeros(16, 16, dtype=torch.float64)),
        "linear.weight is torch.float64, not torch.float32",
    ),
    "086-complex": (
        lambda: with_value("linear.weight", torch.zeros(16, 16, dtype=torch.complex64)),
        "linear.weight is torch.complex64, not torch.float32",
    ),
    "086-quantized": (
        lambda: with_value("linear.weight", torch.quantize_per_tensor(torch.zeros(16, 16), 0.1, 0, torch.qint8)),
        "linear.weight is no plain tensor .quantized.",
    ),
    "088-misshapen": (
        lambda: with_value("linear.bias", torch.zeros(16)),
        "1 unexpected tensors: linear.bias",
    ),
    "089-partial": (
        lambda: packed({key: value for key, value in state().items() if "conv2" not in key}),
        "10 missing tensors: stages.0.conv2.0.weight, stages.0.conv2.1.weight, stages.0.conv2.1.bias ...",
    ),
    "091-no-axes": (lambda: with_value("linear.weight", torch.tensor(1.0)), "belongs to no backbone known here"),
    "091-no-values": (
        lambda: with_value("bn.running_mean", torch.zeros(0)),
        r"1 misshapen tensors: bn.running_mean is \(0,\), not \(16,\)",
    ),
}


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
