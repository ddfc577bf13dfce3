"""An exported file as onnxruntime runs it, with the thresholds it was given."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facekd.errors import InputError, NonFiniteError, UsageError
from facekd.models.onnx_file import ImageInput, image_input, metadata_of, open_session, parse, stored_preprocessing
from facekd.models.preprocessing import Preprocessing

CALIBRATE = "facekd calibrate finds thresholds; or name one yourself"


@dataclass(frozen=True)
class FaceModel:
    """A face embedding network in a file; made by `load_model`.

    Attributes:
        name: Its path.
        digest: SHA-256 of the file.
        preprocessing: What it expects of its images.
        metadata: What the file says of itself.
        session: onnxruntime's InferenceSession.
        taken: Its input.
        thresholds: Cosine by FPR: accept at or above.
        flip: Whether the thresholds were found with the mirrored image's embedding added.
    """

    name: str
    digest: str
    preprocessing: Preprocessing
    metadata: dict[str, str]
    session: Any
    taken: ImageInput
    thresholds: dict[float, float]
    flip: bool

    def embed(self, images: Sequence[np.ndarray], *, flip: bool | None = None) -> np.ndarray:
        """Embeddings of length one.

        Args:
            images: Aligned faces, uint8 RGB (height, width, 3), at the size the model takes.
            flip: Add the embedding of the mirrored image; as the thresholds were found when None.

        Returns:
            float32 (n, dim).

        Raises:
            InputError: An image of another type or size.
            NonFiniteError: An embedding is zero or not finite.
        """
        expected = (*self.preprocessing.size, 3)
        for place, image in enumerate(images):
            if image.dtype != np.uint8 or image.shape != expected:
                what = f"is {image.dtype} {image.shape}, and {self.name} takes uint8 {expected}"
                raise InputError(f"image {place}", what, "align it, or resize an aligned face")
        if not len(images):
            raise InputError("images", "none given", "give at least one")
        pixels = np.stack(list(images))
        found = self._run(pixels)
        if self.flip if flip is None else flip:
            found = found + self._run(pixels[:, :, ::-1])
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0))[:, 0])
        if bad.size:
            raise NonFiniteError(self.name, f"the embedding of image {bad[0]} is zero or not finite", "export it again")
        unit: np.ndarray = found / lengths
        return unit

    def threshold(self, fpr: float) -> float:
        """The cosine at or above which two faces are taken for one person's, at a false positive rate.

        Raises:
            InputError: The file has no threshold for it.
        """
        if fpr not in self.thresholds:
            known = ", ".join(f"{rate:g}" for rate in self.thresholds)
            raise InputError(
                self.name, f"has no threshold at FPR {fpr:g}{f', only at {known}' if known else ''}", CALIBRATE
            )
        return self.thresholds[fpr]

    def is_match(
        self, first: np.ndarray, second: np.ndarray, *, fpr: float | None = None, threshold: float | None = None
    ) -> bool:
        """Whether two embeddings are taken for one person's.

        Args:
            first: (dim,) embedding.
            second: (dim,) embedding.
            fpr: The false positive rate whose threshold is used; or
            threshold: a cosine of your own.

        Raises:
            UsageError: Neither of the two is given, or both.
            InputError: The file has no threshold for the rate.
        """
        if (fpr is None) == (threshold is None):
            raise UsageError("is_match", "takes fpr or threshold, one of the two", "name the false positive rate")
        limit = threshold if fpr is None or threshold is not None else self.threshold(fpr)
        return similarity(first, second) >= float(limit or 0.0)

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        """Raw embeddings of uint8 RGB (n, height, width, 3)."""
        step = self.taken.batch or len(pixels)
        found = []
        for start in range(0, len(pixels), step):
            part = pixels[start : start + step]
            padded = part if self.taken.batch is None else part[np.arange(step) % len(part)]
            (embedding,) = self.session.run(None, {self.taken.name: self._prepared(padded)})
            found.append(np.asarray(embedding, np.float32)[: len(part)])
        return np.concatenate(found)

    def _prepared(self, pixels: np.ndarray) -> np.ndarray:
        ordered = pixels[..., ::-1] if self.preprocessing.color == "bgr" else pixels
        if self.taken.bytes:
            return np.ascontiguousarray(ordered)
        mean, std = (np.array(v, np.float32) for v in (self.preprocessing.mean, self.preprocessing.std))
        return np.ascontiguousarray(((ordered.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2))


def load_model(path: Path | str, *, threads: int = 0) -> FaceModel:
    """Open a file that facekd exported.

    Thresholds are those the file carries, or those of ``FILE.calibration.json`` beside it.

    Args:
        path: The .onnx file.
        threads: Of onnxruntime; as many as it likes when 0.

    Raises:
        InputError: No such file, not one embedding network in one file, one that does not say what it expects of its
            images, thresholds that cannot be read, or a manifest or calibration beside it that is of another file.
    """
    where, path = str(path), Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(where, f"cannot be read: {error.strerror}", "check the path") from None
    model = parse(data, where)
    taken = image_input(model, where)
    metadata = metadata_of(model)
    preprocessing = stored_preprocessing(metadata, taken.size, where)
    if preprocessing is None:
        what = "does not say what it expects of its images"
        raise InputError(where, what, "export it with facekd export, which takes ONNX files too")
    digest = hashlib.sha256(data).hexdigest()
    _side_file(path.with_name(f"{path.name}.manifest.json"), "digest", digest)
    kept = _side_file(path.with_name(f"{path.name}.calibration.json"), "model_digest", digest)
    thresholds, flip = _calibrated(kept, metadata.get("facekd.calibration"), where)
    session = open_session(data, where, threads=threads)
    return FaceModel(where, digest, preprocessing, metadata, session, taken, thresholds, flip)


def _side_file(path: Path, key: str, digest: str) -> Mapping[str, Any] | None:
    """What lies beside the model, if anything does; it must be of this model."""
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        whose = kept[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(str(path), f"cannot be read: {error!r}", "export or calibrate again, or delete it") from None
    if whose != digest:
        raise InputError(str(path), "is of another file", "export or calibrate again, or delete it")
    found: Mapping[str, Any] = kept
    return found


def _calibrated(beside: Mapping[str, Any] | None, inside: str | None, where: str) -> tuple[dict[float, float], bool]:
    """Cosines by FPR, and whether they were found with mirrored images: of what lies beside the file, or is in it."""
    if beside is None and inside is None:
        return {}, True
    try:
        told: Any = json.loads(inside or "") if beside is None else beside
        thresholds = {float(entry["fpr"]): float(entry["cosine"]) for entry in told["thresholds"]}
        flip = bool(told["flip"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            where, f"its thresholds cannot be read: {error!r}", "facekd calibrate finds them again"
        ) from None
    if not all(math.isfinite(value) for value in (*thresholds, *thresholds.values())):
        raise InputError(where, "holds a threshold that is no number", "facekd calibrate finds them again")
    return thresholds, flip


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """The cosine of two embeddings (dim,).

    Example:
        >>> similarity(np.array([3.0, 4.0]), np.array([4.0, 3.0]))
        0.96
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
