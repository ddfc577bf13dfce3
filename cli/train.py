"""``facekd train``: a recipe becomes a student."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from facekd.engine.evaluation.resolution_modes import describe_resolution
from facekd.errors import InputError
from facekd.model_names import is_model_name
from facekd.recipe import Recipe, load_recipe

from .common import console, device_option, json_option, progress_bar, write_json
from .shipped import find_recipe

if TYPE_CHECKING:
    from facekd.engine.training.distributed import World

PLAN_ROWS = (
    ("images", "training images", "{:,}"),
    ("identities", "identities", "{:,}"),
    ("steps_per_epoch", "steps an epoch", "{:,}"),
    ("total_steps", "steps in all", "{:,}"),
    ("student_parameters", "student parameters", "{:,}"),
    ("student_macs", "student multiply-accumulates an image", "{:,}"),
    ("assistant_parameters", "of these the assistant's parameters", "{:,}"),
    ("assistant_macs", "of these the assistant's multiply-accumulates", "{:,}"),
    ("projector", "projector to the teacher's width", "{}"),
    ("teachers", "teachers", "{:,}"),
    ("teacher_parameters", "teacher parameters", "{:,}"),
    ("classifier_bytes", "classifier memory, bytes", "{:,}"),
    ("cache_bytes", "teacher cache on disk, bytes", "{:,}"),
    ("student_step_images", "images the student sees a step", "{:,}"),
    ("teacher_step_images", "images the teacher sees a step, live", "{:,}"),
)

FORECAST_ROWS = (
    ("step_seconds", "seconds a step, about", "{:,.3g}"),
    ("epoch_seconds", "seconds an epoch, about", "{:,.0f}"),
    ("run_seconds", "seconds in all, about, without evaluations", "{:,.0f}"),
    ("cache_seconds", "seconds to ask the teacher beforehand, about", "{:,.0f}"),
    ("memory_bytes", "memory, bytes, about", "{:,}"),
)


@click.command("train", short_help="Train a student from a recipe.")
@click.argument("recipe")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/<recipe name>]")
@click.option("--resume", is_flag=True, help="Go on from the newest good checkpoint in the run folder.")
@click.option("--overwrite", is_flag=True, help="Replace the run that is in the run folder.")
@click.option(
    "--dry-run", is_flag=True, help="Print the plan and, by a few small steps, what it will cost; write nothing."
)
@device_option
@json_option
def command(
    recipe: str,
    overrides: Sequence[str],
    out: Path | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    device: str,
    json_path: str | None,
) -> None:
    """Train the student of RECIPE, a file or the name of a shipped recipe.

    The run folder receives the resolved recipe, metrics, checkpoints and student.safetensors. A run that was stopped
    goes on with --resume and ends with the same bits.

    Under torchrun several processes, each with a GPU of its own, take the steps of one run together.

    \b
    Example:
      facekd train quickstart/teacher --out runs/teacher
      facekd train quickstart/proxylesskd_pad --set teacher.weights=runs/teacher
    """
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite contradict each other")
    with _world() as world:
        with nullcontext() if world is None else world.together():
            loaded = load_recipe(find_recipe(recipe), overrides)
            check_files(loaded)
            folder = out or Path("runs") / loaded.name
            if dry_run and (world is None or world.leads):
                _show_plan(loaded, folder, device, json_path)
        if not dry_run:
            run = {"run": str(folder), "results": _train(loaded, folder, resume, overwrite, device, world)}
            if json_path and (world is None or world.leads):
                write_json(run, json_path)


def check_files(recipe: Recipe) -> None:
    """Refuse a recipe that names files which are not there, before torch is imported.

    Raises:
        InputError: Names the first, and its key.
    """
    student, teacher, data = recipe.student, recipe.teacher, recipe.data
    named = {"student.weights": student.weights, "data.path": data.path, "data.images": data.images}
    if student.assistant is not None:
        named["student.assistant.weights"] = student.assistant.weights
    if teacher is not None:
        named |= {"teacher.weights": teacher.weights, "teacher.class_weights": teacher.class_weights}
    named |= {f"subsets.{subset.name}.weights": subset.weights for subset in recipe.subsets}
    for number, measured in enumerate(recipe.evaluate.sets):
        named |= {f"evaluate.sets.{number}.path": measured.path, f"evaluate.sets.{number}.images": measured.images}
    for key, path in named.items():
        if path is not None and not Path(path).exists() and not is_model_name(path):
            raise InputError(path, "no such file or folder", f"check {key}; looked from {Path.cwd()}")


@contextmanager
def _world() -> Iterator[World | None]:
    """The processes a launcher started; None, in no time, where it started one."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield None
        return
    from facekd.engine.training.distributed import joined

    with joined() as world:
        yield world


def _train(
    loaded: Recipe, folder: Path, resume: bool, overwrite: bool, device: str, world: World | None
) -> list[dict[str, Any]]:
    from facekd.engine.training.distributed import ALONE
    from facekd.engine.training.trainer import Listener, train

    show = Display(console())
    with progress_bar() as preparation:
        try:
            return train(
                loaded,
                folder,
                resume=resume,
                overwrite=overwrite,
                device=device,
                listener=Listener(say=show.say, step=show.step, progress=preparation),
                world=world or ALONE,
            )
        finally:
            show.close()


def _show_plan(recipe: Recipe, folder: Path, device: str, json_path: str | None) -> None:
    from facekd.engine.training.forecast import forecast_run

    sized, expected = forecast_run(recipe, device)
    plan, costs = sized.as_dict(), {} if expected is None else expected.as_dict()
    table = Table(title=f"{recipe.name} -> {folder}", show_header=False)
    for key, label, form in PLAN_ROWS:
        if key.startswith("assistant") and not plan[key]:
            continue
        table.add_row(label, form.format(plan[key]))
    for key, label, form in FORECAST_ROWS if costs else ():
        table.add_row(label, form.format(costs[key]))
    console().print(table)
    if json_path:
        write_json({"recipe": recipe.name, "run": str(folder), "plan": plan, "forecast": costs or None}, json_path)


class Display:
    """Shows a run: a bar that moves on a terminal, a line per record elsewhere.

    Args:
        target: Where to print.
    """

    def __init__(self, target: Console) -> None:
        self.target = target
        self.bar: Progress | None = None
        self.began = time.perf_counter()
        self.first_step: int | None = None

    def say(self, line: str) -> None:
        """Print one line of news."""
        self.target.print(line, highlight=False, markup=False, soft_wrap=True)

    def step(self, record: dict[str, Any], total: int) -> None:
        """Show a record of ``metrics.jsonl``."""
        if "evaluation" in record:
            for result in record["evaluation"]:
                self.say(f"step {record['step']}: {describe_result(result)}")
            return
        text = describe_step(record)
        if self.target.is_terminal:
            self._move(record["step"], total, text)
            return
        if self.first_step is None:
            self.first_step, self.began = record["step"], time.perf_counter()
        taken = record["step"] - self.first_step
        left = (time.perf_counter() - self.began) / taken * (total - record["step"]) if taken else None
        eta = f"  {left:.0f} s left" if left is not None else ""
        self.say(f"step {record['step']}/{total}  {text}{eta}")

    def _move(self, step: int, total: int, text: str) -> None:
        if self.bar is None:
            columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
            self.bar = Progress(*columns, console=self.target)
            self.bar.start()
            self.bar.add_task("", total=total, completed=step)
        self.bar.update(self.bar.task_ids[0], completed=step, description=text)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()


def describe_step(record: dict[str, Any]) -> str:
    """A training record in one line.

    Example:
        >>> describe_step({"epoch": 0.5, "terms": {"l2": 1.25}, "learning_rate": 0.1, "images_per_second": 80.0})
        'epoch 0.5  l2 1.25  learning rate 0.1  80 images/s'
    """
    terms = "  ".join(f"{name} {value:.4g}" for name, value in record["terms"].items())
    rate = f"learning rate {record['learning_rate']:.3g}  {record['images_per_second']:.0f} images/s"
    return f"epoch {record['epoch']:.3g}  {terms}  {rate}"


def describe_result(result: dict[str, Any]) -> str:
    """An evaluation result in one line.

    Example:
        >>> describe_result({"set": "lfw", "accuracy": None, "tpr_at_fpr": [{"fpr": 1e-3, "tpr": 0.5}]})
        'lfw  TPR 0.5000 at FPR 0.001'
    """
    parts = [result["set"]]
    if result.get("resolution"):
        parts.append(describe_resolution(result["resolution"]))
    if result["accuracy"]:
        parts.append(f"accuracy {result['accuracy']['mean']:.4f}")
    parts += [f"TPR {point['tpr']:.4f} at FPR {point['fpr']:g}" for point in result["tpr_at_fpr"]]
    return "  ".join(parts)
