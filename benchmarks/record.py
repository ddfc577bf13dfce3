"""How a benchmark hands over what it measured."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import facekd
from facekd.files import write_json


def hand_over(record: Mapping[str, Any], out: Path | None) -> None:
    """Print a record as JSON, and keep it in a file where one is named.

    Args:
        record: What was measured.
        out: The file, written whole or not at all.

    Example:
        >>> hand_over({"images": 2}, None)
        {
          "images": 2
        }
    """
    sys.stdout.write(json.dumps(record, indent=2) + "\n")
    if out is not None:
        write_json(out, record)


def surroundings(*packages: str) -> dict[str, Any]:
    """Where and with what something is measured, as a record tells it: the machine, and versions.

    Args:
        packages: Distributions whose versions matter, beside facekd and Python.

    Example:
        >>> list(surroundings("numpy")["versions"])
        ['facekd', 'python', 'numpy']
    """
    versions = {"facekd": facekd.__version__, "python": platform.python_version()}
    versions |= {name: version(name) for name in packages}
    return {"machine": f"{platform.machine()} {platform.system()}", "versions": versions}
