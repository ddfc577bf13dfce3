"""Names of models that are no paths: files on the Hugging Face hub, and models of timm."""

from __future__ import annotations

from pathlib import Path

HUB_PREFIX = "hf:"
TIMM_PREFIX = "timm/"


def is_model_name(model: Path | str) -> bool:
    """Whether a model is given as ``hf:owner/name/file`` or ``timm/<name>`` and not as a path that is there.

    Example:
        >>> is_model_name("hf:owner/name/model.pt"), is_model_name("timm/resnet18"), is_model_name("runs/r50.pt")
        (True, True, False)
    """
    return str(model).startswith((HUB_PREFIX, TIMM_PREFIX)) and not Path(model).exists()
