"""A run under way: what it rests on, what it tells, and to whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from facekd.data.align import size_doubt
from facekd.engine.evaluation.evaluation_sets import OpenedSet
from facekd.engine.probe import doubt, people_by_label, probe_faces
from facekd.engine.progress import Progress
from facekd.engine.run_folder import RunFolder
from facekd.engine.signals import Poll
from facekd.engine.training.inheritance import CLASS_MEANS
from facekd.engine.training.session import Session
from facekd.engine.training.subset import Subset
from facekd.engine.training.told import Told, read
from facekd.models.embedder import Embedder


@dataclass(frozen=True)
class Listener:
    """Who is told how a run goes.

    Attributes:
        say: Given one line of news.
        step: Given each record that goes to ``metrics.jsonl``, and the steps in all.
        progress: Told how far a preparation is.
    """

    say: Callable[[str], None] = lambda line: None
    step: Callable[[dict[str, Any], int], None] = lambda record, total: None
    progress: Progress | None = None


@dataclass(frozen=True)
class Run:
    """A session with the folder it writes to and those who watch it; of several processes, rank 0 alone is watched.

    Attributes:
        session: The run.
        folder: Its folder.
        sets: What it is measured on.
        listener: Who is told.
        poll: Whether to stop.
        taken: What the steps told whose numbers nobody has read yet.
    """

    session: Session
    folder: RunFolder
    sets: list[OpenedSet]
    listener: Listener
    poll: Poll
    taken: list[Told] = field(default_factory=list)

    def settle(self) -> dict[str, Any]:
        """Read what the steps so far told, for what follows takes the weights as good.

        Returns:
            The record of the last, nothing where it was read before.

        Raises:
            NonFiniteError: One of them was not finite.
        """
        told, self.taken[:] = list(self.taken), []
        return read(told) if told else {}

    def tell(self, line: str) -> None:
        """One line of news, to the log and to the listener."""
        if self.session.world.leads:
            self.folder.log(line)
            self.listener.say(line)

    def record(self, record: dict[str, Any]) -> None:
        """One object for ``metrics.jsonl`` and the listener."""
        if self.session.world.leads:
            self.folder.append(record)
            self.listener.step(record, self.session.plan.total_steps)

    def announce(self) -> None:
        """Tell what the run rests on."""
        session = self.session
        if session.classifier is not None:
            found = session.classifier
            share = f"{found.agreement:.1%} of {found.checked} images nearest to their own class"
            within = ", of which each is a part" if found.source == CLASS_MEANS else ""
            self.tell(f"inherited classifier: {found.source}; {share}{within}")
            for note in found.notes:
                self.tell(f"note: {note}")
        for one in session.subsets:
            self._announce_subset(one)
        if session.plan.projector != "none":
            self.tell(f"projector: {session.plan.projector}")
        if session.series is not None:
            self.tell(session.series.told())
        for note in session.notes:
            self.tell(note)
        doubt = size_doubt(*session.source.read(0).shape[:2])
        if doubt:
            self.tell(f"warning: {doubt}")
        teacher = session.teacher.warnings if session.teacher is not None else ()
        for told in [session.source.warnings, teacher, *(opened.warnings for opened in self.sets)]:
            for warning in told:
                self.tell(f"warning: {warning}")

    def write_down(self) -> None:
        """Record what the run rests on; once a resume was accepted, for a refused one must not change what is said."""
        session = self.session
        if not session.world.leads:
            return
        facts: dict[str, Any] = {"plan": session.plan.as_dict(), **session.facts()}
        if session.classifier is not None:
            found = session.classifier
            facts["inherited_classifier"] = {
                "source": found.source,
                "agreement": found.agreement,
                "checked_images": found.checked,
            }
        self.folder.record_environment(session.device, facts)

    def _announce_subset(self, subset: Subset) -> None:
        line = f"subset {subset.section.name}: {len(subset.source.names)} identities, {len(subset.source)} images"
        found = subset.classifier
        if found is not None:
            share = f"{found.agreement:.1%} of {found.checked} images nearest to their own class"
            line += f"; classifier: {found.source}; {share}"
        self.tell(line)
        for note in () if found is None else found.notes:
            self.tell(f"note: {note}")
        for warning in subset.teacher.warnings:
            self.tell(f"warning: {warning}")

    def doubt_teacher(self, teacher: Embedder) -> None:
        """Look whether a teacher whose file does not say how it sees would tell these people apart better otherwise."""
        source = self.session.source
        found = probe_faces(teacher, source.read, people_by_label(source.labels), poll=self.poll)
        told = None if found is None else doubt(teacher, found)
        if told:
            self.tell(f"warning: {told}")
