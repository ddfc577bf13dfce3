"""What an evaluation was asked to do, as the JSON of ``facekd eval`` keeps it, so that it can be done again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from facekd.engine.evaluation.resolution_modes import GALLERIES
from facekd.errors import InputError


@dataclass(frozen=True)
class Request:
    """The arguments of ``facekd eval`` on which its figures depend.

    Attributes:
        models: Paths or names, as given.
        sets: Paths, as given.
        images: Root of the paths in pairs files and lists.
        protocol: See :data:`facekd.engine.evaluation.evaluation_sets.PROTOCOLS`.
        fprs: Operating points.
        flip: Add the mirrored image's embedding.
        resolutions: Longer sides that probes are brought down to.
        gallery: See :data:`facekd.engine.evaluation.resolution_modes.GALLERIES`.
        color: Channel order of a foreign model.
        normalize: Scaling of a foreign model.
        allow_resize: Take images of another cut of the face.
        drop_same: Leave out pairs of one image.
        bootstrap: Replicates behind each interval.
        batch: Images per forward pass.
        device: Where to compute.
        cross: Also compare faces as one of two models sees them with those that the other sees.
        by: Column of a list that parts the set into groups.
        seed: Of the bootstrap.
        norm: Of the images of templates; see :mod:`facekd.metrics.templates`, like the next.
        det: Weigh the images of templates with the score of the face detector.
        all_modes: Every combination of ``norm``, ``det`` and ``flip`` for templates.
        count_failures: Count images of templates that cannot be used as failed.
        uncertainty: Heed how sure each model is of each image.
        precision: Of PyTorch models.
    """

    models: tuple[str, ...]
    sets: tuple[str, ...]
    images: str | None
    protocol: str
    fprs: tuple[float, ...]
    flip: bool
    resolutions: tuple[int, ...]
    gallery: str
    color: str | None
    normalize: str | None
    allow_resize: bool
    drop_same: bool
    bootstrap: int
    batch: int
    device: str
    cross: bool = False
    by: str | None = None
    seed: int = 0
    norm: str = "keep"
    det: bool = True
    all_modes: bool = False
    count_failures: bool = False
    uncertainty: bool = False
    precision: str = "fp32"

    def as_dict(self) -> dict[str, Any]:
        """For the JSON of ``facekd eval``."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def request_from(found: Any, where: str) -> Request:
    """A request out of the JSON of ``facekd eval``.

    Args:
        found: What :meth:`Request.as_dict` gave.
        where: The file, for messages.

    Raises:
        InputError: A key is missing or unknown, or a value is none that the command takes.
    """
    again = "evaluate again with this version"
    if not isinstance(found, Mapping):
        raise InputError(where, "says not how it was made: no arguments", again)
    known = [field.name for field in fields(Request)]
    wrong = [f"{name} is missing" for name in known if name not in found]
    wrong += [f"{name!r} is unknown" for name in found if name not in known]
    wrong += [f"{name} is {found[name]!r}" for name in known if name in found and not _ACCEPTED[name](found[name])]
    if wrong:
        raise InputError(where, f"arguments: {wrong[0]}", again)
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
    return Request(**values)


def command_words(request: Request) -> list[str]:
    """The command that a request stands for, word by word; what is the command's default is left out.

    Args:
        request: What was asked.

    Example:
        >>> request = Request(("m.onnx",), ("a b.bin",), None, "auto", (0.1,), True, (), "full", None, None, False,
        ...                   False, 1000, 128, "auto")
        >>> command_words(request)
        ['facekd', 'eval', 'm.onnx', '--on', 'a b.bin', '--fpr', '0.1']
    """
    words = ["facekd", "eval"]
    for option, values in (("--on", request.sets), ("--fpr", request.fprs), ("--resolution", request.resolutions)):
        for value in values:
            words += [option, str(value)]
    words[2:2] = request.models
    for option, given, usual in (
        ("--images", request.images, None),
        ("--protocol", request.protocol, "auto"),
        ("--gallery", request.gallery, "full"),
        ("--color", request.color, None),
        ("--normalize", request.normalize, None),
        ("--bootstrap", request.bootstrap, 1000),
        ("--batch", request.batch, 128),
        ("--device", request.device, "auto"),
        ("--norm", request.norm, "keep"),
        ("--by", request.by, None),
        ("--precision", request.precision, "fp32"),
    ):
        words += [] if given == usual else [option, str(given)]
    flags = (
        ("--cross", request.cross),
        ("--no-flip", not request.flip),
        ("--allow-resize", request.allow_resize),
        ("--drop-same", request.drop_same),
        ("--no-det", not request.det),
        ("--all-modes", request.all_modes),
        ("--count-failures", request.count_failures),
        ("--uncertainty", request.uncertainty),
    )
    return [*words, *(flag for flag, given in flags if given)]


def _whole(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _share(value: Any) -> bool:
    return isinstance(value, float) and 0 < value < 1


def _each(accepted: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(accepted, value))


NORMS = ("keep", "unit")
PRECISIONS = ("fp32", "bf16")

_ACCEPTED: dict[str, Callable[[Any], bool]] = {
    "models": lambda value: _each(_text)(value) and value != [],
    "sets": _each(_text),
    "images": _text_or_none,
    "protocol": _text,
    "fprs": _each(_share),
    "flip": _flag,
    "resolutions": _each(_whole(4, 1024)),
    "gallery": lambda value: value in GALLERIES,
    "color": lambda value: value in (None, "rgb", "bgr"),
    "normalize": lambda value: value in (None, "half", "128", "imagenet", "unit", "none"),
    "allow_resize": _flag,
    "drop_same": _flag,
    "bootstrap": _whole(0, 100_000),
    "batch": _whole(1, 65536),
    "device": _text,
    "cross": _flag,
    "by": _text_or_none,
    "seed": _whole(0, 2**63 - 1),
    "norm": lambda value: value in NORMS,
    "det": _flag,
    "all_modes": _flag,
    "count_failures": _flag,
    "uncertainty": _flag,
    "precision": lambda value: value in PRECISIONS,
}
