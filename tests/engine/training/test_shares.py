"""Rows made by several processes are the rows of one, each made by one of them; and they end together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from several_processes import in_several

from facekd.engine.training import shares
from facekd.engine.training.distributed import ALONE, World
from facekd.engine.training.shares import Make, Rows, led
from facekd.errors import DataError, DeviceError, Elsewhere, FacekdError

CASES = [(0, 23, 3), (5, 6, 4), (4, 28, 4), (0, 1, 1), (7, 7, 2), (0, 100, 7), (2, 9, 50)]
"""From where, to where, and how many are made at once."""
SHAPE = (2, 2)


def counted(unit: int, made: list[int], off: int = 0) -> Rows:
    """Rows that tell their number, and beside which others they were made; ``made`` learns which."""

    def make(start: int, stop: int) -> np.ndarray:
        made.extend(range(start, stop))
        found = np.empty((stop - start, *SHAPE), np.float32)
        for first in range(start, stop, unit):
            last = min(first + unit, stop)
            for row in range(first, last):
                found[row - start] = [[row + off, first], [last, unit]]
        return found

    return Rows(make, unit, SHAPE)


def of_all_cases(made: Sequence[Make]) -> list[np.ndarray]:
    """What rank 0 asks for: every case, and of the first in two parts."""
    found = [make(start, stop) for make, (start, stop, _) in zip(made, CASES, strict=True)]
    return [*found, made[0](0, 12), made[0](12, 23)]


def make_rows(world: World, folder: Path) -> None:
    shares.ROUND = 2
    made: list[list[int]] = [[] for _ in CASES]
    found = led(world, of_all_cases, [counted(unit, of) for (_, _, unit), of in zip(CASES, made, strict=True)])
    assert (found is None) == (world.rank > 0)
    if found is not None:
        np.savez(folder / "found.npz", *found)
    (folder / f"{world.rank}.json").write_text(json.dumps(made))


@pytest.fixture(scope="module", params=[2, 3])
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """How many processes made rows, met trouble and lost one of them, and the folder that tells of it."""
    count, folder = request.param, tmp_path_factory.mktemp("done")
    assert in_several(everything, folder, count) == [0, 9, *[0] * (count - 2)]
    return count, folder


@pytest.mark.slow
def test_rows__are_made_beside_the_same_others_each_once_and_by_all(done: tuple[int, Path]) -> None:
    count, folder = done
    alone: list[list[int]] = [[] for _ in CASES]
    wanted = led(ALONE, of_all_cases, [counted(unit, of) for (_, _, unit), of in zip(CASES, alone, strict=True)])
    with np.load(folder / "found.npz") as held:
        for found, want in zip(held.values(), wanted or [], strict=True):
            assert found.dtype == np.float32 and np.array_equal(found, want)
    ranks = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]
    for case, of_alone in enumerate(alone):
        assert sorted(row for rank in ranks for row in rank[case]) == sorted(of_alone)
    assert all(len(rank[5]) > 100 // count - 2 * 7 for rank in ranks), "each made its part of the longest case"


def trouble(world: World, folder: Path) -> None:
    """Each kind of trouble, and what each process meets; rows can be made after every one."""
    met: list[str] = []

    def fail(start: int, stop: int) -> np.ndarray:
        if world.rank == 1:
            raise DataError("a.png", "is no image")
        return np.zeros((stop - start, *SHAPE), np.float32)

    def full(made: Sequence[Make]) -> None:
        made[0](0, 4)
        raise DeviceError("cache", "cannot be written: no space")

    def bug(made: Sequence[Make]) -> None:
        raise ValueError("a bug")

    def ask(made: Sequence[Make]) -> float:
        return float(made[0](0, 4).sum())

    for lead, rows in ((ask, Rows(fail, 1, SHAPE)), (full, counted(1, [])), (bug, counted(1, []))):
        try:
            led(world, lead, [rows])
        except (FacekdError, ValueError) as error:
            met.append(f"{type(error).__name__} {getattr(error, 'exit_code', None)} {error}")
        met.append(str(led(world, ask, [counted(2, [])])))
        met.append(str(world.gather(torch.tensor([world.rank])).tolist()))
    (folder / f"{world.rank}.txt").write_text("\n".join(met))


@pytest.mark.slow
def test_trouble__of_one_is_the_end_for_all_and_leaves_them_in_step(done: tuple[int, Path]) -> None:
    count, folder = done
    own = [
        (1, 3, "DataError 3 a.png: is no image"),
        (0, 5, "DeviceError 5 cache: cannot be written: no space"),
        (0, 1, "ValueError None a bug"),
    ]
    total = str(led(ALONE, lambda made: float(made[0](0, 4).sum()), [counted(2, [])]))
    for rank in range(count):
        told = (folder / f"{rank}.txt").read_text().splitlines()
        for line, (teller, code, error) in zip(told[::3], own, strict=True):
            silent = f"Elsewhere {code} process {teller} of {count}: met an error, which it tells"
            assert line == (error if rank == teller else silent)
        assert told[1::3] == [total if rank == 0 else "None"] * 3
        assert told[2::3] == [str(list(range(count)))] * 3


def lost(world: World, folder: Path) -> None:
    def leave(start: int, stop: int) -> np.ndarray:
        raise SystemExit(9)

    try:
        led(world, lambda made: made[0](0, 2), [Rows(leave if world.rank == 1 else counted(1, []).make, 1, SHAPE)])
    except Elsewhere as error:
        (folder / f"lost{world.rank}").write_text(f"{error.exit_code} {error.rank}")


def everything(world: World, folder: Path) -> None:
    make_rows(world, folder)
    trouble(world, folder)
    lost(world, folder)


@pytest.mark.slow
def test_a_process_that_leaves__is_not_waited_for(done: tuple[int, Path]) -> None:
    count, folder = done
    assert [(folder / f"lost{rank}").exists() for rank in range(count)] == [rank != 1 for rank in range(count)]
    assert (folder / "lost0").read_text() == "1 1"


def test_one_process__asks_nobody() -> None:
    made: list[int] = []
    found = led(ALONE, lambda ask: ask[0](3, 8), [counted(2, made)])
    assert made == [3, 4, 5, 6, 7] and found is not None and found[:, 0, 0].tolist() == made
    with pytest.raises(ValueError, match="a bug"):
        led(ALONE, lambda ask: (_ for _ in ()).throw(ValueError("a bug")), [])
