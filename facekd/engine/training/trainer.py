"""The one training loop: a recipe becomes a run folder with a student in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from facekd.data.identities import IdentitySource
from facekd.data.image_folder import ImageFolder
from facekd.data.loading_workers import dead_workers_named
from facekd.engine.probe import says_itself
from facekd.engine.resumable import Watched
from facekd.engine.run_folder import RunFolder
from facekd.engine.signals import interruptible
from facekd.engine.training.build import make_batches, make_caches, make_dataset, make_session, resolve_device
from facekd.engine.training.checkpoint import any_finished, forget_newer, load_checkpoint, save_checkpoint
from facekd.engine.training.compiled import Network, compiled
from facekd.engine.training.distributed import ALONE, World
from facekd.engine.training.plan import Plan, checkpoint_steps, make_plan, open_teacher
from facekd.engine.training.run import Listener, Run
from facekd.engine.training.saving import keep_snapshot_if_due, save_classifier_used, save_deployed
from facekd.engine.training.selection import evaluate_student, figure_of_merit, open_sets
from facekd.engine.training.series import Series, open_series
from facekd.engine.training.sources import open_source
from facekd.engine.training.split import Ask, answer, asking
from facekd.engine.training.step import take_step
from facekd.engine.training.subset import Subset
from facekd.engine.training.subsets import ask_subsets, open_subsets, with_subsets
from facekd.engine.training.teacher import Asking
from facekd.engine.uncertainty import spread_lines
from facekd.errors import DataError, DeviceError, Elsewhere, FacekdError, Interrupted, UsageError
from facekd.files import disk_errors, locked
from facekd.losses.common import on_the_machine
from facekd.models.embedder import Embedder
from facekd.recipe import Recipe, named_files

FINAL_BOOTSTRAP = 1000
SIGNALLED = 128
"""Exit codes above it are those of signals."""


def plan_run(recipe: Recipe, device: str = "auto") -> Plan:
    """The size of a run, from its data and models, without training or writing anything.

    Raises:
        FacekdError: Anything the run itself would refuse before its first step.
    """
    source = open_source(recipe.data)
    return sized(recipe, source, str(resolve_device(device)))[0]


Teachers = tuple[Embedder | None, Series | None, tuple[Subset, ...]]


def sized(recipe: Recipe, source: IdentitySource, device: str) -> tuple[Plan, Teachers]:
    """The size of a run and whom it learns from."""
    teacher = None if recipe.teacher is None else open_teacher(recipe.teacher, device)
    plan = make_plan(recipe, source, teacher)
    subsets = open_subsets(recipe, source, device)
    return with_subsets(plan, recipe, subsets), (teacher, open_series(recipe, plan.epochs_begun, device), subsets)


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    listener: Listener | None = None,
    world: World = ALONE,
) -> list[dict[str, Any]]:
    """Train the student of a recipe.

    Args:
        recipe: What to do.
        out: Run folder.
        resume: Go on from the newest good checkpoint in it.
        overwrite: Replace the run in it.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        listener: Told how it goes, by rank 0.
        world: The processes that train together, all of which call this; all see the same files.

    Returns:
        The results of the final evaluation, one per set of the recipe; none but in rank 0.

    Raises:
        FacekdError: A refusal, non-finite values, a full disk or a signal; what was saved stays good.
    """
    listener = listener if listener and world.leads else Listener()
    with world.together():
        place = resolve_device(world.own_device(device))
        _refuse_folder(recipe, out, resume)
        world.share_of(recipe.train.batch_size)
        source = _opened(recipe, out)
        plan, (teacher, series, subsets) = sized(recipe, source, str(place))
        sets = open_sets(recipe.evaluate)
    with ExitStack() as held:
        folder = RunFolder(out)
        with world.together():
            if world.leads:
                with disk_errors(out):
                    out.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(out, "training"))
            poll = held.enter_context(interruptible(str(out), "stopped; go on with --resume", patient=world.size > 1))
            if world.leads:
                folder.prepare(recipe, resume=resume, overwrite=overwrite)
            dataset = make_dataset(recipe, source)
        beforehand = Asking(out.parent / "teacher-cache", Watched(listener.progress, poll), world)
        caches = make_caches(recipe, dataset, source, teacher, beforehand)
        caches = replace(caches, subsets=ask_subsets(recipe, dataset, subsets, beforehand))
        with world.together():
            share = world.class_share
            session = make_session(recipe, plan, source, dataset, teacher, caches, place, class_share=share)
            session.series = series
        session.join(world)
        run = Run(session, folder, sets, listener, poll)
        with world.together():
            _begin(run, resume)
        with dead_workers_named():
            _loop(run)
        results = _evaluate(run, FINAL_BOOTSTRAP) if sets else []
        with world.together():
            _together(run, _finish)
        return results


def _refuse_folder(recipe: Recipe, out: Path, resume: bool) -> None:
    """Refuse a run folder that would be made for nothing, or would replace what the run reads."""
    if out.exists() and not out.is_dir():
        raise UsageError(str(out), "is a file, not a folder", "choose another --out")
    if resume and not (out / "recipe.yaml").exists():
        raise UsageError(str(out), "holds no run to resume", "leave out --resume")
    for key, named in named_files(recipe).items():
        read, here = Path(named).resolve(), out.resolve()
        if read == here or here in read.parents:
            raise UsageError(str(out), f"is or holds what the run reads: {key}: {named}", "choose another --out")


def _opened(recipe: Recipe, out: Path) -> IdentitySource:
    """The training images; a run folder among their people is refused, of whom it would be one from the next run on."""
    source, faces = open_source(recipe.data), recipe.data.path
    if isinstance(source, ImageFolder) and faces and Path(faces).resolve() in out.resolve().parents:
        raise UsageError(str(out), f"lies among the people of data.path: {faces}", "choose an --out beside it")
    return source


def _begin(run: Run, resume: bool) -> None:
    """Tell what the run is, take up where it stopped or doubt its teacher, and write down what it rests on."""
    leads, teacher = run.session.world.leads, run.session.teacher
    if leads:
        run.announce()
    if resume:
        _resume(run)
    elif leads and teacher is not None and not says_itself(teacher):
        run.doubt_teacher(teacher)
    run.write_down()


def _resume(run: Run) -> None:
    session, folder = run.session, run.folder
    if not any_finished(folder.checkpoints):
        run.tell("no checkpoint was written yet; starting at step 0")
        if session.world.leads:
            folder.rewind(0, 0)
        return
    saved, passed_over = load_checkpoint(folder.checkpoints)
    warnings = session.restore(saved)
    if session.world.leads:
        forget_newer(folder.checkpoints, session.step)
        folder.rewind(session.step, session.evaluated)
    for line in [*passed_over, *warnings, f"resumed at step {session.step} of {session.plan.total_steps}"]:
        run.tell(line)


def _loop(run: Run) -> None:
    session = run.session
    recipe, plan, world = session.recipe, session.plan, session.world
    network: Network = compiled(session.student, run.tell) if recipe.train.compile else session.student
    save_every = checkpoint_steps(plan, recipe.train.checkpoint_every)
    since, counted = time.perf_counter(), 0
    try:
        with world.together():
            keep_snapshot_if_due(run)
        _evaluate_if_due(run)
        for batch in world.agreed(make_batches(session)):
            with world.alike():
                run.taken.append(take_step(session, network, batch.to(session.device)))
                last = session.step == plan.total_steps
                saves = session.step % save_every == 0 or last
                logs = session.step % recipe.train.log_every == 0 or last
                record = run.settle() if saves or logs or on_the_machine(session.halted) else {}
            counted += recipe.train.batch_size
            with world.together():
                if logs:
                    elapsed = time.perf_counter() - since
                    record |= {"images_per_second": round(counted / elapsed, 1), "seconds": round(elapsed, 3)}
                    run.record(record)
                    since, counted = time.perf_counter(), 0
                keep_snapshot_if_due(run)
                if not saves:
                    run.poll()
            if saves:
                session.agree()
                with world.together():
                    _together(run, _save)
                with world.together():
                    run.poll()
            began = time.perf_counter()
            _evaluate_if_due(run)
            since += time.perf_counter() - began
    except (Interrupted, DataError, DeviceError, Elsewhere) as error:
        run.settle()
        if not session.split or _met_by_all(error):
            _together(run, _save)
        raise


def _together(run: Run, work: Callable[[Run, Ask], None]) -> None:
    """What rank 0 does, while the others give it what they hold of the classifier."""
    session = run.session
    if not session.world.leads:
        answer(session.world, session.split)
        return
    with asking(session.world, session.split) as ask:
        work(run, ask)


def _save(run: Run, ask: Ask) -> None:
    save_checkpoint(run.folder.checkpoints, run.session.checkpoint(ask))


def _met_by_all(error: FacekdError) -> bool:
    """Whether every process ends by saving what it has: one that met a bug or lost its numbers does not."""
    return error.exit_code in (DataError.exit_code, DeviceError.exit_code) or error.exit_code > SIGNALLED


def _evaluate_if_due(run: Run) -> None:
    """Evaluate at the recipe's interval; a step whose evaluation was cut short is evaluated when the run resumes."""
    session = run.session
    every, total = session.recipe.evaluate.every, session.plan.total_steps
    if every is None or not session.evaluated < session.step < total:
        return
    if session.step % checkpoint_steps(session.plan, every) == 0:
        _evaluate(run, bootstrap=0)


def _evaluate(run: Run, bootstrap: int) -> list[dict[str, Any]]:
    """Measure the weights that would be deployed; keep them if they are the best so far and the recipe wants that."""
    session = run.session
    with session.world.alike():
        run.settle()
    results = evaluate_student(session, run.sets, run.poll, bootstrap=bootstrap)
    with session.world.together():
        run.record({"step": session.step, "evaluation": results})
        session.evaluated = session.step
        merit = figure_of_merit(results)
        if merit is not None and merit > session.best.get("figure", float("-inf")):
            session.best = {"figure": merit, "step": float(session.step)}
            if session.recipe.evaluate.select == "best":
                save_deployed(session, run.folder)
    return results


def _finish(run: Run, ask: Ask) -> None:
    """Write what is left of the run."""
    session, folder = run.session, run.folder
    if session.recipe.evaluate.select == "last":
        save_deployed(session, folder)
    save_classifier_used(session, folder, ask)
    for line in spread_lines(session):
        run.tell(line)
    run.tell(f"student written to {folder.student}")
