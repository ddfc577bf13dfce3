"""What a reader of a stranger's file must not do while it reads: heard by an audit hook, and kept from happening.

A hook cannot be taken off a process again; this one is put on once, and hears what comes between :func:`listen` and
:func:`heard`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import CodeType

NEVER = frozenset(
    {
        *("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn"),
        *("subprocess.Popen", "pickle.find_class", "shutil.unpack_archive", "webbrowser.open", "urllib.Request"),
        *("socket.__new__", "socket.bind", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname"),
    }
)
"""Events no reader may cause: programs, pickled calls, connections."""
_WATCHED = NEVER | {"exec"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_read: list[Path] = []
_told: list[str] = []
_installed: list[bool] = []


def _hear(event: str, arguments: tuple) -> None:
    if event == "open":  # by far the most, and seldom to write
        if not arguments[2] & _WRITES or not _read or not _is_outside(arguments[0]):
            return
        event = "open outside the folder of the file"
    elif event not in _WATCHED or not _read or (event == "exec" and not _is_foreign(arguments[0])):
        return
    _told.append(event)
    raise RuntimeError(f"{event} while a file is read")


def _is_outside(path: object) -> bool:
    """Whether a path lies elsewhere than the file that is read; a number is of a file opened before."""
    if not isinstance(path, str | bytes):
        return False
    return not _beside(os.fsdecode(path))


def _is_foreign(code: CodeType) -> bool:
    """Whether code is neither frozen in the interpreter nor of a module's file: made of text, or from the folder."""
    name = code.co_filename
    if name.startswith("<frozen "):
        return False
    return not name.endswith(".py") or _beside(name)


def _beside(name: str) -> bool:
    return os.path.abspath(name).startswith(os.path.join(os.path.abspath(_read[0].parent), ""))


def listen(file: Path) -> None:
    """From here to :func:`heard`, an event that no reader may cause is noted and raises a RuntimeError where it stands.

    Args:
        file: What is read; beside it files may be written.

    Example:
        >>> try:
        ...     listen(Path("trial/a"))
        ...     _ = os.system("true")
        ... except RuntimeError:
        ...     print(heard())
        ('os.system',)
    """
    if not _installed:
        sys.addaudithook(_hear)
        _installed.append(True)
    _read.append(file)


def heard() -> tuple[str, ...]:
    """The names of the events since :func:`listen`, in order; nothing is listened to any more."""
    _read.clear()
    if not _told:
        return ()
    told = tuple(_told)
    _told.clear()
    return told
