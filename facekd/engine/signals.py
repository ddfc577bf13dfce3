"""Answering signals that ask a process to stop between two steps, so that state is saved before it ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from facekd.errors import STOPPING, Interrupted

Poll = Callable[[], None]
"""Raises :class:`~facekd.errors.Interrupted` when the process was asked to stop."""


@contextmanager
def interruptible(where: str, what: str, *, patient: bool = False) -> Iterator[Poll]:
    """Catch the signals that ask to stop inside the block; the yielded function raises once one has come.

    They are SIGTERM, Ctrl-C, the end of the terminal (unless it is to be passed over, as under nohup) and SIGUSR1. A
    second one ends the process at once. Outside the main thread nothing is caught.

    Args:
        where: What is running, for the message.
        what: What was kept and how to go on, for the message.
        patient: Whether a second signal is passed over: a launcher sends its own after the one to the whole group.

    Example:
        >>> with interruptible("training", "saved") as poll:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     poll()
        Traceback (most recent call last):
        facekd.errors.Interrupted: training: saved
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if received and not patient:
            raise SystemExit(128 + number)
        received.append(number)

    def poll() -> None:
        if received:
            raise Interrupted(received[0], where, what)

    if threading.current_thread() is not threading.main_thread():
        yield poll
        return
    asked = (signal.SIGTERM, signal.SIGINT)
    heard = [number for number in STOPPING if number in asked or signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, receive) for number in heard}
    try:
        yield poll
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
