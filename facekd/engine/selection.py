"""Measuring the student of a run, and the one figure by which two of its states are compared."""

from __future__ import annotations

from typing import Any

from facekd.engine.session import Session
from facekd.engine.signals import Poll


def evaluate_student(session: Session, poll: Poll) -> list[dict[str, Any]]:
    return []


def figure_of_merit(results: list[dict[str, Any]]) -> float | None:
    return None
