"""Rows that the processes of a run make together: rank 0 does a piece of work, and asks all for the rows it needs.

What is done with the rows (writing them, taking figures of them) is so written once, as for one process, and only rank
0 holds all of them. The others wait for its orders until it says that the work has ended, and how. An order is a few
units for each process, after which all meet: there, trouble of one becomes the end of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from facekd.engine.training.distributed import World
from facekd.errors import Elsewhere, LostProcess

Made = TypeVar("Made")

Make = Callable[[int, int], np.ndarray]
"""Rows ``start`` to ``stop``."""

ROUND = 16
"""Units that a process makes between two meetings: so few that trouble is soon told, so many that meeting is cheap."""
ENDED = -1
"""In the place of a number of rows: the work is over."""


@dataclass(frozen=True)
class Rows:
    """Rows that any of the processes can make.

    Attributes:
        make: Gives rows ``start`` to ``stop``, float32 ``(stop - start, *shape)``.
        unit: How many are made at once. Shares are whole units, so every row is made beside those it is made beside in
            one process, and is the same to the bit.
        shape: Of a row.
    """

    make: Make
    unit: int
    shape: tuple[int, ...]


class Order(NamedTuple):
    """What rank 0 says to the others.

    Attributes:
        number: Of the rows to make, or :data:`ENDED`.
        start: The first of them.
        stop: Behind the last.
        exit_code: Of the error the work ended with, 0 for none.
    """

    number: int = 0
    start: int = 0
    stop: int = 0
    exit_code: int = 0


def led(world: World, lead: Callable[[Sequence[Make]], Made], work: Sequence[Rows]) -> Made | None:
    """What ``lead`` answers, called in rank 0 with functions that let all processes make the rows of ``work``.

    Args:
        world: The processes, all of which call this.
        lead: Given one function for each of ``work``; what it asks for is made in contiguous shares.
        work: Alike in all processes, each with its own model.

    Returns:
        The answer in rank 0; None in the others.

    Raises:
        Elsewhere: Another process raised; the first of those that did raises its own error.

    Example:
        >>> led(World(), lambda made: made[0](1, 3).tolist(), [Rows(lambda start, stop: np.arange(start, stop), 2, ())])
        [1, 2]
    """
    if world.size == 1:
        return lead([rows.make for rows in work])
    if not world.leads:
        _serve(world, work)
        return None
    met: list[BaseException] = []

    def ask(number: int, start: int, stop: int) -> np.ndarray:
        try:
            return _made_by_all(world, work, number, start, stop)
        except BaseException as error:
            met.append(error)
            raise

    try:
        answer = lead([partial(ask, number) for number in range(len(work))])
    except BaseException as error:
        if not met:
            with suppress(LostProcess):
                _told(world, Order(ENDED, exit_code=getattr(error, "exit_code", 1)))
        raise
    _told(world, Order(ENDED))
    return answer


def _serve(world: World, work: Sequence[Rows]) -> None:
    """Make this process's share of whatever rank 0 asks for, until it ends."""
    while True:
        order = _told(world, Order())
        if order.number == ENDED:
            if order.exit_code:
                raise Elsewhere(0, world.size, order.exit_code)
            return
        _made_at_once(world, work[order.number], order)


def _told(world: World, order: Order) -> Order:
    """What rank 0 says, in every process."""
    return Order(*world.same(torch.tensor(order)).tolist())


def _made_by_all(world: World, work: Sequence[Rows], number: int, start: int, stop: int) -> np.ndarray:
    rows = work[number]
    found = np.empty((stop - start, *rows.shape), np.float32)
    at_once = world.size * ROUND * rows.unit
    for begin in range(start, stop, at_once):
        end = min(begin + at_once, stop)
        order = _told(world, Order(number, begin, end))
        found[begin - start : end - start] = _made_at_once(world, rows, order)
    return found


def _made_at_once(world: World, rows: Rows, order: Order) -> np.ndarray:
    """The rows of an order, of which this process makes its share.

    They come to every process, which costs no more time than to bring them to one, and are few.
    """
    count = order.stop - order.start
    each = math.ceil(math.ceil(count / rows.unit) / world.size) * rows.unit
    begin = min(order.start + world.rank * each, order.stop)
    end = min(begin + each, order.stop)
    share = np.zeros((each, *rows.shape), np.float32)
    with world.together():
        if begin < end:
            share[: end - begin] = rows.make(begin, end)
    whole: np.ndarray = world.gather(torch.from_numpy(share)).numpy()
    return whole[:count]
