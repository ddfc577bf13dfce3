"""Newest checkpoints that rot: flipped, cut, blanked, swapped; each is to be passed over for the one before it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.outcome import Outcome
from facekd.engine.training.checkpoint import load_checkpoint
from facekd.errors import CheckpointError

PAGE = 4096


def damaged(folder: Path, kind: str, count: int, seed: int = 0) -> Outcome:
    """What becomes of a folder of checkpoints whose newest is damaged in one way.

    Args:
        folder: Two checkpoints or more of a finished run; left as it was.
        kind: One of :data:`WAYS`.
        count: How often.
        seed: Of the draws.
    """
    older, newest = sorted(folder.glob("step-*.safetensors"))[-2:]
    whole, outcome = newest.read_bytes(), Outcome()
    draw = random.Random(f"{seed} {kind}")
    for _, (what, data) in zip(range(count), WAYS[kind](whole, older.read_bytes(), draw), strict=False):
        newest.write_bytes(data)
        outcome.trials += 1
        try:
            found, told = load_checkpoint(folder)
        except CheckpointError as error:
            outcome.wrong.append(f"{what}: {error}")
            continue
        fine = f"step-{found.step:09d}.safetensors" == older.name and len(told) == 1 and newest.name in told[0]
        outcome.identical += fine
        outcome.wrong += [] if fine else [f"{what}: step {found.step}, {told}"]
    newest.write_bytes(whole)
    return outcome


def damage_newest(checkpoints: Sequence[Path], kind: str, seed: int) -> None:
    """Damage the last of two checkpoints or more in one of :data:`WAYS`."""
    older, newest = checkpoints[-2:]
    _, data = next(WAYS[kind](newest.read_bytes(), older.read_bytes(), random.Random(f"{seed} {kind}")))
    newest.write_bytes(data)


Damage = Iterator[tuple[str, bytes]]


def _flipped(whole: bytes, other: bytes, draw: random.Random) -> Damage:
    while True:
        at = draw.randrange(8 * len(whole))
        data = bytearray(whole)
        data[at // 8] ^= 1 << at % 8
        yield f"bit {at}", bytes(data)


def _cut(whole: bytes, other: bytes, draw: random.Random) -> Damage:
    while True:
        length = draw.randrange(len(whole))
        yield f"cut to {length} bytes", whole[:length]


def _blanked(whole: bytes, other: bytes, draw: random.Random) -> Damage:
    """A page of zeros, where there was something else."""
    while True:
        at = draw.randrange(len(whole) - PAGE)
        data = whole[:at] + bytes(PAGE) + whole[at + PAGE :]
        if data != whole:
            yield f"zeros from byte {at}", data


def _swapped(whole: bytes, other: bytes, draw: random.Random) -> Damage:
    """The older checkpoint under the newer name, whole or with its own length, and mixtures of the two."""
    yield "the older one", other
    while True:
        at = draw.randrange(1, min(len(whole), len(other)))
        data = other[:at] + whole[at:]
        if data != whole:
            yield f"the older one up to byte {at}", data


WAYS = {"flipped": _flipped, "cut": _cut, "blanked": _blanked, "swapped": _swapped}
"""By name, what gives one damaged copy of a file after another."""
