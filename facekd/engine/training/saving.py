"""The models a run leaves: its student, snapshots of it, and the classifier it was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from facekd.engine.run_folder import RunFolder
from facekd.engine.training.run import Run
from facekd.engine.training.session import Session, provenance
from facekd.engine.training.snapshots import Snapshot, add_snapshot, is_due, snapshot_file
from facekd.engine.training.split import Ask
from facekd.engine.uncertainty import save_uncertainty
from facekd.files import disk_errors
from facekd.models.weights import save_classifier, save_model


def keep_snapshot_if_due(run: Run) -> None:
    """Keep the weights of the epoch just ended, where the recipe wants them; those already kept stand."""
    session, folder = run.session, run.folder
    train, per_epoch = session.recipe.train, session.plan.steps_per_epoch
    due = is_due(session.step, steps_per_epoch=per_epoch, epochs=train.epochs, every=train.snapshot_every)
    if not due or not session.world.leads:
        return
    epoch, manifest = session.step // per_epoch, folder.snapshots(train.epochs)
    if manifest.at(epoch) is None:
        run.settle()
        snapshot = Snapshot(epoch, session.step, snapshot_file(epoch), "", session.architecture.width)
        digest = _save_student(session, manifest.place(snapshot))
        add_snapshot(manifest, replace(snapshot, sha256=digest))


def save_deployed(session: Session, folder: RunFolder) -> None:
    """Write the student of the run, and beside it what says how sure it is."""
    save_uncertainty(session, folder.uncertainty, _save_student(session, folder.student))


def _save_student(session: Session, path: Path) -> str:
    """Write the weights that would be deployed; their digest."""
    student = session.recipe.student
    with disk_errors(path):
        path.parent.mkdir(exist_ok=True)
        return save_model(
            path,
            session.deployed,
            backbone=student.backbone,
            embedding_size=session.architecture.width,
            options=student.options,
            preprocessing=session.preprocessing,
            extra=provenance(session),
        )


def save_classifier_used(session: Session, folder: RunFolder, ask: Ask) -> None:
    """Write the classifier that goes with the student, where there is one.

    Args:
        session: The run.
        folder: Its folder.
        ask: Of the other processes, for the classes of a classifier in training that they hold.
    """
    objective, trained = session.objective, session.trained_classifier(ask)
    if trained is not None:
        save_classifier(folder.classifier, trained, session.source.names, "trained")
    elif objective.inherited is not None and session.classifier is not None and objective.projector is None:
        whole = objective.share is None
        rows = objective.inherited.class_weights.detach().cpu() if whole else session.classifier.class_weights
        save_classifier(folder.classifier, rows, session.source.names, session.classifier.source)
