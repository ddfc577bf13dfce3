"""A model to one ONNX file that is known to compute the same embeddings.

The float graph (:mod:`facekd.engine.export.source`) is brought into the form asked for, and every file is run in each
runtime at several batch sizes, against the model it came from, before it gets its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import facekd
from facekd.engine.export.checks import check_batch, held_out, probes
from facekd.engine.export.fold import INPUT, OUTPUT
from facekd.engine.export.form import Form, check_output, settled, taken_by
from facekd.engine.export.graph import (
    add_unit_length,
    bake_preprocessing,
    hide_from_insightface,
    set_metadata,
    take_pictures,
)
from facekd.engine.export.half import to_half
from facekd.engine.export.int8 import Quantised, to_int8
from facekd.engine.export.prelu import rewrite_prelu
from facekd.engine.export.report import ExportReport, consumer_notes
from facekd.engine.export.source import carried_metadata, float_graph
from facekd.engine.parity import Parity
from facekd.engine.progress import Progress
from facekd.engine.resumable import Watched
from facekd.engine.signals import interruptible
from facekd.errors import ExportError, InputError, UsageError
from facekd.files import write_atomic
from facekd.models.embedder import Embedder
from facekd.models.onnx_model import load_onnx
from facekd.models.preprocessing import Preprocessing

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class Evidence:
    """The faces a file is made from and judged by.

    Attributes:
        faces: uint8 RGB (n, 3, height, width): what int8 takes its ranges from; the last few check parity instead.
        judge: Measures the file, once its parity is proved, and refuses it by raising; answers what it measured.
    """

    faces: np.ndarray | None = None
    judge: Callable[[Embedder], list[dict]] | None = None


FORM, NO_EVIDENCE, UNWATCHED = Form(), Evidence(), Watched()


def export_onnx(
    embedder: Embedder,
    out: Path,
    form: Form = FORM,
    *,
    evidence: Evidence = NO_EVIDENCE,
    opencv: bool = True,
    force: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write a model as one ONNX file, after proving that the file equals the model.

    The file takes ``data``, (batch, 3, height, width) float32 or as ``form`` says, and gives ``fc1`` (batch, dim), the
    raw embedding. It is run in onnxruntime and in OpenCV on images at batches 1, 2 and 5 (a fixed batch: at that one),
    fed as its own metadata says, and gets its name only if values and cosines keep the limits of its precision
    (`facekd.engine.parity.LIMITS`). A file already there is replaced whole or left as it was.

    Args:
        embedder: The model, as `load_embedder` opens it: PyTorch, or an ONNX file that computes in float.
        out: Path to write; its folder must exist.
        form: What the file takes, gives and computes with.
        evidence: Faces to take the ranges of int8 from, and what judges the finished file.
        opencv: Check with OpenCV too. A float32 file it cannot run is refused; of the other forms it is told.
        force: Replace an existing file.
        progress: Told of each step.

    Returns:
        The digest of the file and the figures of every check.

    Example:
        >>> import tempfile
        >>> from facekd.models.embedder import TorchEmbedder
        >>> linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 4))
        >>> expects = Preprocessing.named("half", size=(16, 16))
        >>> embedder = TorchEmbedder("linear", "0", 4, expects, {}, linear.eval(), torch.device("cpu"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = export_onnx(embedder, Path(folder, "linear.onnx"), Form(batch=1))
        >>> [(check.runtime, check.batch, check.passed) for check in report.parity]
        [('onnxruntime', 1, True), ('opencv', 1, True)]

    Raises:
        UsageError: A wrong option, a missing folder, or a file already there without ``force``.
        NonFiniteError: The model holds a NaN or an infinity.
        ExportError: The model cannot be traced, or the file does not equal it; nothing is written.
        RequirementError: Whatever ``evidence.judge`` refuses; nothing is written.
        DeviceError: The file cannot be written.
        Interrupted: SIGTERM or Ctrl-C came; nothing is written.
    """
    check_output(out, force=force)
    form = settled(form, embedder)
    if form.precision == "int8" and evidence.faces is None:
        raise UsageError("--precision int8", "takes its ranges from faces", "give some with --calibrate DATA")
    parity: list[Parity] = []
    unread: list[str] = []
    measured: list[dict[str, Any]] = []
    with interruptible(f"export of {out}", "nothing was written; run the command again") as poll:
        built = build_model(embedder, form, evidence.faces, Watched(progress, poll))

        def write(file: Path) -> None:
            file.write_bytes(built.model.SerializeToString())
            exported = load_onnx(file, embedder.name)
            batches = probes(embedder, form, evidence.faces)
            for images in batches:
                poll()
                for check in check_batch(embedder, exported, images, form.precision, opencv=opencv, unread=unread):
                    parity.append(check)
                    if progress is not None:
                        progress("parity", len(parity), len(batches) * (2 if opencv and not unread else 1))
            if evidence.judge is not None:
                measured.extend(evidence.judge(exported))

        digest = _write(out, write)
    notes = consumer_notes(embedder.preprocessing, form, opencv=opencv) + unread[:1]
    return _report(embedder, out, form, built, digest=digest, notes=notes, parity=parity, measured=measured)


@dataclass(frozen=True)
class Built:
    """A graph in the form asked for, not yet checked.

    Attributes:
        model: The graph.
        float_bytes: The size it has in float32.
        rewritten: How many PReLU were written in other words.
        quantised: What became of it in int8, else None.
    """

    model: ModelProto
    float_bytes: int
    rewritten: int
    quantised: Quantised | None


def build_model(embedder: Embedder, form: Form, faces: np.ndarray | None = None, watched: Watched = UNWATCHED) -> Built:
    """The ONNX graph of a model in a form, with names, shapes and metadata; not yet checked.

    Args:
        embedder: The model.
        form: With nothing left open.
        faces: What int8 takes its ranges from; the last few are left for the checks.
        watched: Told of the work, and may stop it.

    Raises:
        NonFiniteError: The model holds a NaN or an infinity.
        ExportError: The model holds an operation that cannot be exported or converted.
    """
    import onnx

    model = float_graph(embedder, form.batch or "dynamic")
    if watched.progress is not None:
        watched.progress("trace", 1, 1)
    rewritten = 0 if form.keep_prelu else rewrite_prelu(model)
    size, quantised = model.ByteSize(), None
    if form.precision == "fp16":
        model = to_half(model, embedder.name)
    elif form.precision == "int8" and faces is not None:
        pixels = _taken(embedder, faces[: -held_out(form)])
        model, quantised = to_int8(model, pixels, embedder.name, poll=watched.poll, progress=watched.progress)
    preprocessing = _with_input(model, embedder, form)
    if form.unit:
        add_unit_length(model)
    set_metadata(model, _metadata(embedder, form, preprocessing))
    onnx.checker.check_model(model)
    return Built(model, size, rewritten, quantised)


def _taken(embedder: Embedder, faces: np.ndarray) -> np.ndarray:
    pixels: np.ndarray = embedder.preprocessing.apply(torch.from_numpy(faces)).numpy()
    return pixels


def _with_input(model: ModelProto, embedder: Embedder, form: Form) -> Preprocessing:
    """Put the preprocessing asked for in front of the graph; what images must go through for the file that results."""
    preprocessing = embedder.preprocessing
    if form.preprocess == "plain":
        hide_from_insightface(model)
        return preprocessing
    if taken_by(embedder) == "plain":
        turned = preprocessing.color == "bgr"
        step = -1 if turned else 1
        mean, std = preprocessing.mean[::step], preprocessing.std[::step]
        bake_preprocessing(model, mean=mean, std=std, reverse_channels=turned)
    if form.preprocess == "uint8":
        take_pictures(model)
    color = "bgr" if form.preprocess == "uint8" else "rgb"
    return Preprocessing.named("none", color, preprocessing.size)


def _metadata(embedder: Embedder, form: Form, expects: Preprocessing) -> dict[str, str]:
    """Everything the file says of itself; thresholds of the float model do not hold for other embeddings."""
    carried = carried_metadata(embedder)
    if form.precision == "int8" or form.unit:
        carried.pop("facekd.calibration", None)
    own = {
        "version": facekd.__version__,
        "preprocess": str(form.preprocess),
        **expects.to_metadata(),
        "embedding_size": str(embedder.embedding_size),
        "precision": form.precision,
        **({"unit": "true"} if form.unit else {}),
    }
    return carried | {f"facekd.{key}": value for key, value in own.items()}


def _write(out: Path, write: Callable[[Path], None]) -> str:
    """Write a file that gets its name once every check has passed; its digest."""
    try:
        return write_atomic(out, write)
    except InputError as error:
        fix = "leave OpenCV out with --no-opencv" if "OpenCV" in error.what else "choose another backbone"
        raise ExportError(str(out), error.what, fix) from error
    except ExportError as error:
        raise ExportError(str(out), error.what, error.fix) from error


def _report(
    embedder: Embedder,
    out: Path,
    form: Form,
    built: Built,
    *,
    digest: str,
    notes: list[str],
    parity: list[Parity],
    measured: list[dict[str, Any]],
) -> ExportReport:
    model = built.model
    height, width = embedder.preprocessing.size
    batch: str | int = "batch" if form.batch in (None, "dynamic") else form.batch or ""
    sides = [height, width, 3] if form.preprocess == "uint8" else [3, height, width]
    return ExportReport(
        file=str(out),
        digest=digest,
        bytes=out.stat().st_size,
        opset=next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        preprocess=str(form.preprocess),
        batch=form.batch or "dynamic",
        input=INPUT,
        output=OUTPUT,
        input_shape=[batch, *sides],
        output_shape=[batch, embedder.embedding_size],
        parity=parity,
        notes=notes,
        precision=form.precision,
        unit=form.unit,
        float_bytes=built.float_bytes,
        prelu_rewritten=built.rewritten,
        quantised=built.quantised,
        metadata={entry.key: entry.value for entry in model.metadata_props},
        measured=measured,
    )
