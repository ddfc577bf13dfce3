"""Weight files that lie, break or attack, by their number in the list of bad inputs, and what is said of each."""

from __future__ import annotations

import argparse
import builtins
import io
import os
import pathlib
import zipfile
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from facekd.models.backbone import build_backbone


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
