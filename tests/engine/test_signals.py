"""A run that is asked to stop ends between two steps, whoever asks."""

from __future__ import annotations

import signal

import pytest

from facekd.engine.signals import interruptible
from facekd.errors import Interrupted

ASKING = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")


@pytest.mark.parametrize("name", ASKING)
def test_each_signal_is_heard_once__and_a_second_one_ends_the_process(name: str) -> None:
    number = getattr(signal, name)
    was = signal.signal(number, signal.SIG_DFL)  # whoever started the tests may pass over the end of a terminal
    with interruptible("run", "saved") as poll:
        poll()
        signal.raise_signal(number)
        with pytest.raises(Interrupted, match="run: saved") as caught:
            poll()
        assert caught.value.exit_code == 128 + number
        with pytest.raises(SystemExit) as second:
            signal.raise_signal(signal.SIGTERM)
        assert second.value.code == 143
    assert signal.signal(number, was) is signal.SIG_DFL


def test_a_second_signal_is_passed_over_by_the_patient() -> None:
    with interruptible("run", "saved", patient=True) as poll:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            poll()


def test_the_end_of_the_terminal_is_passed_over_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible("run", "saved") as poll:
            signal.raise_signal(signal.SIGHUP)
            poll()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
