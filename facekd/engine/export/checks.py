"""The parity gate: an exported file in each runtime against the model it was made from, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from facekd.data.images import resize, to_chw
from facekd.data.opencv_net import forward_onnx
from facekd.data.synthetic import render_face
from facekd.engine.export.form import Form
from facekd.engine.parity import LIMITS, Parity, compare
from facekd.errors import ExportError, InputError
from facekd.models.embedder import Embedder
from facekd.models.onnx_model import OnnxEmbedder

DYNAMIC_BATCHES = (1, 2, 5)
"""Batch sizes a file with a dynamic batch is checked at."""
MOST_DRAWN = 16
"""Drawing one takes some hundredths of a second."""


def checked_batches(form: Form) -> tuple[int, ...]:
    """Sizes of the batches a file is checked at."""
    return DYNAMIC_BATCHES if form.batch in (None, "dynamic") else (int(form.batch or 1),)


def held_out(form: Form) -> int:
    """How many of the faces given, the last ones, the checks take; int8 takes its ranges from the others.

    Example:
        >>> held_out(Form()), held_out(Form(batch=64))
        (8, 64)
    """
    return sum(checked_batches(form))


def probes(embedder: Embedder, form: Form, faces: np.ndarray | None) -> list[Tensor]:
    """Batches of uint8 RGB images to check with: the last of the faces given, or drawn ones where those are too few."""
    batches, count, size = checked_batches(form), held_out(form), embedder.preprocessing.size
    given = faces is not None and len(faces) >= count
    images = faces[-count:] if faces is not None and given else drawn_faces(count, size)
    return list(torch.from_numpy(images).split(list(batches)))


@cache
def drawn_faces(count: int, size: tuple[int, int]) -> np.ndarray:
    """Drawn faces of so many people, uint8 RGB (count, 3, height, width); beyond `MOST_DRAWN` they come again.

    Example:
        >>> drawn_faces(2, (64, 64)).shape
        (2, 3, 64, 64)
    """
    faces = [to_chw(resize(render_face(0, person, 0).image, size)) for person in range(min(count, MOST_DRAWN))]
    return np.stack(faces)[np.arange(count) % len(faces)]


def check_batch(
    embedder: Embedder, exported: OnnxEmbedder, images: Tensor, precision: str, *, opencv: bool, unread: list[str]
) -> Iterator[Parity]:
    """One batch in onnxruntime and OpenCV.

    Args:
        embedder: The model.
        exported: The file made of it.
        images: uint8 RGB (batch, 3, height, width).
        precision: Of the file; it sets the limits.
        opencv: Check with OpenCV too.
        unread: Takes a note where OpenCV cannot run a file of another precision or input than float32; OpenCV is not
            asked again then.

    Raises:
        ExportError: A runtime gives other embeddings.
        InputError: OpenCV cannot run a float32 file.
    """
    expected = embedder.embed(images).cpu().numpy()
    if exported.metadata.get("facekd.unit") == "true":
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    yield _kept(compare("onnxruntime", expected, exported.embed(images).numpy()), precision)
    if not opencv or unread:
        return
    try:
        found = forward_onnx(exported.path, exported.prepare(images))
    except InputError as error:
        if precision == "fp32" and not exported.bytes:
            raise
        unread.append(error.what)
        return
    yield _kept(compare("opencv", expected, found), precision)


def _kept(check: Parity, precision: str) -> Parity:
    """The check itself, where it keeps the limits."""
    limits = LIMITS[precision]
    if check.within(limits):
        return check
    figures = f"relative difference {check.max_relative:.3g} (at most {limits.max_relative:g} allowed)"
    cosine = f"1 - cosine {1 - check.min_cosine:.3g} (at most {1 - limits.min_cosine:.3g})"
    fix = "another backbone or a fixed --batch" if precision == "fp32" else "another --precision, or other faces"
    raise ExportError(
        check.runtime,
        f"{check.runtime} at batch {check.batch} does not give the model's embeddings: {figures}, {cosine}",
        f"nothing was written; choose {fix}",
    )


def check_mean(parity: Sequence[Parity], precision: str) -> None:
    """Refuse a file whose embeddings are within the limits face by face, but on the whole too far from the model's.

    Args:
        parity: Of every batch and runtime.
        precision: Of the file; it sets the limit.

    Raises:
        ExportError: The mean cosine in a runtime is too small.
    """
    least = LIMITS[precision].mean_cosine
    for runtime in dict.fromkeys(check.runtime for check in parity):
        own = [check for check in parity if check.runtime == runtime]
        count = sum(check.batch for check in own)
        mean = sum(check.batch * check.mean_cosine for check in own) / count
        if not mean >= least:
            what = f"the mean cosine to the model's embeddings is {mean:.4f} on {count} faces, not {least:g} or more"
            other = ", or leave OpenCV out with --no-opencv" if runtime == "opencv" else ""
            fix = f"nothing was written; calibrate on more faces like yours, or use fp16{other}"
            raise ExportError(runtime, f"{runtime}: {what}", fix)
