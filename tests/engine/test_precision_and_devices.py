"""The same run in bf16, compiled, and on an accelerator: close to float32 on the CPU, and where it must be, equal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from facekd.engine.training.trainer import train

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


def losses(run: Path) -> list[float]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "terms" in record]


def first_step(one: Path, other: Path) -> float:
    """Relative difference between the first losses of two runs: later ones grow apart as any rounding does."""
    return abs(losses(one)[0] - losses(other)[0]) / losses(other)[0]


def student(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "student.safetensors")


@pytest.fixture
def plain(make_recipe, tmp_path: Path) -> Path:
    train(make_recipe(), tmp_path / "plain", device="cpu")
    return tmp_path / "plain"


def test_bf16__keeps_float32_weights_and_stays_near_float32_without_being_it(
    make_recipe, plain: Path, tmp_path: Path
) -> None:
    train(make_recipe(("train.precision=bf16",)), tmp_path / "bf16", device="cpu")
    assert losses(tmp_path / "bf16") != losses(plain)
    assert first_step(tmp_path / "bf16", plain) < 0.02
    assert losses(tmp_path / "bf16")[-1] < losses(tmp_path / "bf16")[0]
    assert {tensor.dtype for tensor in student(tmp_path / "bf16").values()} == {torch.float32, torch.int64}


def test_auto_precision__is_float32_on_a_cpu(make_recipe, plain: Path, tmp_path: Path) -> None:
    train(make_recipe(("train.precision=fp32",)), tmp_path / "fp32", device="cpu")
    assert losses(tmp_path / "fp32") == losses(plain)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled__takes_the_same_steps_and_saves_the_plain_backbone(make_recipe, plain: Path, tmp_path: Path) -> None:
    train(make_recipe(("train.compile=true",)), tmp_path / "compiled", device="cpu")
    assert first_step(tmp_path / "compiled", plain) < 1e-5
    assert losses(tmp_path / "compiled")[-1] < losses(tmp_path / "compiled")[0]
    assert student(tmp_path / "compiled").keys() == student(plain).keys()


@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=gpu), pytest.param("bf16", marks=gpu)])
def test_cuda__follows_the_cpu(make_recipe, plain: Path, tmp_path: Path, precision: str) -> None:
    train(make_recipe((f"train.precision={precision}",)), tmp_path / "cuda", device="cuda")
    assert first_step(tmp_path / "cuda", plain) < (1e-3 if precision == "fp32" else 0.02)
    assert losses(tmp_path / "cuda")[-1] < losses(tmp_path / "cuda")[0]
