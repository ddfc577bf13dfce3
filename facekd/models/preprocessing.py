"""What happens to pixels before a backbone sees them: colour order, mean, spread and size belong to the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facekd.errors import ContradictionError, InputError, UsageError
from facekd.registry import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

COLORS = ("rgb", "bgr")
_IMAGENET_MEAN, _IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
NORMALIZATIONS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "half": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "128": ((127.5, 127.5, 127.5), (128.0, 128.0, 128.0)),
    "imagenet": (_IMAGENET_MEAN, _IMAGENET_STD),
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
METADATA_KEYS = ("color", "mean", "std", "size")


@dataclass(frozen=True)
class Preprocessing:
    """How a model wants its images.

    Args:
        color: Channel order the model reads, ``rgb`` or ``bgr``.
        mean: Subtracted per channel, on the 0..255 scale, in the order of ``color``.
        std: Divided by per channel, on the 0..255 scale, in the order of ``color``.
        size: (height, width) in pixels.

    Raises:
        UsageError: An unknown colour, a spread that is not positive, or a size that is not.

    Example:
        >>> import torch
        >>> Preprocessing.named("half").apply(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
        ...                                   .expand(2, 3, 112, 112))[:, 0, 0, 0].tolist()
        [-1.0, 1.0]
    """

    color: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if self.color not in COLORS:
            raise UsageError("color", f"{self.color} is no channel order", "rgb or bgr")
        if len(self.mean) != 3 or not all(math.isfinite(v) for v in self.mean):
            raise UsageError("mean", f"{self.mean} is not three finite numbers")
        if len(self.std) != 3 or not all(math.isfinite(v) and v > 0 for v in self.std):
            raise UsageError("std", f"{self.std} is not three positive numbers")
        if len(self.size) != 2 or min(self.size) < 1:
            raise UsageError("size", f"{self.size} is not a height and a width in pixels")

    def apply(self, images: Tensor) -> Tensor:
        """Pixels to network input: channel order, then ``(x - mean) / std``.

        Args:
            images: uint8 (batch, 3, height, width), RGB, at ``size``.

        Returns:
            float32 of the same shape and device, channels in the order of ``color``.

        Raises:
            ValueError: Another type or shape; resizing is the caller's business.
        """
        import torch

        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1:] != (3, *self.size):
            raise ValueError(
                f"expected uint8 (batch, 3, {self.size[0]}, {self.size[1]}), got {images.dtype} {tuple(images.shape)}"
            )
        if self.color == "bgr":
            images = images.flip(1)
        mean = torch.tensor(self.mean, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, 3, 1, 1)
        return images.to(torch.float32).sub_(mean).div_(std)

    @staticmethod
    def named(normalize: str, color: str = "rgb", size: tuple[int, int] = (112, 112)) -> Preprocessing:
        """The field's usual scalings by name: half, 128, imagenet, unit, none.

        Example:
            >>> Preprocessing.named("128", "bgr").std
            (128.0, 128.0, 128.0)
            >>> Preprocessing.named("imagenet", "bgr").mean
            (103.53, 116.28, 123.675)
        """
        if normalize not in NORMALIZATIONS:
            raise UsageError(normalize, "unknown normalisation", did_you_mean(normalize, NORMALIZATIONS))
        (m0, m1, m2), (s0, s1, s2) = NORMALIZATIONS[normalize]
        if color == "bgr":
            m0, m2, s0, s2 = m2, m0, s2, s0
        return Preprocessing(color, (m0, m1, m2), (s0, s1, s2), size)

    def to_metadata(self) -> dict[str, str]:
        """As strings for a file's metadata; floats are written so that they read back bit-equal.

        Example:
            >>> Preprocessing.named("half").to_metadata()["mean"]
            '127.5,127.5,127.5'
            >>> Preprocessing.named("half", size=(64, 48)).to_metadata()["size"]
            '64x48'
        """
        return {
            "color": self.color,
            "mean": ",".join(repr(float(v)) for v in self.mean),
            "std": ",".join(repr(float(v)) for v in self.std),
            "size": f"{self.size[0]}x{self.size[1]}",
        }

    @staticmethod
    def from_metadata(metadata: Mapping[str, str], where: str = "metadata") -> Preprocessing:
        """The inverse of `to_metadata`; other keys are left alone.

        Args:
            metadata: Holds at least ``color``, ``mean``, ``std`` and ``size``.
            where: File named in the refusal.

        Raises:
            InputError: A key is missing or does not read as it should.

        Example:
            >>> p = Preprocessing.named("imagenet", "bgr")
            >>> Preprocessing.from_metadata(p.to_metadata()) == p
            True
        """
        missing = [key for key in METADATA_KEYS if key not in metadata]
        if missing:
            raise InputError(where, f"says nothing of {', '.join(missing)}", "export or save the model again")
        try:
            mean = tuple(float(v) for v in metadata["mean"].split(","))
            std = tuple(float(v) for v in metadata["std"].split(","))
            size = tuple(int(v) for v in metadata["size"].split("x"))
            return Preprocessing(metadata["color"], mean, std, size)  # type: ignore[arg-type]
        except (ValueError, UsageError) as error:
            raise InputError(where, f"preprocessing metadata cannot be read: {error}") from None


def settle(
    stored: Preprocessing | None, color: str | None, normalize: str | None, *, size: tuple[int, int], where: str
) -> Preprocessing:
    """What a file says of its images and what the user says, brought together.

    Args:
        stored: What the file says, or None.
        color: What the user says of the colour order, or None.
        normalize: What the user says of the scaling, or None.
        size: (height, width) when the file does not say.
        where: File named in the refusal.

    Raises:
        InputError: Neither says it.
        ContradictionError: The two contradict each other.

    Example:
        >>> settle(None, "rgb", "half", size=(112, 112), where="r50.pt") == Preprocessing.named("half")
        True
        >>> settle(Preprocessing.named("half"), "bgr", None, size=(112, 112), where="a.onnx")
        Traceback (most recent call last):
        facekd.errors.ContradictionError: a.onnx: says its colour order is rgb, not bgr (leave out --color)
    """
    if stored is None:
        if color is None or normalize is None:
            silent = (
                ("colour order", f"--color {'|'.join(COLORS)}"),
                ("scaling", f"--normalize {'|'.join(NORMALIZATIONS)}"),
            )
            asked = [pair for pair, said in zip(silent, (color, normalize), strict=True) if said is None]
            what = f"does not say its {' and '.join(name for name, _ in asked)}"
            raise InputError(where, what, f"add {' and '.join(option for _, option in asked)}")
        return Preprocessing.named(normalize, color, size)
    if color is not None and color != stored.color:
        raise ContradictionError(where, f"says its colour order is {stored.color}, not {color}", "leave out --color")
    if normalize is not None:
        given = Preprocessing.named(normalize, stored.color, stored.size)
        if given != stored:
            what = f"says it subtracts {stored.mean} and divides by {stored.std}, which is not {normalize}"
            raise ContradictionError(where, what, "leave out --normalize")
    return stored
