"""What is said about an exported file: figures of its checks, and who will misread it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

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
        preprocess: ``plain`` (normalised input) or ``baked`` (0..255 RGB input).
        batch: ``dynamic``, or the one batch size the file takes.
        input: Name of the input.
        output: Name of the output.
        input_shape: Shape of the input; a dynamic batch is written ``batch``.
        output_shape: Shape of the output.
        parity: One entry per runtime and batch size checked.
        notes: What a user of the file should know.
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

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)


def consumer_notes(expects: Preprocessing, preprocess: str, *, opencv: bool) -> list[str]:
    """What other programs will do wrong with the file, in one line each.

    InsightFace's Python package tells face recognisers by their shape (square, at least 112, a multiple of 16, not 192)
    and normalises a plain file's RGB input by 127.5; OpenCV's ``FaceRecognizerSF`` hands over RGB values 0..255.

    Args:
        expects: The model's own preprocessing.
        preprocess: ``plain`` or ``baked``.
        opencv: Whether the file was checked in OpenCV.

    Example:
        >>> consumer_notes(Preprocessing.named("half"), "baked", opencv=True)
        []
        >>> consumer_notes(Preprocessing.named("half", size=(96, 96)), "baked", opencv=True)
        ["InsightFace's Python package does not take a 96x96 input for a face recogniser"]
    """
    notes = []
    height, width = expects.size
    if height != width or height < 112 or height % 16 or height == 192:
        notes.append(f"InsightFace's Python package does not take a {height}x{width} input for a face recogniser")
    if preprocess == "plain":
        if expects != Preprocessing.named("half", "rgb", expects.size):
            notes.append("InsightFace's Python package would normalise otherwise: use --preprocess baked for it")
        notes.append("OpenCV's FaceRecognizerSF needs --preprocess baked")
    if not opencv:
        notes.append("not checked in OpenCV")
    return notes
