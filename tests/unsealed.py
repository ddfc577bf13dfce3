"""An exported file that a tool has changed on purpose."""

from __future__ import annotations

from pathlib import Path

import onnx

from facekd.models.onnx_seal import SEAL


def save_unsealed(model: onnx.ModelProto, path: Path) -> None:
    """Write a model without the seal and the producer's name that its export gave it."""
    kept = [entry for entry in model.metadata_props if entry.key != SEAL]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.producer_name = "a tool"
    onnx.save(model, path)
