"""The form of every refusal: what the tables of bad inputs share.

A case is told by its number in the list of bad inputs, what lies on disk, the command, and the one line it must answer.
"""

from __future__ import annotations

import os
import platform
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from click.testing import CliRunner, Result
from facekd_cli.main import cli
from random_model import save_random_model

from facekd.data.images import encode_jpeg, encode_png
from facekd.files import file_digest

RECIPE = """\
name: tiny
student: {backbone: resnet_tiny, embedding_size: 8, input_size: 32, options: {channels: "4,8", blocks: "1,1"}}
data: {source: folder, path: faces}
losses:
  - {name: margin_softmax, scale: 8.0, margin: 0.2}
optimizer: {learning_rate: 0.05}
train: {epochs: 1, batch_size: 6, log_every: 100}
"""
MET_IN_A_RUN = 3
"""Exit code of bad data that a run met after it told how it begins."""
TRAIN = ["train", "r.yaml", "--out", "out", "--device", "cpu"]
FORBIDDEN_EVENTS = {
    *("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn"),
    *("subprocess.Popen", "pickle.find_class", "shutil.unpack_archive", "webbrowser.open", "urllib.Request"),
    *("socket.__new__", "socket.bind", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"),
}

_told: list[str] = []
_watching: list[bool] = []


class Case(NamedTuple):
    """One bad input.

    Attributes:
        number: Its number in the list, and a word.
        make: Writes it into the working folder; answers the words of the command.
        line: Pattern of the line on stderr; of what is said where the code is 0.
        code: The exit code.
        lines: Lines in all: a recipe tells each of its problems; None for any number of them.
        shown: Pattern of what a refused command said on stdout before; where empty, it must have been silent, but for
            a run that had begun.
    """

    number: str
    make: Callable[[Path], Sequence[str]]
    line: str
    code: int = 2
    lines: int | None = 1
    shown: str = ""


def _hear(event: str, arguments: tuple) -> None:
    if _watching and event in FORBIDDEN_EVENTS:
        _told.append(f"{event} {arguments[:2]}")


platform.processor()  # asks the system once, by starting uname, and remembers
sys.addaudithook(_hear)


@contextmanager
def watched() -> Iterator[list[str]]:
    """What the block started or connected to: processes, programs, sockets."""
    _told.clear()
    _watching.append(True)
    try:
        yield _told
    finally:
        _watching.pop()


@cache
def face(identity: int, sample: int, side: int = 32, jpeg: bool = False) -> bytes:
    """An image with the colours of its identity."""
    pattern = np.random.default_rng(identity).integers(0, 256, (4, 4, 3)).repeat(side // 4, 0).repeat(side // 4, 1)
    noise = np.random.default_rng([identity, sample]).normal(0, 20, pattern.shape)
    image = np.clip(pattern + noise, 0, 255).astype(np.uint8)
    return encode_jpeg(image) if jpeg else encode_png(image)


def write_faces(folder: Path, identities: int = 3, samples: int = 4) -> Path:
    """An identity folder of PNG files."""
    for identity in range(identities):
        (folder / f"p{identity}").mkdir(parents=True)
        for sample in range(samples):
            (folder / f"p{identity}" / f"{sample}.png").write_bytes(face(identity, sample))
    return folder


def recipe(here: Path, *changes: tuple[str, str]) -> list[str]:
    """Write the recipe with some of its text replaced; the command that trains it."""
    text = RECIPE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (here / "r.yaml").write_text(text)
    return TRAIN


@cache
def model_bytes() -> bytes:
    """A student file of random weights for 32 pixels."""
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(Path(folder, "m"), size=8)
        return Path(folder, "m").read_bytes()


def write_model(path: Path) -> Path:
    """A student file."""
    path.write_bytes(model_bytes())
    return path


def tree(folder: Path) -> dict[str, tuple[int, str]]:
    """Every path below a folder, with kind and mode, and the digest of plain files; nothing else is opened."""
    found = {}
    for at, *names in os.walk(folder):
        for path in (Path(at, name) for name in sum(names, [])):
            mode = path.lstat().st_mode
            found[os.path.relpath(path, folder)] = (mode, file_digest(path) if stat.S_ISREG(mode) else "")
    return found


def changed(before: Mapping[str, tuple[int, str]], after: Mapping[str, tuple[int, str]], case: Case) -> list[str]:
    """What a command did to files that were there: a run may change its own, a refused one add to its log."""
    mine = "here/out" if case.code == 0 else "here/out/log.txt"
    return sorted(path for path in before if after.get(path) != before[path] and not path.startswith(mine))


def answer(case: Case, work: Path) -> Result:
    """Make a case, run its command, and hold the answer to the form every refusal has."""
    (work / "here").mkdir()
    with chdir(work / "here"):
        words = list(case.make(Path()))
    before = tree(work)
    with chdir(work / "here"), watched() as started:
        result = CliRunner().invoke(cli, words)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == case.code, f"{result.exit_code}: {result.stderr or result.stdout}"
    after = tree(work)
    new = {path for path in after.keys() - before if not path.startswith(("here/out", "here/teacher-cache"))}
    assert not new, f"written outside the output folder: {sorted(new)}"
    assert not changed(before, after, case), f"changed or removed: {changed(before, after, case)}"
    assert not started, started
    if case.code:
        told = re.search(case.shown, result.stdout) if case.shown else not result.stdout or case.code == MET_IN_A_RUN
        assert told, result.stdout
        lines = result.stderr.splitlines()
        assert len(lines) == (case.lines or len(lines)), result.stderr
        assert all(line.startswith("facekd: error: ") for line in lines), result.stderr
        assert re.search(case.line, result.stderr), result.stderr
    else:
        assert re.search(case.line, result.output), result.output
    return result
