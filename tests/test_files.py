"""Files are whole or absent, and a second writer is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from facekd.errors import DeviceError, UsageError
from facekd.files import file_digest, locked, write_atomic, write_json


def test_write_atomic__returns_the_digest_of_what_stands(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert write_atomic(path, lambda p: p.write_bytes(b"one")) == file_digest(path)


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
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (tmp_path / ".lock").write_text(str(other.pid))
        with pytest.raises(UsageError, match=f"process {other.pid} is training here"), locked(tmp_path, "training"):
            pass
    finally:
        other.communicate(b"\n")


def test_locked__takes_over_from_a_dead_process(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / ".lock").write_text(str(dead.pid))
    with locked(tmp_path, "training"):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())
    assert not (tmp_path / ".lock").exists()
