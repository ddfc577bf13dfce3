"""What a state dict has too little, too much, or in another shape for a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

KINDS = ("missing", "unexpected", "misshapen")


@dataclass(frozen=True)
class KeyDifference:
    """One key on which a state dict and a backbone differ.

    Attributes:
        key: The key.
        kind: One of `KINDS`.
        found: Shape in the state dict, or None.
        expected: Shape in the backbone, or None.
    """

    key: str
    kind: str
    found: tuple[int, ...] | None
    expected: tuple[int, ...] | None

    def __str__(self) -> str:
        return f"{self.key} is {self.found}, not {self.expected}" if self.kind == "misshapen" else self.key


def compare_keys(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[KeyDifference]:
    """Every difference, missing keys first; a missing ``num_batches_tracked`` is none.

    Args:
        own: The backbone's own state dict.
        state: The tensors to fill it with.

    Example:
        >>> import torch
        >>> own = {"a": torch.zeros(2), "b": torch.zeros(1)}
        >>> [(d.kind, str(d)) for d in compare_keys(own, {"a": torch.zeros(3), "c": torch.zeros(1)})]
        [('missing', 'b'), ('unexpected', 'c'), ('misshapen', 'a is (3,), not (2,)')]
    """
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    misshapen = [key for key in own if key in state and state[key].shape != own[key].shape]
    return [
        *(KeyDifference(key, "missing", None, tuple(own[key].shape)) for key in missing),
        *(KeyDifference(key, "unexpected", tuple(state[key].shape), None) for key in unexpected),
        *(KeyDifference(key, "misshapen", tuple(state[key].shape), tuple(own[key].shape)) for key in misshapen),
    ]


def summary(differences: Sequence[KeyDifference]) -> str:
    """The differences in one line: how many of each kind, and the first three.

    Example:
        >>> summary([KeyDifference("a", "missing", None, (1,)), KeyDifference("b", "unexpected", (1,), None)])
        '1 missing tensors: a; 1 unexpected tensors: b'
    """
    parts = []
    for kind in KINDS:
        found = [str(difference) for difference in differences if difference.kind == kind]
        if found:
            parts.append(f"{len(found)} {kind} tensors: {', '.join(found[:3])}{' ...' if len(found) > 3 else ''}")
    return "; ".join(parts)
