"""``facekd eval``: measure models on verification sets and identity lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facekd import __version__
from facekd.engine.requirements import parse_requirement, require
from facekd.engine.resolution_modes import GALLERIES, Resolution, resolution_modes
from facekd.errors import InputError, UsageError

from .common import (
    check_models,
    device_option,
    foreign_options,
    json_option,
    open_model,
    progress_bar,
    resize_option,
    write_json,
)
from .eval_table import print_table

if TYPE_CHECKING:
    from facekd.engine.evaluation_sets import OpenedSet
    from facekd.engine.evaluator import Evaluation
    from facekd.engine.figures import EvalSettings
    from facekd.models.embedder import Embedder

FPRS = (1e-2, 1e-3, 1e-4)
PROTOCOLS = ("auto", "lfw", "pairs", "all-pairs")


class Fpr(click.ParamType):
    """A number between 0 and 1, both left out."""

    name = "fpr"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if not 0 < number < 1:
            self.fail(f"{value} is not between 0 and 1, like 1e-3", param, ctx)
        return number


@click.command("eval", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", type=click.Path(path_type=Path))
@click.option(
    "--on",
    "sets",
    multiple=True,
    metavar="SET",
    type=click.Path(path_type=Path),
    help="Repeatable. Pairs: .bin, LFW .txt, .csv/.tsv. Identities: folder, .rec, .tar, list (path,identity).",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Root of the paths in a pairs file or list.  [default: its folder]",
)
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    default="auto",
    show_default=True,
    help="lfw: k-fold accuracy too; pairs: the curve; all-pairs: every pair of images with identities.",
)
@click.option(
    "--fpr", "fprs", multiple=True, type=Fpr(), help="Operating point, repeatable.  [default: 1e-2 1e-3 1e-4]"
)
@click.option("--flip/--no-flip", default=True, show_default=True, help="Add the embedding of the mirrored image.")
@click.option(
    "--resolution",
    "sides",
    multiple=True,
    metavar="PIXELS",
    type=click.IntRange(4, 1024),
    help="Repeatable: a further result with probes brought down to this side and up again (area, then bicubic). The "
    "probe is the first image of a pair; of all pairs, the first by identity.",
)
@click.option(
    "--gallery",
    type=click.Choice(GALLERIES),
    default="full",
    show_default=True,
    help="What --resolution compares with: images as they are, brought down to the same side, or a result for both.",
)
@foreign_options
@resize_option
@click.option("--drop-same", is_flag=True, help="Leave out pairs that hold one image on both sides.")
@click.option(
    "--bootstrap",
    type=click.IntRange(0, 100_000),
    default=1000,
    show_default=True,
    help="Replicates behind each 95 % interval; 0 for none.",
)
@click.option(
    "--require",
    "demands",
    multiple=True,
    metavar="DEMAND",
    help="Exit 1 unless met by every result, repeatable: 'tpr@1e-3>=0.95', 'accuracy>=0.99', 'auc>=0.999', "
    "'eer<=0.01'.",
)
@click.option("--batch", type=click.IntRange(1, 65536), default=128, show_default=True, help="Images per forward pass.")
@click.option(
    "--probe/--no-probe",
    default=None,
    help="Look whether the other colour order, or any scaling where faces are told apart badly, fits at most 256 faces "
    "of the first set better.  [default: for models whose file does not state its own]",
)
@device_option
@json_option
def command(
    models: Sequence[Path],
    sets: Sequence[Path],
    images: Path | None,
    protocol: str,
    fprs: Sequence[float],
    flip: bool,
    sides: Sequence[int],
    gallery: str,
    color: str | None,
    normalize: str | None,
    allow_resize: bool,
    drop_same: bool,
    bootstrap: int,
    demands: Sequence[str],
    batch: int,
    probe: bool | None,
    device: str,
    json_path: str | None,
) -> None:
    """Measure each MODEL (run folder, .safetensors, .pt, .pth, .ckpt, .onnx, hf:owner/name/file, timm/NAME) on each
    set, or stored embeddings (.npz).

    A pair is accepted when its cosine is at least the threshold. The TPR at an FPR is the largest whose FPR does not
    exceed it; an FPR that the impostor pairs are too few to show is refused, with the number needed. The 95 % intervals
    resample people, not pairs. Stored embeddings are compared all with all, without --on.

    \b
    Example:
      facekd eval runs/student teacher.onnx --on lfw.bin --json figures.json
      facekd eval runs/student --on lfw_pairs.txt --images lfw112 --require 'tpr@1e-3>=0.95'
      facekd eval runs/student --on faces.csv --resolution 28 --resolution 14 --gallery both
      facekd eval embeddings.npz --fpr 1e-5
    """
    requirements = [parse_requirement(text) for text in demands]
    stored = [path for path in models if path.suffix.lower() == ".npz"]
    _check_arguments(models, stored, sets, images)
    _check_resolutions(sides, gallery, stored)
    from facekd.engine.evaluation_sets import open_set
    from facekd.engine.figures import EvalSettings

    wanted = dict.fromkeys([*(fprs or FPRS), *(r.fpr for r in requirements if r.fpr is not None)])
    settings = EvalSettings(tuple(wanted), flip, batch, bootstrap, allow_resize=allow_resize)
    opened = [open_set(path, images=images, protocol=protocol, drop_same=drop_same) for path in sets]
    for warning in dict.fromkeys(line for one in opened for line in one.warnings):
        click.echo(f"facekd: warning: {warning}", err=True)
    doubts: list[str] = []

    def load(path: Path) -> Embedder:
        return open_model(path, color, normalize, device)

    modes = resolution_modes(sides, gallery)
    evaluations = list(_evaluations(models, opened, settings, modes, load, partial(_doubt, doubts, probe)))
    results = [evaluation.result for evaluation in evaluations]
    print_table(results, opened, settings)
    for doubt in doubts:
        click.echo(f"facekd: warning: {doubt}", err=True)
    if json_path:
        write_json({"facekd": __version__, "results": results}, json_path)
    require(results, requirements)


def _check_arguments(models: Sequence[Path], stored: Sequence[Path], sets: Sequence[Path], images: Path | None) -> None:
    check_models(models)
    for path in (*sets, *([images] if images else [])):
        if not path.exists():
            raise InputError(str(path), "no such file or folder", "check the path")
    if stored and sets:
        raise UsageError(str(stored[0]), "stored embeddings are compared all with all", "leave --on out")
    if len(stored) < len(models) and not sets:
        raise UsageError("--on", "missing", "name a set: --on lfw.bin")


def _check_resolutions(sides: Sequence[int], gallery: str, stored: Sequence[Path]) -> None:
    if sides and stored:
        raise UsageError(str(stored[0]), "stored embeddings have no pixels to bring down", "leave --resolution out")
    if gallery != "full" and not sides:
        raise UsageError("--gallery", f"{gallery} has no effect without --resolution", "add --resolution 28")


def _doubt(doubts: list[str], wanted: bool | None, embedder: Embedder, opened: OpenedSet, **watching: Any) -> None:
    """Add a line where a model would see these faces better in another way."""
    from facekd.engine import probe

    if wanted or (wanted is None and not probe.says_itself(embedder)):
        found = probe.probe_set(embedder, opened, **watching)
        told = None if found is None else probe.doubt(embedder, found)
        doubts.extend([told] if told else [])


def _evaluations(
    models: Sequence[Path],
    opened: Sequence[OpenedSet],
    settings: EvalSettings,
    modes: Sequence[Resolution],
    load: Callable[[Path], Embedder],
    doubt: Callable[..., None],
) -> Iterator[Evaluation]:
    """Figures of every model on every set in every mode, each model loaded once and doubted on the first set."""
    from facekd.engine.embed import load_embeddings
    from facekd.engine.evaluator import evaluate_resolutions, evaluate_stored
    from facekd.engine.signals import interruptible

    with interruptible("facekd eval", "stopped; nothing was written") as poll, progress_bar() as progress:
        for path in models:
            if path.suffix.lower() == ".npz":
                yield evaluate_stored(load_embeddings(path), path.name, settings)
                continue
            embedder = load(path)
            for one in opened:

                def report(phase: str, done: int, total: int, name: str = f"{path.name} on {one.name}") -> None:
                    progress(f"{phase} {name}", done, total)

                yield from evaluate_resolutions(embedder, one, settings, modes, progress=report, poll=poll)
                if one is opened[0]:
                    doubt(embedder, one, progress=report, poll=poll)
