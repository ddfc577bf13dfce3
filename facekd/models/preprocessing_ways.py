"""The ways a model may be shown its images, and what they are called."""

from __future__ import annotations

import math

from facekd.models.preprocessing import COLORS, NORMALIZATIONS, Preprocessing

OWN = "its own scaling"


def all_ways(own: Preprocessing) -> list[Preprocessing]:
    """Every colour order with every named scaling, at the size of ``own``."""
    return [Preprocessing.named(normalize, color, own.size) for color in COLORS for normalize in NORMALIZATIONS]


def other_ways(own: Preprocessing) -> list[Preprocessing]:
    """Ways that differ from ``own`` by more than a hair: ``half`` and ``128`` are one scaling to a network.

    Example:
        >>> own = Preprocessing.named("128", "bgr")
        >>> "half" in {scaling_name(way) for way in other_ways(own)}, other_ways(own)[0].color
        (False, 'rgb')
    """
    twin = "half" if scaling_name(own) == "128" else "128"
    return [way for way in all_ways(own) if way != own and scaling_name(way) != twin]


def swapped(own: Preprocessing) -> Preprocessing:
    """The same scaling of each colour with the channels in the other order.

    Example:
        >>> swapped(Preprocessing.named("imagenet")) == Preprocessing.named("imagenet", "bgr")
        True
    """
    (m0, m1, m2), (s0, s1, s2) = own.mean, own.std
    color = "bgr" if own.color == "rgb" else "rgb"
    return Preprocessing(color, (m2, m1, m0), (s2, s1, s0), own.size)


def scaling_name(way: Preprocessing) -> str:
    """Name of the scaling of ``way``, :data:`OWN` where it has none.

    Example:
        >>> scaling_name(Preprocessing.named("128", "bgr"))
        '128'
    """
    for name in NORMALIZATIONS:
        named = Preprocessing.named(name, way.color, way.size)
        values = zip(named.mean + named.std, way.mean + way.std, strict=True)
        if all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-3) for a, b in values):
            return name
    return OWN
