"""At which resolutions faces are compared: probes brought down, against a gallery as it is or brought down as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GALLERIES = ("full", "same", "both")
"""full: probes against the gallery as it is; same: against one at their own resolution; both: a result each."""


@dataclass(frozen=True)
class Resolution:
    """The longer sides in pixels that the two images of a pair are brought down to; None leaves them as they are.

    Attributes:
        probe: Of the first image of each pair; of all pairs, the one that comes first by identity, then place.
        gallery: Of the second.
    """

    probe: int | None = None
    gallery: int | None = None

    def as_dict(self) -> dict[str, int | None] | None:
        """For the JSON of ``facekd eval``; None where no image is changed."""
        return None if self == FULL else {"probe": self.probe, "gallery": self.gallery}


FULL = Resolution()


def resolution_modes(sides: Sequence[int], gallery: str = "full") -> list[Resolution]:
    """Every comparison that is asked for; the one at full resolution, by which the others are read, comes first.

    Args:
        sides: Longer sides in pixels.
        gallery: One of :data:`GALLERIES`.

    Example:
        >>> [(mode.probe, mode.gallery) for mode in resolution_modes([28, 14], "both")]
        [(None, None), (28, None), (28, 28), (14, None), (14, 14)]
    """
    modes = [FULL]
    for side in dict.fromkeys(sides):
        modes += [Resolution(side, None)] if gallery in ("full", "both") else []
        modes += [Resolution(side, side)] if gallery in ("same", "both") else []
    return modes


def sides_of(modes: Sequence[Resolution]) -> list[int | None]:
    """What images are brought down to in any of some comparisons, each once.

    Example:
        >>> sides_of(resolution_modes([28, 14], "both"))
        [None, 28, 14]
    """
    return list(dict.fromkeys(side for mode in modes for side in (mode.probe, mode.gallery)))


def describe_resolution(found: Mapping[str, int | None] | None) -> str:
    """A result's resolution in words.

    Example:
        >>> describe_resolution(None), describe_resolution({"probe": 14, "gallery": None})
        ('full', '14 px to full')
    """
    if found is None:
        return "full"
    probe, gallery = ("full" if side is None else f"{side} px" for side in (found["probe"], found["gallery"]))
    return f"{probe} to {gallery}"
