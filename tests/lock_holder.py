"""Another process that holds a folder, for tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOLD = """
import sys
from pathlib import Path
from facekd.files import locked
with locked(Path(sys.argv[1]), "training"):
    print("held", flush=True)
    input()
"""


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen]:
    """Another process holds the folder."""
    words = [sys.executable, "-c", HOLD, str(folder)]
    other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        yield other
    finally:
        if other.poll() is None:
            other.communicate("\n")
