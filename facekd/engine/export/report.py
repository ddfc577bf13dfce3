"""What is said about an exported file: figures of its checks, and who will misread it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from facekd.engine.export.form import Form
from facekd.engine.export.int8 import Quantised
from facekd.engine.parity import Parity
from facekd.models.preprocessing import Preprocessing


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how near it is to its model.

    Args:
        file: Path of the ONNX file.
        digest: SHA-256 of the file.
        bytes: Its size.
        opset: ONNX operator set.
        preprocess: ``plain`` (normalised input), ``baked`` (0..255 RGB input) or ``uint8`` (pictures of bytes).
        batch: ``dynamic``, or the one batch size the file takes.
        input: Name of the input.
        output: Name of the output.
        input_shape: Shape of the input; a dynamic batch is written ``batch``.
        output_shape: Shape of the output.
        parity: One entry per runtime and batch size checked.
        notes: What a user of the file should know.
        precision: ``fp32``, ``fp16`` or ``int8``.
        unit: Whether its embeddings have length one.
        float_bytes: Size of the same file in float32.
        prelu_rewritten: How many PReLU were written as onnxruntime runs them faster.
        quantised: What became of an int8 file, else None.
        metadata: What the file says of itself.
        measured: What the model and the file were measured to be on a set, where that was asked for.
    """

    file: str
    digest: str
    bytes: int
    opset: int
    preprocess: str
    batch: str | int
    input: str
    output: str
    input_shape: list[str | int]
    output_shape: list[str | int]
    parity: list[Parity]
    notes: list[str]
    precision: str
    unit: bool
    float_bytes: int
    prelu_rewritten: int
    quantised: Quantised | None
    metadata: dict[str, str]
    measured: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)


def consumer_notes(expects: Preprocessing, form: Form, *, opencv: bool) -> list[str]:
    """What other programs will do wrong with the file, in one line each.

    InsightFace's Python package tells face recognisers by their shape (square, at least 112, a multiple of 16, not 192)
    and normalises a plain file's RGB input by 127.5; OpenCV's ``FaceRecognizerSF`` hands over RGB values 0..255.

    Args:
        expects: The model's own preprocessing.
        form: Of the file, settled.
        opencv: Whether the file was checked in OpenCV.

    Example:
        >>> consumer_notes(Preprocessing.named("half"), Form("baked"), opencv=True)
        []
        >>> consumer_notes(Preprocessing.named("half", size=(96, 96)), Form("baked"), opencv=True)
        ["InsightFace's Python package does not take a 96x96 input for a face recogniser"]
    """
    notes = []
    height, width = expects.size
    if form.preprocess == "uint8":
        notes.append("InsightFace's Python package and OpenCV's FaceRecognizerSF need --preprocess baked")
    elif height != width or height < 112 or height % 16 or height == 192:
        notes.append(f"InsightFace's Python package does not take a {height}x{width} input for a face recogniser")
    if form.preprocess == "plain":
        if expects != Preprocessing.named("half", "rgb", expects.size):
            notes.append("InsightFace's Python package would normalise otherwise: use --preprocess baked for it")
        notes.append("OpenCV's FaceRecognizerSF needs --preprocess baked")
    if not opencv:
        notes.append("not checked in OpenCV")
    return notes
