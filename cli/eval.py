"""``facekd eval``: measure models on verification sets and identity lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from facekd.engine.evaluation.request import Request
from facekd.engine.evaluation.requirements import parse_requirement, require
from facekd.engine.evaluation.resolution_modes import GALLERIES
from facekd.errors import UsageError

from .common import (
    Fpr,
    check_models,
    check_paths,
    device_option,
    foreign_options,
    json_option,
    precision_option,
    resize_option,
    write_json,
)
from .eval_output import output_options, print_tables, write_outputs
from .eval_run import Caches, perform, written
from .eval_templates import CACHE as TEMPLATE_CACHE
from .eval_templates import PROTOCOLS as TEMPLATE_PROTOCOLS
from .eval_templates import check_template_options, template_options, usual_rates
from .eval_verify import verify_report

FPRS = (1e-2, 1e-3, 1e-4)
PROTOCOLS = ("auto", "lfw", "pairs", "all-pairs")


@click.command("eval", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("models", nargs=-1, metavar="MODEL...", type=click.Path(path_type=Path))
@click.option(
    "--on",
    "sets",
    multiple=True,
    metavar="SET",
    type=click.Path(path_type=Path),
    help="Repeatable. Pairs: .bin, LFW .txt, .csv/.tsv. Identities: folder, .rec, .tar, list (path,identity). "
    "Templates: IJB-B or IJB-C folder. Search: TinyFace folder.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Root of the paths in a pairs file or list.  [default: its folder]",
)
@click.option(
    "--protocol",
    type=click.Choice([*PROTOCOLS, *TEMPLATE_PROTOCOLS]),
    default="auto",
    show_default=True,
    help="lfw: k-fold accuracy too; pairs: the curve; all-pairs: every pair of images with identities; ijb-1:1, "
    "ijb-1:n: templates of IJB-B and IJB-C compared, or searched in galleries; tinyface: rank-k among distractors.",
)
@click.option(
    "--fpr",
    "fprs",
    multiple=True,
    type=Fpr(),
    help="Operating point, repeatable; of ijb-1:n an FPIR.  [default: 1e-2 1e-3 1e-4; ijb-1:1: 1e-6 to 1e-1; ijb-1:n: "
    "1e-2 1e-1]",
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
@click.option(
    "--cross",
    is_flag=True,
    help="Also compare probes of one of two models with the gallery of the other. Only for one embedding space.",
)
@template_options
@click.option(
    "--by",
    metavar="COLUMN",
    help="Also measure each group that a column of the list names: of images, or of pairs (a race, an age, a quality). "
    "Of stored embeddings, --on is then the list that names their images.",
)
@click.option(
    "--uncertainty",
    is_flag=True,
    help="Heed how sure each model is of each image: also tell TPR and FPR by quality and what turning the least sure "
    "pairs away saves, score pairs by mutual likelihood, and fuse templates by inverse variance. For runs that learned "
    "a variance, and .npz files with log_variance.",
)
@foreign_options
@resize_option
@precision_option
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
    "'eer<=0.01'; of searches 'rank@1>=0.9', 'tpir@1e-2>=0.8'.",
)
@click.option("--batch", type=click.IntRange(1, 65536), default=128, show_default=True, help="Images per forward pass.")
@click.option(
    "--probe/--no-probe",
    default=None,
    help="Look whether the other colour order, or any scaling where faces are told apart badly, fits at most 256 faces "
    "of the first set better.  [default: for models whose file does not state its own]",
)
@device_option
@output_options
@click.option(
    "--verify",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Do again what a file of --json says was done, and compare: exit 1 names the first figure that differs. Where "
    "machine or versions are others, rates may differ by 0.001. Takes no other option but --device.",
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    demands: Sequence[str],
    probe: bool | None,
    plot: Path | None,
    report: Path | None,
    verify: Path | None,
    json_path: str | None,
    **asked: Any,
) -> None:
    """Measure each MODEL (run folder, .safetensors, .pt, .pth, .ckpt, .onnx, hf:owner/name/file, timm/NAME) on each
    set, or stored embeddings (.npz).

    A pair is accepted when its cosine is at least the threshold. The TPR at an FPR is the largest whose FPR does not
    exceed it; an FPR that the impostor pairs are too few to show is refused, with the number needed. The 95 % intervals
    resample people, not pairs. Stored embeddings are compared all with all, without --on, or with one that --by reads.

    Templates of IJB-B and IJB-C are made of images as --norm, --det and --flip say; published figures differ in these.

    \b
    Example:
      facekd eval runs/student teacher.onnx --on lfw.bin --json figures.json
      facekd eval runs/student --on lfw_pairs.txt --images lfw112 --require 'tpr@1e-3>=0.95'
      facekd eval runs/student --on faces.csv --resolution 28 --resolution 14 --gallery both
      facekd eval runs/student teacher.onnx --on faces.csv --report report.html --plot curves.svg
      facekd eval runs/student teacher.onnx --on faces.csv --cross
      facekd eval runs/student --on IJBC/ --all-modes
      facekd eval runs/student --on IJBC/ --protocol ijb-1:n
      facekd eval runs/student --on faces.csv --by race
      facekd eval runs/sure --on faces.csv --uncertainty
      facekd eval --verify figures.json
      facekd eval embeddings.npz --fpr 1e-5
      facekd eval embeddings.npz --on faces.csv --by race
    """
    if verify is not None:
        verify_report(context, verify, asked["device"])
        return
    requirements = [parse_requirement(text) for text in demands]
    _check_arguments(asked["models"], asked["sets"], asked["images"], asked["by"])
    check_template_options(context, asked["sets"], asked["protocol"])
    request = _request(asked, [r.fpr for r in requirements if r.fpr is not None])
    caches = Caches(asked["cache"] or TEMPLATE_CACHE, asked["cache"])
    done = perform(request, probe=probe, details=bool(plot or report), costs=report is not None, caches=caches)
    print_tables(done)
    for doubt in done.doubts:
        click.echo(f"facekd: warning: {doubt}", err=True)
    if json_path:
        write_json(written(done), json_path)
    write_outputs(done, plot, report)
    require(done.results, requirements)


def _request(asked: Mapping[str, Any], demanded: Sequence[float]) -> Request:
    """The options on which the figures depend, checked against each other, with the FPRs that demands name."""
    models, sets, images = asked["models"], asked["sets"], asked["images"]
    stored = _stored(models)
    if stored and (asked["cache"] is not None or asked["precision"] != "fp32"):
        option = "--precision" if asked["cache"] is None else "--cache"
        raise UsageError(option, f"has no effect on {stored[0]}, which is computed already", "leave it out")
    _check_resolutions(asked["sides"], asked["gallery"], stored)
    _check_cross(asked["cross"], models, stored, asked["sides"])
    if asked["cross"] and asked["uncertainty"]:
        raise UsageError("--cross", "compares embeddings, whose variances are of two models", "leave --uncertainty out")
    fprs = asked["fprs"] or usual_rates(sets, asked["protocol"], FPRS)
    if asked["by"] is not None and asked["drop_same"]:
        raise UsageError("--by", "cannot be had with --drop-same", "leave one of them out")
    return Request(
        models=tuple(map(str, models)),
        sets=tuple(map(str, sets)),
        images=None if images is None else str(images),
        protocol=asked["protocol"],
        fprs=tuple(dict.fromkeys([*fprs, *demanded])),
        flip=asked["flip"],
        resolutions=tuple(asked["sides"]),
        gallery=asked["gallery"],
        color=asked["color"],
        normalize=asked["normalize"],
        allow_resize=asked["allow_resize"],
        drop_same=asked["drop_same"],
        bootstrap=asked["bootstrap"],
        batch=asked["batch"],
        device=asked["device"],
        cross=asked["cross"],
        norm=asked["norm"],
        det=asked["det"],
        all_modes=asked["all_modes"],
        count_failures=asked["count_failures"],
        uncertainty=asked["uncertainty"],
        precision=asked["precision"],
        by=asked["by"],
    )


def _stored(models: Sequence[Path]) -> list[Path]:
    return [path for path in models if path.suffix.lower() == ".npz"]


def _check_arguments(models: Sequence[Path], sets: Sequence[Path], images: Path | None, by: str | None) -> None:
    stored = _stored(models)
    if not models:
        raise UsageError("MODEL", "missing", "name a model, or check a report with --verify FILE")
    check_models(models)
    check_paths(*sets, images)
    if stored and sets and by is None:
        what = "stored embeddings are compared all with all"
        raise UsageError(str(stored[0]), what, "leave --on out, or name a column of the list with --by")
    if stored and by is not None and len(sets) != 1:
        raise UsageError("--by", f"needs one list that names the images of {stored[0]}", "name it: --on faces.csv")
    if len(stored) < len(models) and not sets:
        raise UsageError("--on", "missing", "name a set: --on lfw.bin")


def _check_resolutions(sides: Sequence[int], gallery: str, stored: Sequence[Path]) -> None:
    if sides and stored:
        raise UsageError(str(stored[0]), "stored embeddings have no pixels to bring down", "leave --resolution out")
    if gallery != "full" and not sides:
        raise UsageError("--gallery", f"{gallery} has no effect without --resolution", "add --resolution 28")


def _check_cross(cross: bool, models: Sequence[Path], stored: Sequence[Path], sides: Sequence[int]) -> None:
    if cross and (len(models) != 2 or stored):
        raise UsageError("--cross", f"takes two models, not {len(models) - len(stored)}", "name two, and no .npz file")
    if cross and sides:
        raise UsageError("--cross", "compares faces at full resolution", "leave --resolution out")
