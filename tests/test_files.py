"""Files are whole or absent, and a second writer is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lock_holder import held

from facekd.errors import DeviceError, UsageError
from facekd.files import append_line, file_digest, locked, remove_left, remove_unfinished, write_atomic, write_json


def test_write_atomic__returns_the_digest_of_what_stands(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert write_atomic(path, lambda p: p.write_bytes(b"one")) == file_digest(path)


def test_remove_left__of_this_file_and_of_processes_that_are_gone(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name in (f"a.tmp.{gone.pid}", f"a.tmp.{os.getpid()}", f"b.tmp.{gone.pid}", "a.tmp.x", "a"):
        (tmp_path / name).touch()
    remove_left(tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == sorted([f"a.tmp.{os.getpid()}", f"b.tmp.{gone.pid}", "a.tmp.x", "a"])


def test_write_atomic__failure_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def half(temporary: Path) -> None:
        temporary.write_bytes(b"ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(DeviceError, match="No space left on device"):
        write_atomic(path, half)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_write_json__in_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot be written"):
        write_json(tmp_path / "none" / "a.json", {})


def test_locked__refuses_a_second_living_process(tmp_path: Path) -> None:
    with held(tmp_path) as other:
        with pytest.raises(UsageError, match=f"process {other.pid} is training here"), locked(tmp_path, "training"):
            pass
        assert (tmp_path / ".lock").read_text() == str(other.pid)
    with locked(tmp_path, "training"):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())
    assert not (tmp_path / ".lock").exists()


def test_locked__takes_over_from_a_killed_process(tmp_path: Path) -> None:
    with held(tmp_path) as other:
        other.kill()
        other.wait()
        assert (tmp_path / ".lock").exists()
        with locked(tmp_path, "training"):
            assert (tmp_path / ".lock").read_text() == str(os.getpid())
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("left", ["1", str(os.getppid()), "", "no number", "9" * 30])
def test_locked__a_file_that_nobody_holds_is_no_lock(tmp_path: Path, left: str) -> None:
    (tmp_path / ".lock").write_text(left)
    with locked(tmp_path, "training"):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


RACE = """
import sys
from pathlib import Path
from facekd.errors import UsageError
from facekd.files import locked
folder, taken = Path(sys.argv[1]), 0
while taken < 40:
    try:
        with locked(folder, "counting"):
            count = folder / "count"
            count.write_text(str(int(count.read_text()) + 1))
            taken += 1
    except UsageError:
        continue
"""


def test_locked__one_at_a_time_however_many_try(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    racers = [subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path)]) for _ in range(3)]
    assert [racer.wait(timeout=60) for racer in racers] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "120"


@pytest.mark.parametrize(("there", "after"), [(b"", "new\n"), (b"old\n", "old\nnew\n"), (b"ha", "ha\nnew\n")])
def test_append_line__ends_a_line_that_was_cut_off(tmp_path: Path, there: bytes, after: str) -> None:
    (tmp_path / "log").write_bytes(there)
    append_line(tmp_path / "log", "new", durable=True)
    assert (tmp_path / "log").read_text() == after


def test_remove_unfinished__leaves_whole_files(tmp_path: Path) -> None:
    for name in ("a.json", "a.json.tmp.17", "b.tmp.1"):
        (tmp_path / name).write_text("x")
    remove_unfinished(tmp_path)
    assert os.listdir(tmp_path) == ["a.json"]
