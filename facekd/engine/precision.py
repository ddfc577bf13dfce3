"""What it does to embeddings that a model computes in fewer bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from facekd.engine.embed import embed_images
from facekd.metrics.verification import unit
from facekd.models.embedder import Embedder, in_precision, precision_of

SAMPLE = 64
"""Images looked at."""


def precision_told(embedder: Embedder, read: Callable[[int], np.ndarray], count: int) -> dict[str, Any]:
    """The precision a model computes in, for the JSON; where it is not fp32, with the lowest cosine of an image's
    embedding to its embedding in fp32, over images evenly spread in the set.

    Args:
        embedder: The model.
        read: Gives image i as uint8 RGB (height, width, 3).
        count: Images in all.

    Raises:
        DataError: From ``read``.
    """
    precision = precision_of(embedder)
    if precision == "fp32":
        return {"precision": precision}
    chosen = np.unique(np.linspace(0, count - 1, min(SAMPLE, count)).astype(int)).tolist()
    one, other = (
        unit(embed_images(model, lambda place: read(chosen[place]), len(chosen), flip=False))
        for model in (embedder, in_precision(embedder, "fp32"))
    )
    lowest = float((one * other).sum(dim=1).min())
    return {"precision": precision, "lowest_cosine_to_fp32": lowest}


def precision_line(name: str, told: dict[str, Any]) -> str | None:
    """What a reader should know of it, in a line; None of fp32.

    Args:
        name: Of the model.
        told: From :func:`precision_told`.

    Example:
        >>> precision_line("net", {"precision": "bf16", "lowest_cosine_to_fp32": 0.99951})
        'net in bf16: cosines to its fp32 embeddings from 0.99951 up'
    """
    lowest = told.get("lowest_cosine_to_fp32")
    if lowest is None:
        return None
    return f"{name} in {told['precision']}: cosines to its fp32 embeddings from {lowest:.5f} up"
