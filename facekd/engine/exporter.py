"""A model to one ONNX file that is known to compute the same embeddings.

The TorchScript exporter (``dynamo=False``) is used, at opset 17: on torch 2.10 to 2.15 it takes a second where the
default exporter takes ten, never writes a side file, prints nothing, folds each BatchNorm that follows a convolution,
and its graphs run in OpenCV 4.10 and 5.0. Its weakness, Python control flow frozen while tracing, is what the parity
gate looks for: every file is run at several batch sizes before it gets its name. A BatchNorm no convolution precedes
stays in the graph; onnxruntime folds what it can of those when it loads.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import facekd
from facekd.data.opencv_net import forward_onnx
from facekd.engine.export_graph import (
    bake_preprocessing,
    bypass_identities,
    hide_from_insightface,
    set_metadata,
)
from facekd.engine.export_report import ExportReport, consumer_notes
from facekd.engine.parity import MAX_RELATIVE, MIN_COSINE, Parity, compare, probe_images
from facekd.engine.progress import Progress
from facekd.engine.signals import Poll, interruptible
from facekd.errors import ExportError, InputError, UsageError
from facekd.files import disk_errors, write_atomic
from facekd.models.embedder import Embedder, TorchEmbedder
from facekd.models.onnx_model import load_onnx
from facekd.models.preprocessing import Preprocessing
from facekd.models.weights import check_finite

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 17
INPUT, OUTPUT = "data", "fc1"
PREPROCESS = ("plain", "baked")
DYNAMIC_BATCHES = (1, 2, 5)
"""Batch sizes a file with a dynamic batch is checked at."""
ONE_FILE_LIMIT = 2**31 - 2**20
"""Bytes of weights one ONNX file can hold; larger models would need a side file."""
CARRIED = (
    "backbone",
    "assistant",
    "sizes",
    "projector",
    "subset_teachers",
    "template",
    "teacher_digest",
    "licence_teacher",
    "licence_data",
    "calibration",
)
"""What a student file says of itself that its ONNX file says again, under ``facekd.<key>``."""


def export_onnx(
    embedder: Embedder,
    out: Path,
    *,
    preprocess: str = "plain",
    batch: str | int = "dynamic",
    opencv: bool = True,
    force: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write a model as one ONNX file, after proving that the file equals the model.

    The file takes ``data`` (batch, 3, height, width) float32 and gives ``fc1`` (batch, dim), the raw embedding. It is
    run in onnxruntime and in OpenCV on made-up images at batches 1, 2 and 5 (a fixed batch: at that one), fed as its
    own metadata says, and gets its name only if all values are within 1e-4 of the embeddings' largest magnitude and
    all cosines at least 1 - 1e-6. A file already there is replaced whole or left as it was.

    Args:
        embedder: The model, as `load_embedder` opens it; an ONNX file is none to export.
        out: Path to write; its folder must exist.
        preprocess: ``plain``: the file expects what the backbone expects, normalised, in the model's colour order.
            ``baked``: it expects RGB values 0..255; normalisation and colour order are in the graph.
        batch: ``dynamic``, or a fixed size of at least 1.
        opencv: Check with OpenCV too; a file it cannot run is refused.
        force: Replace an existing file.
        progress: Told of each step.

    Returns:
        The digest of the file and the figures of every check.

    Example:
        >>> linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 4))
        >>> expects = Preprocessing.named("half", size=(16, 16))
        >>> embedder = TorchEmbedder("linear", "0", 4, expects, {}, linear.eval(), torch.device("cpu"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = export_onnx(embedder, Path(folder, "linear.onnx"), batch=1)
        >>> [(check.runtime, check.batch, check.passed) for check in report.parity]
        [('onnxruntime', 1, True), ('opencv', 1, True)]

    Raises:
        UsageError: A wrong option, a missing folder, or a file already there without ``force``.
        NonFiniteError: The model holds a NaN or an infinity.
        ExportError: The model cannot be traced, or the file does not equal it; nothing is written.
        DeviceError: The file cannot be written.
        Interrupted: SIGTERM or Ctrl-C came; nothing is written.
    """
    check_output(out, force=force)
    _check_options(preprocess, batch)
    source = _exportable(embedder)
    batches = DYNAMIC_BATCHES if batch == "dynamic" else (int(batch),)
    with interruptible(f"export of {out}", "nothing was written; run the command again") as poll:
        data = build_model(source, preprocess, batch).SerializeToString()
        if progress is not None:
            progress("trace", 1, 1)
        digest, checks = _write_checked(
            out, data, lambda file: _run_checks(source, file, batches, opencv, poll, progress)
        )
    height, width = embedder.preprocessing.size
    size: str | int = "batch" if batch == "dynamic" else batch
    return ExportReport(
        file=str(out),
        digest=digest,
        bytes=len(data),
        opset=OPSET,
        preprocess=preprocess,
        batch=batch,
        input=INPUT,
        output=OUTPUT,
        input_shape=[size, 3, height, width],
        output_shape=[size, embedder.embedding_size],
        parity=checks,
        notes=consumer_notes(embedder.preprocessing, preprocess, opencv=opencv),
    )


def build_model(embedder: TorchEmbedder, preprocess: str, batch: str | int) -> ModelProto:
    """The ONNX graph of a model, with preprocessing nodes if asked for, names, shapes and metadata; not yet checked.

    Args:
        embedder: The model.
        preprocess: ``plain`` or ``baked``.
        batch: ``dynamic`` or a number.

    Raises:
        ExportError: The model holds an operation that cannot be exported.
    """
    import onnx

    model = onnx.load_from_string(_trace(embedder, batch))
    bypass_identities(model)
    preprocessing = embedder.preprocessing
    if preprocess == "baked":
        turned = preprocessing.color == "bgr"
        step = -1 if turned else 1
        mean, std = preprocessing.mean[::step], preprocessing.std[::step]
        bake_preprocessing(model, mean=mean, std=std, reverse_channels=turned)
        preprocessing = Preprocessing.named("none", "rgb", preprocessing.size)
    else:
        hide_from_insightface(model)
    set_metadata(model, _metadata(embedder, preprocess, preprocessing))
    onnx.checker.check_model(model)
    return model


def check_output(out: Path, *, force: bool) -> None:
    """Refuse a path that cannot or must not be written, before any work is done.

    Raises:
        UsageError: Not an ``.onnx`` name, no such folder, a folder itself, or a file already there without ``force``.

    Example:
        >>> check_output(Path("student.pt"), force=False)
        Traceback (most recent call last):
        facekd.errors.UsageError: student.pt: does not end in .onnx (give -o FILE.onnx)
    """
    if out.suffix != ".onnx":
        raise UsageError(str(out), "does not end in .onnx", "give -o FILE.onnx")
    if not out.parent.is_dir():
        raise UsageError(str(out), "its folder does not exist", f"make {out.parent} first")
    if out.is_dir():
        raise UsageError(str(out), "is a folder", "name a file in it")
    if out.exists() and not force:
        raise UsageError(str(out), "exists already", "choose another name, or replace it with --force")


def _check_options(preprocess: str, batch: str | int) -> None:
    if preprocess not in PREPROCESS:
        raise UsageError("preprocess", f"{preprocess} is unknown", "plain or baked")
    if batch != "dynamic" and (isinstance(batch, str) or batch < 1):
        raise UsageError("batch", f"{batch} is no batch size", "dynamic, or a whole number from 1")


def _exportable(embedder: Embedder) -> TorchEmbedder:
    """The embedder itself, if it is a torch model of finite weights that fits one file."""
    if not isinstance(embedder, TorchEmbedder):
        raise UsageError(embedder.name, "is an ONNX file already", "give the run folder or checkpoint it was made from")
    state = embedder.module.state_dict()
    check_finite(state, embedder.name)
    total = sum(4 * value.numel() for value in state.values())
    if total > ONE_FILE_LIMIT:
        raise ExportError(embedder.name, f"{total} bytes of weights do not fit one ONNX file", "choose a smaller model")
    return embedder


def _trace(embedder: TorchEmbedder, batch: str | int) -> bytes:
    count = 2 if batch == "dynamic" else int(batch)
    example = torch.zeros(count, 3, *embedder.preprocessing.size, device=embedder.device)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        file = Path(folder, "traced.onnx")
        try:
            torch.onnx.export(
                embedder.module,
                (example,),
                file,
                dynamo=False,
                external_data=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}} if batch == "dynamic" else None,
            )
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise ExportError(embedder.name, f"cannot be traced: {reason}", "choose a backbone that exports") from error
        with disk_errors(file):
            return file.read_bytes()


def _metadata(embedder: TorchEmbedder, preprocess: str, expects: Preprocessing) -> dict[str, str]:
    values = {
        "version": facekd.__version__,
        "preprocess": preprocess,
        **expects.to_metadata(),
        "embedding_size": str(embedder.embedding_size),
        "student_digest": embedder.digest,
        **{key: embedder.metadata[key] for key in CARRIED if embedder.metadata.get(key)},
    }
    return {f"facekd.{key}": value for key, value in values.items()}


def _write_checked(out: Path, data: bytes, run_checks: Callable[[Path], Iterator[Parity]]) -> tuple[str, list[Parity]]:
    """Write a file that gets its name once every check has passed; its digest, and the checks."""
    passed: list[Parity] = []

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)
        for check in run_checks(temporary):
            _require_parity(out, check)
            passed.append(check)

    try:
        return write_atomic(out, write), passed
    except InputError as error:
        fix = "leave OpenCV out with --no-opencv" if "OpenCV" in error.what else "choose another backbone"
        raise ExportError(str(out), error.what, fix) from error


def _run_checks(
    embedder: TorchEmbedder,
    path: Path,
    batches: tuple[int, ...],
    opencv: bool,
    poll: Poll,
    progress: Progress | None,
) -> Iterator[Parity]:
    """Each runtime at each batch size; a check counts as done once the taker asks for the next."""
    images = torch.from_numpy(probe_images(sum(batches), embedder.preprocessing.size))
    exported = load_onnx(path, embedder.name)
    runtimes = {"onnxruntime": lambda part: exported.embed(part).numpy()}
    if opencv:
        runtimes["opencv"] = lambda part: forward_onnx(path, exported.preprocessing.apply(part).numpy())
    done = 0
    for part in images.split(list(batches)):
        poll()
        expected = embedder.embed(part).cpu().numpy()
        for runtime, forward in runtimes.items():
            yield compare(runtime, expected, forward(part))
            done += 1
            if progress is not None:
                progress("parity", done, len(batches) * len(runtimes))


def _require_parity(out: Path, check: Parity) -> None:
    if check.passed:
        return
    figures = f"relative difference {check.max_relative:.3g} (at most {MAX_RELATIVE:g} allowed)"
    cosine = f"1 - cosine {1 - check.min_cosine:.3g} (at most {1 - MIN_COSINE:.3g})"
    raise ExportError(
        str(out),
        f"{check.runtime} at batch {check.batch} does not give the model's embeddings: {figures}, {cosine}",
        "nothing was written; choose another backbone or a fixed --batch",
    )
