"""Models that are named and not lying about: files of the Hugging Face hub, and timm's pretrained weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

from facekd.errors import InputError
from facekd.model_names import HUB_PREFIX, TIMM_PREFIX
from facekd.models import safetensors_file
from facekd.models.backbone import pretrained_timm
from facekd.models.opening import FROM_FILE, Opened
from facekd.models.preprocessing import Preprocessing, settle


def hub_file(name: str) -> Path:
    """The file ``hf:owner/name/file`` stands for, from the local cache or the hub.

    Raises:
        InputError: Another form, no such file, or neither cached nor within reach.
    """
    parts = name.removeprefix(HUB_PREFIX).split("/", 2)
    if len(parts) < 3 or not all(parts) or ".." in parts[2].split("/"):
        raise InputError(name, "names no file on the hub", f"write {HUB_PREFIX}owner/name/file")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo_id=f"{parts[0]}/{parts[1]}", filename=parts[2]))
    except (OSError, ValueError, RuntimeError) as error:
        short = " ".join(str(error).split())[:160]
        fix = "check the name, download it where there is a network, or give a file"
        raise InputError(name, f"neither in the local cache nor within reach: {short}", fix) from None


def open_timm(name: str, color: str | None, normalize: str | None) -> tuple[Opened, str]:
    """A model of timm with its pretrained weights; the embedding is what it gives without its classifier.

    Its own configuration says size, mean and spread, and is as binding as a file's metadata.

    Args:
        name: ``timm/<name>``.
        color: Must be ``rgb`` where given.
        normalize: Must be what the configuration says, where given.

    Returns:
        The model, and the SHA-256 of its tensors in hex.

    Raises:
        InputError: timm knows no such model, has no weights for it or cannot get them, or the options contradict it.
    """
    module, said = pretrained_timm(name.removeprefix(TIMM_PREFIX))
    mean = tuple(round(255 * value, 6) for value in said.mean)
    std = tuple(round(255 * value, 6) for value in said.std)
    stored = Preprocessing("rgb", mean, std, said.size)  # type: ignore[arg-type]
    preprocessing = settle(stored, color, normalize, size=said.size, where=name)
    state = module.state_dict()
    digest = hashlib.sha256(safetensors_file.encode(state, {})).hexdigest()
    metadata = {
        "backbone": name,
        "embedding_size": str(said.embedding_size),
        "licence": said.licence,
        "dialect": "timm",
        "preprocessing_source": FROM_FILE,
    }
    return Opened(module.eval().requires_grad_(False), said.embedding_size, preprocessing, metadata), digest
