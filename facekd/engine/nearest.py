"""The backbone a state dict comes nearest to, and what tells the two apart."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from facekd.errors import FacekdError
from facekd.models.backbone import BACKBONES, build_backbone
from facekd.models.dialect_structure import Structure, structure_of
from facekd.models.key_table import KeyDifference, compare_keys

LEAST_SHARED = 0.1


@dataclass(frozen=True)
class KeyTable:
    """How a state dict differs from a backbone.

    Attributes:
        title: What the field calls the backbone.
        differences: Key by key; empty where there are none.
    """

    title: str
    differences: tuple[KeyDifference, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        rows = [
            {"key": d.key, "kind": d.kind, "found": _sides(d.found), "expected": _sides(d.expected)}
            for d in self.differences
        ]
        return {"backbone": self.title, "differences": rows}


def _sides(shape: tuple[int, ...] | None) -> list[int] | None:
    return None if shape is None else list(shape)


def nearest_backbone(state: Mapping[str, Tensor]) -> KeyTable | None:
    """The backbone with the largest share of keys and shapes in common.

    One whose depth can be told from the keys is compared at that depth, width and size.

    Returns:
        None where no backbone shares a tenth of the keys.
    """
    told = structure_of(state)
    if told is not None:
        candidates, state = iter([told]), told.state
    else:
        candidates = _candidates(state)
    best: tuple[float, KeyTable] | None = None
    for candidate in candidates:
        found = _compared(candidate, state)
        if found is not None and (best is None or found[0] > best[0]):
            best = found
    return best[1] if best is not None and best[0] >= LEAST_SHARED else None


def _candidates(state: Mapping[str, Tensor]) -> Iterator[Structure]:
    """Backbones with each of their own switches off and on, of families whose smallest shares a key."""
    families: dict[str, list[str]] = {}
    for name in BACKBONES:
        families.setdefault(name.rstrip("0123456789"), []).append(name)
    for family, names in families.items():
        names.sort(key=lambda name: int(name.removeprefix(family) or 0))
        smallest = _compared(Structure(names[0], 512, 112, {}), state)
        if smallest is None or smallest[0] == 0:
            continue
        for name in names:
            parameters = inspect.signature(BACKBONES[name]).parameters.values()
            switches = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is False]
            for number in range(2 ** len(switches)):
                options = {switch: True for place, switch in enumerate(switches) if number >> place & 1}
                yield Structure(name, 512, 112, {}, options)


def _compared(candidate: Structure, state: Mapping[str, Tensor]) -> tuple[float, KeyTable] | None:
    try:
        with torch.device("meta"):
            own = build_backbone(
                candidate.backbone,
                embedding_size=candidate.embedding_size,
                input_size=candidate.input_size,
                options=candidate.options,
            ).state_dict()
    except FacekdError:
        return None
    same = sum(key in state and state[key].shape == value.shape for key, value in own.items())
    return same / len(own.keys() | state.keys()), KeyTable(candidate.title, tuple(compare_keys(own, state)))
