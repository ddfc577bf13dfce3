"""The float graph of a model: a PyTorch module traced, or an ONNX file read again.

The TorchScript exporter (``dynamo=False``) is used, at opset 17: on torch 2.10 to 2.15 it takes a second where the
default exporter takes ten, never writes a side file, prints nothing, folds each BatchNorm that follows a convolution,
and its graphs run in OpenCV 4.10 and 5.0. Its weakness, Python control flow frozen while tracing, is what the parity
gate looks for. Of the BatchNorm it leaves, `facekd.engine.export.batchnorm` folds those behind a product; the others,
which nothing with weights precedes, stay, and onnxruntime folds what it can of those when it loads.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from facekd.engine.export.fold import INPUT, OUTPUT, fold, state_shapes
from facekd.errors import CheckpointError, ExportError, InputError
from facekd.files import disk_errors
from facekd.models.embedder import Embedder, TorchEmbedder
from facekd.models.onnx_file import METADATA_PREFIX, parse
from facekd.models.onnx_model import OnnxEmbedder
from facekd.models.weights import check_finite, read_bytes

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 17
ONE_FILE_LIMIT = 2**31 - 2**20
"""Bytes of weights one ONNX file can hold; larger models would need a side file."""
MOST_WIDTH = 4096
"""Numbers an embedding has at most; more are the scores of a classifier's classes."""
CARRIED = (
    "backbone",
    "assistant",
    "sizes",
    "projector",
    "subset_teachers",
    "template",
    "teacher_digest",
    "licence_teacher",
    "licence_data",
    "calibration",
)
"""What a student file says of itself that its ONNX file says again, under ``facekd.<key>``."""


def float_graph(embedder: Embedder, batch: str | int) -> ModelProto:
    """The graph of a model: input ``data``, what the model expects; output ``fc1``, the raw embedding.

    Args:
        embedder: The model.
        batch: ``dynamic`` or a number.

    Raises:
        NonFiniteError: The model holds a NaN or an infinity.
        ExportError: It cannot be traced.
        InputError: It is no float embedding network, or does not fit one file.
        CheckpointError: An ONNX file that has changed since it was opened.
    """
    if embedder.embedding_size > MOST_WIDTH:
        what = f"gives {embedder.embedding_size} numbers a face: the scores of a classifier, not an embedding"
        raise InputError(embedder.name, what, "export the backbone without its head")
    if isinstance(embedder, OnnxEmbedder):
        data = read_bytes(embedder.path)
        if hashlib.sha256(data).hexdigest() != embedder.digest:
            raise CheckpointError(str(embedder.path), "has changed since it was opened", "run the command again")
        model = parse(data, str(embedder.path))
    elif isinstance(embedder, TorchEmbedder):
        model = parse(_trace(embedder, batch), embedder.name)
    else:
        raise TypeError(type(embedder).__name__)
    fold(model, embedder.name)
    state_shapes(model, batch, embedder.preprocessing.size, embedder.embedding_size)
    return model


def carried_metadata(embedder: Embedder) -> dict[str, str]:
    """What the exported file says again of what its model says of itself; digests name both files of an ONNX model."""
    told = embedder.metadata
    if isinstance(embedder, OnnxEmbedder):
        own = {key: value for key, value in told.items() if key != "preprocessing_source"}
        return own | {f"{METADATA_PREFIX}source_digest": embedder.digest}
    values = {"student_digest": embedder.digest, **{key: told[key] for key in CARRIED if told.get(key)}}
    return {f"{METADATA_PREFIX}{key}": value for key, value in values.items()}


def _trace(embedder: TorchEmbedder, batch: str | int) -> bytes:
    state = embedder.module.state_dict()
    check_finite(state, embedder.name)
    total = sum(4 * value.numel() for value in state.values())
    if total > ONE_FILE_LIMIT:
        raise InputError(embedder.name, f"{total} bytes of weights do not fit one ONNX file", "choose a smaller model")
    count = 2 if batch == "dynamic" else int(batch)
    example = torch.zeros(count, 3, *embedder.preprocessing.size, device=embedder.device)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        file = Path(folder, "traced.onnx")
        try:
            torch.onnx.export(
                embedder.module,
                (example,),
                file,
                dynamo=False,
                external_data=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}} if batch == "dynamic" else None,
            )
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise ExportError(embedder.name, f"cannot be traced: {reason}", "choose a backbone that exports") from error
        with disk_errors(file):
            return file.read_bytes()
