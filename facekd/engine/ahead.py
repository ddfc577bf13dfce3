"""Making the next thing while the last one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Made = TypeVar("Made")


def made_ahead(make: Callable[[int], Made], places: Sequence[int]) -> Generator[Made]:
    """What ``make`` gives for each place, in their order, one made by another thread while the one before is used.

    Decoding images leaves Python to the thread that runs the model, and the other way round. An error of ``make`` is
    raised where what it would have made is asked for; once nothing more is asked for, nothing more is made.

    Args:
        make: Called by one thread, one place after the other.
        places: What it is called with.

    Example:
        >>> list(made_ahead(lambda place: place**2, [1, 2, 3]))
        [1, 4, 9]
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        waiting = deque(pool.submit(make, place) for place in places[:1])
        try:
            for place in places[1:]:
                waiting.append(pool.submit(make, place))
                yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
