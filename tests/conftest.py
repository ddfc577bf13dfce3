"""Fixtures every test may ask for."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

EXPECTED = (
    "formats/small_lfw.bin",
    "lfw_pairs.txt",
    "lfw_pairs_test.txt",
    "lfw_test.csv",
    "lfw_train.csv",
    "models/edgeface_xs_raw_rgb.onnx",
    "models/foamliu/mobilefacenet.pt",
    "models/yunet.onnx",
)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Every test begins at the same random state, whatever ran before it and in whichever process."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real faces and models beside the checkout; tests that ask for it skip where there is none.

    In CI a folder that is there but broken fails, so a figure cannot pass by being absent.
    """
    if not SHARED_DATA.exists():
        pytest.skip("no shared data beside this checkout")
    missing = [name for name in EXPECTED if not (SHARED_DATA / name).is_file()]
    if missing:
        problem = f"shared data is incomplete: {', '.join(missing)} missing"
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    return SHARED_DATA
