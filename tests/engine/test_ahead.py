"""Things made ahead: in their order, one ahead, and errors where they belong."""

from __future__ import annotations

import threading

import pytest

from facekd.engine.ahead import made_ahead


def test_the_next_is_made_while_one_is_used_and_no_more() -> None:
    made = [threading.Event() for _ in range(4)]

    def make(place: int) -> int:
        made[place].set()
        return 10 * place

    things = made_ahead(make, range(4))
    assert next(things) == 0
    assert made[1].wait(timeout=60), "the second waits for nobody"
    assert not made[2].is_set() and not made[3].is_set()
    assert list(things) == [10, 20, 30]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_each_once_in_order_by_one_other_thread(count: int) -> None:
    threads = set()

    def make(place: int) -> int:
        threads.add(threading.get_ident())
        return place

    assert list(made_ahead(make, range(count))) == list(range(count))
    assert len(threads) == min(count, 1) and threading.get_ident() not in threads


def test_an_error_is_raised_after_what_was_made_before_it() -> None:
    def make(place: int) -> int:
        if place == 2:
            raise KeyError("two")
        return place

    got = []
    with pytest.raises(KeyError, match="two"):
        for thing in made_ahead(make, range(5)):
            got.append(thing)
    assert got == [0, 1]


def test_nothing_more_is_made_for_nobody() -> None:
    made: list[int] = []
    things = made_ahead(lambda place: made.append(place), range(50))
    next(things)
    things.close()
    assert len(made) <= 2 and not [one for one in threading.enumerate() if one.name.startswith("ahead")]
