"""Long writing that goes on where it stopped: in a folder beside what it makes, which appears by a rename.

``OUT.partial`` holds what is written so far, ``job.json`` (what is being made, from what) and ``state.json`` (how many
items are done and how long each file was then). Files only grow; whatever lies beyond the recorded length is cut off
when the work goes on, so a killed process, or a machine that lost power, costs the items since the last record.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from facekd.data.images import shown
from facekd.engine.progress import Progress
from facekd.engine.signals import Poll
from facekd.errors import DeviceError, InputError, UsageError
from facekd.files import disk_errors, locked, sync_folder, write_json

EVERY = 2000
"""Items between two records of how far the work is."""

Job = Mapping[str, str | int | bool | None]
"""What is being made and from what; values of the same job are equal."""


@dataclass(frozen=True)
class Watched:
    """Who is told of the work, and who may stop it.

    Attributes:
        progress: Told about each item.
        poll: Called before each item; may raise to stop.
    """

    progress: Progress | None = None
    poll: Poll | None = None


class GrowingFile:
    """A file that is written at its end only.

    Args:
        folder: Of the work.
        name: Below it; made when it does not exist.
        size: Length it is cut back to first.

    Raises:
        InputError: It is shorter than that.
    """

    def __init__(self, folder: Path, name: str, size: int) -> None:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        self._stream = open(path, "r+b" if path.exists() else "w+b")  # noqa: SIM115
        found = self._stream.seek(0, os.SEEK_END)
        if found < size:
            self._stream.close()
            what = f"{found} bytes instead of the {size} that were written"
            raise InputError(shown(path), what, f"remove {shown(folder)} to start anew")
        self._stream.truncate(size)
        self._stream.seek(size)
        self.size, self.name, self.path = size, name, path

    def write(self, data: bytes) -> None:
        """Append."""
        self._stream.write(data)
        self.size += len(data)

    def sync(self) -> None:
        """Make everything written durable."""
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back."""
        self._stream.close()


class Partial:
    """The folder of unfinished work.

    Args:
        folder: An existing folder.

    Attributes:
        folder: Where to write.
        done: Items finished.

    Raises:
        InputError: What is recorded of the work cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found = _read(folder / "state.json")
        state: dict[str, Any] = {"done": 0, "sizes": {}} if found is None else found
        sizes = state.get("sizes")
        if not isinstance(sizes, dict) or not all(map(_is_count, (state.get("done"), *sizes.values()))):
            raise _unreadable(folder / "state.json", "does not say how far the work is")
        self.done: int = state["done"]
        self._sizes: dict[str, int] = dict(sizes)

    def open(self, name: str) -> GrowingFile:
        """A file of the work, as long as it was when its state was recorded."""
        return GrowingFile(self.folder, name, self._sizes.get(name, 0))

    def work(
        self,
        count: int,
        step: Callable[[int], None],
        files: Sequence[GrowingFile],
        watched: Watched,
        *,
        phase: str,
        loose: bool = False,
    ) -> None:
        """Do items ``done`` to ``count - 1``, recording the state now and again and whenever this ends.

        Args:
            count: Items in all.
            step: Does one; what it writes outside ``files`` must be the same when it is done again.
            files: What it appends to.
            watched: Progress and stopping.
            phase: What to call the work.
            loose: Whether ``step`` writes files of its own, which must be durable before they count as done.
        """
        sizes = {file.name: file.size for file in files}
        try:
            for index in range(self.done, count):
                if watched.poll is not None:
                    watched.poll()
                step(index)
                self.done, sizes = index + 1, {file.name: file.size for file in files}
                if self.done % EVERY == 0:
                    self._record(sizes, files, loose)
                if watched.progress is not None:
                    watched.progress(phase, self.done, count)
        except BaseException:
            with suppress(Exception):
                self._record(sizes, files, loose)
            raise
        self._record(sizes, files, loose)

    def _record(self, sizes: dict[str, int], files: Sequence[GrowingFile], loose: bool) -> None:
        for file in files:
            file.sync()
        if loose and hasattr(os, "sync"):
            os.sync()
        self._sizes = sizes
        write_json(self.folder / "state.json", {"done": self.done, "sizes": sizes})


@contextmanager
def partial_work(out: Path, job: Job) -> Iterator[Partial]:
    """The work on ``out``: begun, or gone on with if it is the same job.

    Args:
        out: What is being made.
        job: What makes it what it is: source, digest, options.

    Raises:
        UsageError: Another job's work is there, or another process is at it.
        InputError: What is recorded of the work cannot be read.
        DeviceError: The disk refuses.
    """
    folder = out.with_name(f"{out.name}.partial")
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)
    with locked(folder, f"writing {out.name}"):
        begun = _read(folder / "job.json")
        if begun is None:
            write_json(folder / "job.json", dict(job))
        elif begun != dict(job):
            keys = [key for key in dict.fromkeys([*begun, *job]) if begun.get(key) != job.get(key)]
            there, here = ({key: values.get(key) for key in keys} for values in (begun, job))
            what = f"holds unfinished work with {_told(there)}; this is {_told(here)}"
            raise UsageError(shown(folder), what, "repeat that command to finish it, or remove the folder")
        try:
            with disk_errors(out):
                yield Partial(folder)
        except DeviceError as error:
            raise DeviceError(error.where, error.what, "mend that, then repeat the command: it goes on") from error
    shutil.rmtree(folder, ignore_errors=True)


def move(source: Path, target: Path) -> None:
    """Give finished work its name; a folder of that name goes first into the folder of the work.

    Raises:
        OSError: The disk refuses.
    """
    if target.is_dir():
        os.replace(target, source.with_name(f"{source.name}.replaced"))
    os.replace(source, target)
    sync_folder(target.absolute().parent)


def _told(values: Mapping[str, object]) -> str:
    short = {key: str(value)[:12] if key == "digest" else str(value) for key, value in values.items()}
    return ", ".join(f"{key.replace('_', ' ')} {shown(value)}" for key, value in short.items())


def _read(path: Path) -> dict | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, f"cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise _unreadable(path, "is no record of unfinished work")
    return found


def _unreadable(path: Path, what: str) -> InputError:
    return InputError(shown(path), what, "remove the folder to start anew")


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0
