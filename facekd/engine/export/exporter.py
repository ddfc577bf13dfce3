"""A model to one ONNX file that is known to compute the same embeddings.

The float graph (:mod:`facekd.engine.export.source`) is brought into the form asked for, and every file is run in each
runtime at several batch sizes, against the model it came from, before it gets its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facekd.engine.export.build import Built, build_model
from facekd.engine.export.card import forget_side_files
from facekd.engine.export.checks import check_batch, check_mean, probes
from facekd.engine.export.fold import INPUT, OUTPUT
from facekd.engine.export.form import Form, check_output, settled
from facekd.engine.export.report import ExportReport, consumer_notes
from facekd.engine.parity import Parity
from facekd.engine.progress import Progress
from facekd.engine.resumable import Watched
from facekd.engine.signals import interruptible
from facekd.errors import ExportError, InputError, UsageError
from facekd.files import remove_left, write_atomic
from facekd.models.embedder import Embedder
from facekd.models.onnx_file import metadata_of
from facekd.models.onnx_model import load_onnx
from facekd.models.onnx_seal import sealed


@dataclass(frozen=True)
class Evidence:
    """The faces a file is made from and judged by.

    Attributes:
        faces: uint8 RGB (n, 3, height, width): the last few check parity (without, drawn ones do), and int8 takes its
            ranges from the others.
        judge: Measures the file, once its parity is proved, and refuses it by raising; answers what it measured.
    """

    faces: np.ndarray | None = None
    judge: Callable[[Embedder], list[dict]] | None = None


UNCALIBRATED = "the thresholds of the model do not hold for this file and are left out: facekd calibrate finds its own"
REWRITTEN = "PReLU is written in other words: OpenCV may run the file faster with --keep-prelu"
FORM, NO_EVIDENCE = Form(), Evidence()


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
    raw embedding. It is run in onnxruntime and in OpenCV on faces at batches 1, 2 and 5 (a fixed batch: at that one),
    fed as its own metadata says, and gets its name only if values and cosines keep the limits of its precision
    (`facekd.engine.parity.LIMITS`). A file already there is replaced whole or left as it was; what lies beside it and
    held for it goes with it.

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
        >>> import torch
        >>> from facekd.models.embedder import TorchEmbedder
        >>> from facekd.models.preprocessing import Preprocessing
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
        InputError: The model cannot be exported so: it ends in a head, computes in fewer bits already, or the faces are
            too few for int8; nothing is written.
        RequirementError: Whatever ``evidence.judge`` refuses; nothing is written.
        DeviceError: The file cannot be written.
        Interrupted: SIGTERM or Ctrl-C came; nothing is written.
    """
    check_output(out, force=force)
    remove_left(out)
    form = settled(form, embedder)
    if form.precision == "int8" and evidence.faces is None:
        raise UsageError("--precision int8", "takes its ranges from faces", "give some with --calibrate DATA")
    parity: list[Parity] = []
    unread: list[str] = []
    measured: list[dict[str, Any]] = []
    with interruptible(f"export of {out}", "nothing was written; run the command again") as poll:
        built = build_model(embedder, form, evidence.faces, Watched(progress, poll), opencv=opencv)

        def write(file: Path) -> None:
            file.write_bytes(sealed(built.model.SerializeToString()))
            exported = load_onnx(file, embedder.name)
            batches = probes(embedder, form, evidence.faces)
            for images in batches:
                poll()
                for check in check_batch(embedder, exported, images, form.precision, opencv=opencv, unread=unread):
                    parity.append(check)
                    if progress is not None:
                        progress("parity", len(parity), len(batches) * (2 if opencv and not unread else 1))
            check_mean(parity, form.precision)
            if evidence.judge is not None:
                measured.extend(evidence.judge(exported))
            forget_side_files(out)

        digest = _write(out, write)
    notes = consumer_notes(embedder.preprocessing, form, opencv=opencv) + unread[:1]
    if built.uncalibrated:
        notes.append(UNCALIBRATED)
    if built.rewritten and opencv:
        notes.append(REWRITTEN)
    return _report(embedder, out, form, built, digest=digest, notes=notes, parity=parity, measured=measured)


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
        metadata=metadata_of(model),
        measured=measured,
    )
