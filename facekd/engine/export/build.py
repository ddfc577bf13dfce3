"""A float graph in the form asked for: precision, input, unit length, and what the file says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

import facekd
from facekd.engine.export.checks import held_out
from facekd.engine.export.form import Form, keeps_embeddings, taken_by
from facekd.engine.export.graph import (
    add_unit_length,
    bake_preprocessing,
    drop_unit_length,
    hide_from_insightface,
    set_metadata,
    take_pictures,
)
from facekd.engine.export.half import to_half
from facekd.engine.export.int8 import Quantised, to_int8
from facekd.engine.export.prelu import rewrite_prelu
from facekd.engine.export.source import carried_metadata, float_graph
from facekd.engine.resumable import Watched
from facekd.models.embedder import Embedder
from facekd.models.onnx_file import METADATA_PREFIX
from facekd.models.onnx_seal import BLANK, PRODUCER, SEAL
from facekd.models.preprocessing import Preprocessing

if TYPE_CHECKING:
    from onnx import ModelProto

UNWATCHED = Watched()
CALIBRATION = f"{METADATA_PREFIX}calibration"


@dataclass(frozen=True)
class Built:
    """A graph in the form asked for, not yet checked.

    Attributes:
        model: The graph.
        float_bytes: The size it has in float32.
        rewritten: How many PReLU were written in other words.
        quantised: What became of it in int8, else None.
        uncalibrated: Whether the model's thresholds are left out, for they do not hold for these embeddings.
    """

    model: ModelProto
    float_bytes: int
    rewritten: int
    quantised: Quantised | None
    uncalibrated: bool


def build_model(
    embedder: Embedder,
    form: Form,
    faces: np.ndarray | None = None,
    watched: Watched = UNWATCHED,
    *,
    opencv: bool = True,
) -> Built:
    """The ONNX graph of a model in a form, with names, shapes and metadata; not yet checked.

    Args:
        embedder: The model.
        form: With nothing left open.
        faces: What int8 takes its ranges from; the last few are left for the checks.
        watched: Told of the work, and may stop it.
        opencv: Leave in float what OpenCV's integers spoil, too.

    Raises:
        NonFiniteError: The model holds a NaN or an infinity.
        ExportError: The model holds an operation that cannot be exported or converted.
    """
    import onnx

    model = float_graph(embedder, form.batch or "dynamic")
    if watched.progress is not None:
        watched.progress("trace", 1, 1)
    if form.unit:
        drop_unit_length(model)
    rewritten = 0 if form.keep_prelu else rewrite_prelu(model)
    size, quantised = model.ByteSize(), None
    if form.precision == "fp16":
        model = to_half(model, embedder.name)
    elif form.precision == "int8" and faces is not None:
        pixels = _taken(embedder, faces[: -held_out(form)])
        model, quantised = to_int8(
            model, pixels, embedder.name, opencv=opencv, poll=watched.poll, progress=watched.progress
        )
    preprocessing = _with_input(model, embedder, form)
    if form.unit:
        add_unit_length(model)
    said = _metadata(embedder, form, preprocessing)
    set_metadata(model, said | {SEAL: BLANK})
    model.producer_name, model.producer_version = PRODUCER, facekd.__version__
    onnx.checker.check_model(model)
    return Built(model, size, rewritten, quantised, CALIBRATION in carried_metadata(embedder).keys() - said.keys())


def _taken(embedder: Embedder, faces: np.ndarray) -> np.ndarray:
    pixels: np.ndarray = embedder.preprocessing.apply(torch.from_numpy(faces)).numpy()
    return pixels


def _with_input(model: ModelProto, embedder: Embedder, form: Form) -> Preprocessing:
    """Put the preprocessing asked for in front of the graph; what images must go through for the file that results."""
    preprocessing = embedder.preprocessing
    if form.preprocess == "plain":
        hide_from_insightface(model)
        return preprocessing
    if taken_by(embedder) == "plain":
        turned = preprocessing.color == "bgr"
        step = -1 if turned else 1
        mean, std = preprocessing.mean[::step], preprocessing.std[::step]
        bake_preprocessing(model, mean=mean, std=std, reverse_channels=turned)
    if form.preprocess == "uint8":
        take_pictures(model)
    color = "bgr" if form.preprocess == "uint8" else "rgb"
    return Preprocessing.named("none", color, preprocessing.size)


def _metadata(embedder: Embedder, form: Form, expects: Preprocessing) -> dict[str, str]:
    """Everything the file says of itself; thresholds of the float model do not hold for other embeddings."""
    carried = carried_metadata(embedder)
    if not keeps_embeddings(form, embedder):
        carried.pop(CALIBRATION, None)
    own = {
        "version": facekd.__version__,
        "preprocess": str(form.preprocess),
        **expects.to_metadata(),
        "embedding_size": str(embedder.embedding_size),
        "precision": form.precision,
        **({"unit": "true"} if form.unit else {}),
    }
    return carried | {f"facekd.{key}": value for key, value in own.items()}
