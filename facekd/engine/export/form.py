"""What form an exported file is to have, and what of it a model leaves open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from facekd.errors import UsageError
from facekd.models.embedder import Embedder
from facekd.models.onnx_file import METADATA_PREFIX
from facekd.models.onnx_model import OnnxEmbedder

PREPROCESS = ("plain", "baked", "uint8")
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Form:
    """What an exported file takes, gives and computes with.

    Attributes:
        preprocess: ``plain``: what the backbone expects, normalised, in the model's colour order. ``baked``: RGB values
            0..255 as float; normalisation and colour order are in the graph. ``uint8``: pictures (batch, height, width,
            3) of bytes in the order blue, green, red, as OpenCV gives them. None: ``plain``, or what an ONNX file is.
        batch: ``dynamic``, or a fixed size of at least 1. None: ``dynamic``, or what an ONNX file takes.
        precision: ``fp32``; ``fp16``: weights and arithmetic of 16 bits, float32 in and out; ``int8``: 8-bit integers
            where they do no harm.
        unit: Give embeddings of length one; an ONNX file that does so keeps it.
        keep_prelu: Leave each PReLU in the graph, in place of the form onnxruntime runs faster on a CPU.
    """

    preprocess: str | None = None
    batch: str | int | None = None
    precision: str = "fp32"
    unit: bool = False
    keep_prelu: bool = False


def settled(form: Form, embedder: Embedder) -> Form:
    """The form with nothing left open.

    Raises:
        UsageError: An unknown option, or one the model cannot take.
    """
    if form.precision not in PRECISIONS:
        raise UsageError("precision", f"{form.precision} is unknown", " or ".join(PRECISIONS))
    if form.preprocess not in (None, *PREPROCESS):
        raise UsageError("preprocess", f"{form.preprocess} is unknown", ", ".join(PREPROCESS))
    if form.batch not in (None, "dynamic") and (isinstance(form.batch, str) or int(form.batch or 0) < 1):
        raise UsageError("batch", f"{form.batch} is no batch size", "dynamic, or a whole number from 1")
    own, batch, unit = taken_by(embedder), form.batch, form.unit or is_unit(embedder)
    if isinstance(embedder, OnnxEmbedder):
        if embedder.bytes:
            raise UsageError(embedder.name, "takes bytes, not float", "give the file it was made from")
        if form.preprocess == "plain" and own != "plain":
            raise UsageError(embedder.name, "normalises its input itself", "leave out --preprocess plain")
        fixed = embedder.batch
        if fixed is not None and batch not in (None, fixed):
            raise UsageError(embedder.name, f"takes {fixed} images at once and no other number", "leave out --batch")
        batch = batch or fixed
    return replace(form, preprocess=form.preprocess or own, batch=batch or "dynamic", unit=unit)


def taken_by(embedder: Embedder) -> str:
    """What a model's own graph takes: ``plain``, or ``baked`` where it is an ONNX file that normalises itself."""
    if not isinstance(embedder, OnnxEmbedder):
        return "plain"
    return embedder.metadata.get(f"{METADATA_PREFIX}preprocess", "plain")


def is_unit(embedder: Embedder) -> bool:
    """Whether a model is a file that says its embeddings have length one."""
    return embedder.metadata.get(f"{METADATA_PREFIX}unit") == "true"


def keeps_embeddings(form: Form, embedder: Embedder) -> bool:
    """Whether a file gives what its model gives, so that thresholds found for the model hold for the file as well."""
    return form.precision != "int8" and (not form.unit or is_unit(embedder))


def check_output(out: Path, *, force: bool) -> None:
    """Refuse a path that cannot or must not be written, before any work is done.

    Raises:
        UsageError: Not an ``.onnx`` name, no such folder, a folder itself, or a file already there without ``force``.

    Example:
        >>> check_output(Path("student.pt"), force=False)
        Traceback (most recent call last):
        facekd.errors.UsageError: student.pt: does not end in .onnx (give -o FILE.onnx)
    """
    if out.suffix != ".onnx":
        raise UsageError(str(out), "does not end in .onnx", "give -o FILE.onnx")
    if not out.parent.is_dir():
        raise UsageError(str(out), "its folder does not exist", f"make {out.parent} first")
    if out.is_dir():
        raise UsageError(str(out), "is a folder", "name a file in it")
    if out.exists() and not force:
        raise UsageError(str(out), "exists already", "choose another name, or replace it with --force")
