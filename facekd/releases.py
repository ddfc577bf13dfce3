"""The least releases of libraries that open strangers' files: older ones have known holes that facekd cannot close."""

from __future__ import annotations

import re

from facekd.errors import FacekdError

LEAST = {
    "torch": ("2.10", "a checkpoint can corrupt memory while it loads, CVE-2026-24747"),
    "onnx": ("1.21", "a model file can reach other files, CVE-2026-27489 and CVE-2026-34446"),
}
"""Each library's first release without the hole, and what the hole is in those before."""


def require_safe_releases() -> None:
    """Refuse a library that is older than :data:`LEAST` says; none is imported, and one that is absent passes.

    Raises:
        FacekdError: Names the release that is installed, the least one and why.

    Example:
        >>> require_safe_releases()
    """
    from importlib.metadata import PackageNotFoundError, version

    for library, (least, why) in LEAST.items():
        try:
            installed = version(library)
        except PackageNotFoundError:
            continue
        if _numbers(installed) < _numbers(least):
            what = f"{installed} is installed, {least} is the least: in older ones {why}"
            raise FacekdError(library, what, f"pip install '{library}>={least}'")


def _numbers(release: str) -> tuple[int, ...]:
    """Major and minor number.

    Example:
        >>> _numbers("2.9.1+cu132") < _numbers("2.10.0a0")
        True
    """
    return tuple(int(number) for number in re.findall(r"\d+", release)[:2])
