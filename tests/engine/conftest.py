"""A run small enough to be trained many times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from facekd.data.images import encode_png
from facekd.recipe import Recipe, load_recipe

IDENTITIES, SAMPLES, SIDE = 6, 4, 32


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An identity folder: each identity a colour pattern, each sample a noisy copy."""
    root = tmp_path_factory.mktemp("faces")
    draw = np.random.default_rng(0)
    for identity in range(IDENTITIES):
        (root / f"person{identity}").mkdir()
        pattern = draw.integers(0, 256, (4, 4, 3)).repeat(SIDE // 4, 0).repeat(SIDE // 4, 1)
        for sample in range(SAMPLES):
            image = np.clip(pattern + draw.normal(0, 20, pattern.shape), 0, 255).astype(np.uint8)
            (root / f"person{identity}" / f"{sample}.png").write_bytes(encode_png(image))
    return root


MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def make_recipe(faces: Path, tmp_path: Path) -> MakeRecipe:
    """A recipe of 3 epochs of 4 steps on :func:`faces`; keyword sections replace or extend its own."""

    def make(overrides: tuple[str, ...] = (), **sections: object) -> Recipe:
        recipe = {
            "name": "tiny",
            "student": {
                "backbone": "resnet_tiny",
                "embedding_size": 8,
                "input_size": SIDE,
                "options": {"channels": "4,8", "blocks": "1,1"},
            },
            "data": {
                "source": "folder",
                "path": str(faces),
                "augment": {"flip": 0.5, "shift": 0.1, "color": 0.2, "erase": 0.2},
            },
            "losses": [{"name": "margin_softmax", "scale": 8.0, "margin": 0.2}],
            "optimizer": {"name": "sgd", "learning_rate": 0.05},
            "schedule": {"name": "cosine", "warmup_epochs": 1.0},
            "train": {"epochs": 3, "batch_size": 6, "log_every": 1, "checkpoint_every": 0.5},
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe | sections))
        return load_recipe(path, overrides)

    return make
