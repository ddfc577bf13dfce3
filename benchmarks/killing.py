"""A process that trains and dies where it is told to: the child of the kill harness.

The parent imports torch once and forks a child for each run. Inside the child every step that changes the disk, below
the folder of the trial, is an event: before, amid and after each write, before and after each fsync, before each
opening for writing, rename, removal and new folder. So is each call of :data:`CALLS`. The child sends itself a signal
at the event it was given, or meets a full disk after so many bytes.
"""

from __future__ import annotations

import builtins
import errno
import importlib
import io
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

AUDITED = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
CALLS = (
    ("facekd.data.loading", "TrainingImages", "__getitem__", "in the loader"),
    ("facekd.models.embedder", "TorchEmbedder", "embed", "in the cache or an evaluation"),
    ("facekd.engine.training.trainer", "", "take_step", "before a step"),
)
"""Module, class if any, function, and what a call of it is called."""
CRASHED = 99
"""Exit code of a child that met an error which is none of facekd's."""


@dataclass
class Trap:
    """What awaits a child.

    Attributes:
        folder: Events count below it.
        at: The event to be struck at, from 1; none for 0.
        near: A part of a path: struck at the first event there.
        number: The signal that strikes.
        told: Where the moment of the stroke is written, by the system's clock that all processes share.
        room: Bytes that can be written before the disk is full; None for any number.
        events: Events so far.
        written: Bytes so far.
        seen: The kinds of events, for the record.
    """

    folder: str
    at: int = 0
    near: str = ""
    number: int = signal.SIGKILL
    told: str = ""
    room: int | None = None
    events: int = 0
    written: int = 0
    seen: dict[str, int] = field(default_factory=dict)

    def event(self, kind: str, path: object = "") -> None:
        """One more event; the last of a process that was told to die here."""
        self.events += 1
        self.seen[kind] = self.seen.get(kind, 0) + 1
        near = bool(self.near) and self.near in str(path)
        if self.events == self.at or near:
            self.near = ""
            if self.told:
                file = os.open(self.told, os.O_WRONLY | os.O_CREAT)
                os.write(file, repr(time.monotonic()).encode())
                os.close(file)
            os.kill(os.getpid(), self.number)


class Stream:
    """A file being written, half by half, so that a process can die within a write.

    Args:
        stream: The file.
        trap: Told of each half.
    """

    def __init__(self, stream: IO[Any], trap: Trap) -> None:
        self._stream, self._trap = stream, trap

    def write(self, data: Any) -> int:
        """Write, dying or running out of room where the trap says."""
        if not isinstance(data, str):
            data = bytes(data)
        trap = self._trap
        trap.event("before a write")
        if trap.room is not None and trap.written + len(data) > trap.room:
            self._stream.write(data[: max(0, trap.room - trap.written)])
            self._stream.flush()
            trap.written = trap.room
            raise OSError(errno.ENOSPC, "No space left on device")
        trap.written += len(data)
        half = len(data) // 2
        self._stream.write(data[:half])
        self._stream.flush()
        trap.event("amid a write")
        self._stream.write(data[half:])
        self._stream.flush()
        trap.event("after a write")
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *problem: object) -> None:
        self._stream.close()


def arm(trap: Trap) -> None:
    """Make this process count its events; for a child that ends soon, as it cannot be undone."""
    plain_open, plain_sync = builtins.open, os.fsync
    inside = trap.folder + os.sep

    def traps(path: object) -> bool:
        return isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(inside)

    def opening(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        writing = any(letter in mode for letter in "wax+")
        if not (writing and traps(file)):
            return plain_open(file, mode, *arguments, **named)
        trap.event("before an opening", file)
        return Stream(plain_open(file, mode, *arguments, **named), trap)

    def syncing(descriptor: int) -> None:
        trap.event("before an fsync")
        plain_sync(descriptor)
        trap.event("after an fsync")

    def hear(event: str, arguments: tuple) -> None:
        if event in AUDITED and traps(arguments[0]):
            trap.event(f"before {event}")

    for module, owner, name, kind in CALLS:
        place = importlib.import_module(module)
        _announce(getattr(place, owner) if owner else place, name, kind, trap)
    builtins.open = io.open = opening  # type: ignore[assignment]
    os.fsync = syncing
    sys.addaudithook(hear)


def _announce(place: Any, name: str, kind: str, trap: Trap) -> None:
    plain = getattr(place, name)

    def announced(*arguments: Any, **named: Any) -> Any:
        trap.event(kind)
        return plain(*arguments, **named)

    setattr(place, name, announced)


def fork(run: Callable[[], object], log: Path) -> int:
    """Run something in a child, its output in a file; the process number.

    The exit code is 0, that of one of facekd's errors or of Ctrl-C, or :data:`CRASHED`.
    """
    from facekd.errors import FacekdError

    process = os.fork()
    if process:
        return process
    code = CRASHED
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts this may pass over both
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.stdout = sys.stderr = builtins.open(log, "a", buffering=1)  # noqa: SIM115 - until the child ends
        run()
        code = 0
    except FacekdError as error:
        print("\n".join(f"facekd: error: {line}" for line in error.lines), file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:  # before facekd listens; its command line answers so
        code = 128 + signal.SIGINT
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(process: int) -> int:
    """How a child ended: its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
