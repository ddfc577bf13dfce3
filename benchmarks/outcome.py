"""What comes of runs that are broken on purpose."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Outcome:
    """What came of the trials of one kind.

    Attributes:
        trials: How many.
        identical: Those that ended with the bits of the unbroken run, and of which nothing was wrong before.
        unresumable: Those that could not be gone on with.
        wrong: What happened to the others, or was said that should not be.
        slowest: Seconds of the slowest answer to a signal.
    """

    trials: int = 0
    identical: int = 0
    unresumable: int = 0
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def add(self, other: Outcome) -> None:
        """Count another one's trials among these."""
        self.trials += other.trials
        self.identical += other.identical
        self.unresumable += other.unresumable
        self.wrong += other.wrong
        self.slowest = max(self.slowest, other.slowest)
