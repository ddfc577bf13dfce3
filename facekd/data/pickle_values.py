"""What the globals of an image pickle may stand for: uint8 and bool arrays, booleans and bytes, built by hand."""

from __future__ import annotations

from dataclasses import dataclass

_DTYPES = {"u1": "uint8", "|u1": "uint8", "b1": "bool", "|b1": "bool"}
GLOBALS = {
    "numpy.core.multiarray _reconstruct": "reconstruct",
    "numpy._core.multiarray _reconstruct": "reconstruct",
    "numpy.core.multiarray scalar": "scalar",
    "numpy._core.multiarray scalar": "scalar",
    "numpy.core.numeric _frombuffer": "frombuffer",
    "numpy._core.numeric _frombuffer": "frombuffer",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
    "builtins bytes": "bytes",
    "__builtin__ bytes": "bytes",
    "builtins bytearray": "bytes",
    "__builtin__ bytearray": "bytes",
}


@dataclass(frozen=True)
class Global:
    """A name the file refers to, never the thing itself."""

    name: str


@dataclass(frozen=True)
class Dtype:
    """Element type of an array: ``uint8`` or ``bool``."""

    name: str


@dataclass(eq=False)
class Array:
    """A numpy array as stored: element type, shape and raw bytes; ``data`` is None until the file fills it."""

    dtype: str = ""
    shape: tuple[int, ...] = ()
    data: bytes | None = None


class Refused(Exception):
    """What was found; the walker adds the file and the byte."""


def call(function: str, arguments: tuple) -> object:
    """The value that a known function builds from arguments of the known form.

    Raises:
        Refused: Any other arguments.

    Example:
        >>> call("encode", ("\\xff", "latin1"))
        b'\\xff'
    """
    match function, arguments:
        case "reconstruct", (Global(name="ndarray"), (0,), "b" | b"b"):
            return Array()
        case "dtype", (name, bool() | int(), bool() | int()) if as_text(name) in _DTYPES:
            return Dtype(_DTYPES[as_text(name)])
        case "frombuffer", (bytes(data), Dtype(name=dtype), tuple(shape), "C" | "F"):
            return _filled(Array(), dtype, shape, data)
        case "scalar", (Dtype(name="bool"), bytes(data)) if len(data) == 1:
            return data != b"\0"
        case "encode", (str(text), "latin1" | "latin-1"):
            return _latin(text)
        case "bytes", ():
            return b""
        case "bytes", (bytes(data),):
            return data
        case "bytes", (str(text), "latin1" | "latin-1"):
            return _latin(text)
    raise Refused(f"{function} with arguments it is not known to take")


def fill(target: object, state: object) -> None:
    """Give an array its content, or check that the state of an element type is the plain one.

    Raises:
        Refused: Anything that is no uint8 or bool array, or an array that has its content already.
    """
    match target, state:
        case Dtype(), (int(), "|" | b"|", None, None, None, -1, -1, 0):
            pass
        case Array(data=None), (1, tuple(shape), Dtype(name=dtype), bool() | 0 | 1, bytes(data)):
            _filled(target, dtype, shape, data)
        case _:
            raise Refused("BUILD of something that is no numpy array of uint8 or bool")


def as_text(value: object) -> str:
    """A name, which Python 2 stores as bytes; empty when it is neither."""
    if isinstance(value, bytes):
        return value[:256].decode("latin-1")
    return value if isinstance(value, str) else ""


def _filled(array: Array, dtype: str, shape: tuple, data: bytes) -> Array:
    count = 1
    for length in shape[:4]:
        if type(length) is not int or length < 0:
            raise Refused("an array with a shape that is no shape")
        count *= length
    if len(shape) > 4 or count != len(data):
        raise Refused(f"an array whose shape does not match its {len(data)} bytes")
    array.dtype, array.shape, array.data = dtype, shape, data
    return array


def _latin(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise Refused("bytes written as text beyond Latin-1") from None
