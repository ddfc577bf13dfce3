"""The exception tree: every refusal is one line saying where, what, and how to mend it."""

from __future__ import annotations

import signal
from collections.abc import Sequence


class FacekdError(Exception):
    """A refusal a user can act on; anything else that escapes is a bug.

    Args:
        where: File, record, line or key the problem was met at.
        what: What is wrong, with the offending value.
        fix: What to do about it; shown in parentheses.

    Example:
        >>> print(FacekdError("pairs.txt:7", "2 fields", "write 3 or 4"))
        pairs.txt:7: 2 fields (write 3 or 4)
    """

    exit_code = 2

    def __init__(self, where: str, what: str, fix: str = "") -> None:
        self.where, self.what, self.fix = where, what, fix
        super().__init__(f"{where}: {what} ({fix})" if fix else f"{where}: {what}")

    def __reduce__(self) -> tuple:
        return type(self), (self.where, self.what, self.fix)

    @property
    def lines(self) -> list[str]:
        """The messages to print, one problem a line."""
        return [" ".join(str(self).split())]


class UsageError(FacekdError):
    """Options that contradict each other or name something that does not exist."""


class RecipeError(FacekdError):
    """A recipe that cannot be run; carries every problem found, not only the first.

    Args:
        problems: One ``FILE:LINE: key.path: what (fix)`` message per problem.

    Example:
        >>> RecipeError(["a.yaml:1: x: unknown key", "a.yaml:2: y: unknown key"]).lines
        ['a.yaml:1: x: unknown key', 'a.yaml:2: y: unknown key']
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        Exception.__init__(self, "\n".join(self.problems))

    def __reduce__(self) -> tuple:
        return type(self), (self.problems,)

    @property
    def lines(self) -> list[str]:
        return [" ".join(problem.split()) for problem in self.problems]


class InputError(FacekdError):
    """An input file (pairs, list, image folder, model) that cannot be used."""


class CheckpointError(InputError):
    """A checkpoint or run folder that is missing, damaged or of another run."""


class ContradictionError(InputError):
    """A model file says of its images what the user says otherwise."""


class DataError(FacekdError):
    """Bad data met while running: an image that does not decode, say."""

    exit_code = 3


class NonFiniteError(FacekdError):
    """A NaN or infinity in a loss term, gradient or weight."""

    exit_code = 4


class DeviceError(FacekdError):
    """Disk or device trouble: no space, no permission, no such accelerator."""

    exit_code = 5


class RequirementError(FacekdError):
    """A demand that was not met: ``--require``, or the parity gate of an export."""

    exit_code = 1


class ExportError(RequirementError):
    """An exported file that does not equal its model."""


STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
"""Signals that ask a process to stop: of a supervisor, Ctrl-C, the end of its terminal, a queue before its limit."""


class Interrupted(FacekdError):
    """A signal ended the run after its state was saved.

    Args:
        signal_number: The signal met; the exit code is 128 plus it.
        where: What was running.
        what: What was saved and how to go on.
    """

    def __init__(self, signal_number: int, where: str, what: str) -> None:
        super().__init__(where, what)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number

    def __reduce__(self) -> tuple:
        return type(self), (self.signal_number, self.where, self.what)


class LostProcess(FacekdError):
    """Another process of a distributed run is gone, and with it what they were doing together."""

    exit_code = 5


class Elsewhere(FacekdError):
    """A refusal that another process of a distributed run meets and tells; this one ends in silence.

    Args:
        rank: Of the process that tells it.
        size: Processes of the run.
        code: Exit code of its error.

    Example:
        >>> error = Elsewhere(1, 2, 3)
        >>> error.lines, error.exit_code
        ([], 3)
    """

    def __init__(self, rank: int, size: int, code: int) -> None:
        super().__init__(f"process {rank} of {size}", "met an error, which it tells")
        self.rank, self.size, self.exit_code = rank, size, code

    def __reduce__(self) -> tuple:
        return type(self), (self.rank, self.size, self.exit_code)

    @property
    def lines(self) -> list[str]:
        return []
