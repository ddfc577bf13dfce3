"""The processes that load images: what each took up last, the signals they leave alone, and how their ends are told."""

from __future__ import annotations

import os
import re
import signal
import threading
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Protocol, TypeVar

import torch
from torch.utils.data import Dataset, get_worker_info

from facekd.data.images import shown
from facekd.errors import STOPPING, DeviceError

_DEAD_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([0-9, ]+)\)(?: is killed by signal: ([^.]+))?")
_NO_ROOM = ("No space left on device", "unable to allocate shared memory", "unable to write to file </torch_")

T_co = TypeVar("T_co", covariant=True)


class Loaded(Protocol[T_co]):
    """What loading processes index by epoch and image."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int]) -> T_co: ...

    def name_of(self, index: int) -> str:
        """What image ``index`` is called in messages."""


class WatchedImages(Dataset):
    """The images, and in shared memory which of them each loading process took up last."""

    def __init__(self, images: Loaded, workers: int) -> None:
        self.images = images
        self.taken = torch.full((workers, 2), -1)  # process and image of each worker
        if workers:
            with full_memory_named():
                self.taken.share_memory_()

    def __getitem__(self, key: tuple[int, int]) -> object:
        worker = get_worker_info()
        if worker is not None:
            self.taken.numpy()[worker.id] = os.getpid(), key[1]
        return self.images[key]

    def last_of(self, process: int) -> str | None:
        """What the image that a process took up last is called; None where it took up none."""
        found = [index for worker, index in self.taken.tolist() if worker == process]
        return shown(self.images.name_of(found[0])) if found else None


under_way: list[WatchedImages] = []
"""Of the loops that run now: the death of a worker is told wherever this process happens to be, outside them too."""


def leave_signals_to_parent(worker: int) -> None:
    """A signal to the process group stops the run between two steps; the loader ends its workers after that."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def deaths_unheeded() -> Iterator[None]:
    """Keep the loader's answer to the end of a process, an exception wherever this one happens to be, from a block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, previous)


@contextmanager
def full_memory_named() -> Iterator[None]:
    """Tell in one line that the memory through which loading processes hand images over is full.

    Raises:
        DeviceError: It is.

    Example:
        >>> with full_memory_named():
        ...     raise OSError(28, "No space left on device")
        Traceback (most recent call last):
        facekd.errors.DeviceError: shared memory: is full; loading processes hand images over through it (set \
train.workers=0, or give /dev/shm more room, in docker by --shm-size)
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if not any(text in str(error) for text in _NO_ROOM):
            raise
        fix = "set train.workers=0, or give /dev/shm more room, in docker by --shm-size"
        what = "is full; loading processes hand images over through it"
        raise DeviceError("shared memory", what, fix) from None


@contextmanager
def dead_workers_named(workers: Collection[BaseProcess] = ()) -> Iterator[None]:
    """Tell the death of a loading process in one line; it is met wherever this process happens to be.

    Args:
        workers: Processes whose death may also show as a broken connection to them.

    Raises:
        DeviceError: A worker was killed or ended by itself; names the image it had taken up.

    Example:
        >>> with dead_workers_named():
        ...     raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
        Traceback (most recent call last):
        facekd.errors.DeviceError: loading process 7: was killed (Killed), likely for want of memory (lower \
train.workers or train.batch_size, then go on with --resume)
    """
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        dead = _dead_worker(error, workers)
        if dead is None:
            raise
        traceback.clear_frames(error.__traceback__)  # they would keep the loader, and with it the other workers
        processes, what = dead
        fix = "lower train.workers or train.batch_size, then go on with --resume"
        what = f"{what}, likely for want of memory{_last_file(processes)}"
        raise DeviceError(f"loading process {processes}", what, fix) from None


def _last_file(processes: str) -> str:
    names = (watched.last_of(int(process)) for watched in under_way for process in processes.split(","))
    return next((f"; its last file: {name}" for name in names if name is not None), "")


def _dead_worker(error: Exception, workers: Collection[BaseProcess]) -> tuple[str, str] | None:
    """Numbers of the workers an error tells the death of, and how; None where it tells of something else."""
    found = _DEAD_WORKER.search(f"{error.__cause__} {error}")  # the cause names the signal, where it is known
    if found:
        return found[1], f"was killed ({found[2]})" if found[2] else "ended unexpectedly"
    ended = wait([worker.sentinel for worker in workers], timeout=1) if workers else []
    for worker in workers:
        if worker.sentinel in ended:
            worker.join(timeout=1)
            code = worker.exitcode or 0
            how = f"was killed ({signal.strsignal(-code)})" if code < 0 else "ended unexpectedly"
            return str(worker.pid), how
    return None
