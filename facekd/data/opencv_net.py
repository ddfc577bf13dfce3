"""Running an ONNX file in OpenCV, the runtime of many cameras and phones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from facekd.errors import InputError

_LOGGING = getattr(cv2.utils, "logging", cv2)  # OpenCV 5 moved these functions; 4 has them at the top
_SILENT = 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV's own log lines off stderr; its refusals still come as exceptions."""
    level = _LOGGING.getLogLevel()
    _LOGGING.setLogLevel(_SILENT)
    try:
        yield
    finally:
        _LOGGING.setLogLevel(level)


def forward_onnx(path: Path, blob: np.ndarray) -> np.ndarray:
    """One forward pass of an ONNX file through ``cv2.dnn``.

    Args:
        path: The file; read as bytes, so any file name will do.
        blob: What the file expects as its only input: float32 (batch, 3, height, width), or pictures of uint8.

    Returns:
        float32 output of the network's last layer, (batch, dim) for an embedding network.

    Raises:
        InputError: OpenCV cannot read the file, or cannot run it on this blob.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as empty:
        ...     forward_onnx(Path(empty.name), np.zeros((1, 3, 112, 112), np.float32))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        facekd.errors.InputError: ...: OpenCV cannot run it: the file is empty
    """
    return open_net(path).forward(blob)


@dataclass(frozen=True)
class OpenedNet:
    """An ONNX file in ``cv2.dnn``; made by `open_net` and `read_net`.

    Attributes:
        name: The file, for messages.
        network: OpenCV's network.
    """

    name: str
    network: cv2.dnn.Net

    def forward(self, blob: np.ndarray) -> np.ndarray:
        """As `forward_onnx`, in a network already open."""
        with _refusals(self.name):
            self.network.setInput(np.ascontiguousarray(blob))
            return np.array(self.network.forward(), np.float32)


def open_net(path: Path, *, threads: int = 0) -> OpenedNet:
    """Open an ONNX file in ``cv2.dnn``.

    Args:
        path: The file.
        threads: Of all that OpenCV does in this process from here on; as it was when 0.

    Raises:
        InputError: OpenCV cannot read the file.
    """
    if threads:
        cv2.setNumThreads(threads)
    return read_net(path.read_bytes(), str(path))


def read_net(data: bytes, name: str) -> OpenedNet:
    """Open the bytes of an ONNX file in ``cv2.dnn``.

    Raises:
        InputError: OpenCV cannot read them.
    """
    if not data:
        raise InputError(name, "OpenCV cannot run it: the file is empty")
    with _refusals(name):
        return OpenedNet(name, cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8)))


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Turn OpenCV's own exception into one line."""
    try:
        with _quiet():
            yield
    except cv2.error as error:
        reason = " ".join((error.err or str(error)).split())
        raise InputError(name, f"OpenCV cannot run it: {reason[:200]}") from error
