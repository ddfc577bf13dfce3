"""What lies beside an exported file: a manifest for programs and a model card for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facekd.engine.evaluation.calibration import calibration_place
from facekd.engine.export.report import ExportReport
from facekd.errors import UsageError
from facekd.files import disk_errors, write_json, write_text
from facekd.models.onnx_file import METADATA_PREFIX

INPUTS = {
    "plain": "float32, channels first, (value - mean) / std with the colour order, mean and std below",
    "baked": "float32, channels first, RGB values 0..255; the graph normalises",
    "uint8": "uint8, channels last, blue, green, red, as OpenCV gives pictures; the graph does the rest",
}
SILENT = "not stated"


def side_files(out: Path) -> tuple[Path, Path]:
    """Where the manifest and the card of a file lie.

    Example:
        >>> [path.name for path in side_files(Path("student.onnx"))]
        ['student.onnx.manifest.json', 'student.onnx.card.md']
    """
    return out.with_name(f"{out.name}.manifest.json"), out.with_name(f"{out.name}.card.md")


def told_of(out: Path) -> tuple[Path, ...]:
    """What may lie beside a file and holds for it alone: its manifest, its card, its thresholds."""
    return *side_files(out), calibration_place(out)


def check_side_files(out: Path, *, force: bool) -> None:
    """Refuse to overwrite what lies beside the file to be written.

    Raises:
        UsageError: One of them is there, without ``force``.
    """
    for path in told_of(out):
        if path.exists() and not force:
            raise UsageError(str(path), "exists already", "choose another name, or replace it with --force")


def forget_side_files(out: Path) -> None:
    """Remove what holds for the file that is about to be replaced.

    Raises:
        DeviceError: It cannot be removed.
    """
    with disk_errors(out):
        for path in told_of(out):
            path.unlink(missing_ok=True)


def write_side_files(report: ExportReport) -> None:
    """Write the manifest and the card of a file just exported.

    Raises:
        DeviceError: They cannot be written.
    """
    place, card = side_files(Path(report.file))
    write_json(place, manifest(report))
    write_text(card, model_card(report))


def manifest(report: ExportReport) -> dict[str, Any]:
    """Everything a program needs to use the file, under plain names.

    Args:
        report: Of the export.
    """
    said = {key.removeprefix(METADATA_PREFIX): text for key, text in report.metadata.items()}
    told = report.to_json()
    calibration = json.loads(said.pop("calibration")) if "calibration" in said else None
    kept = ("digest", "bytes", "opset", "precision", "unit", "preprocess", "batch", "input", "output")
    return {
        "file": Path(report.file).name,
        **{key: told[key] for key in (*kept, "input_shape", "output_shape")},
        "metadata": said,
        "calibration": calibration,
        "parity": told["parity"],
        "measured": told["measured"],
        "quantised": told["quantised"],
        "notes": report.notes,
    }


def model_card(report: ExportReport) -> str:
    """The same in Markdown, for people.

    Args:
        report: Of the export.
    """
    said = {key.removeprefix(METADATA_PREFIX): text for key, text in report.metadata.items()}
    name = Path(report.file).name
    rows = [
        ("SHA-256", report.digest),
        ("size", f"{report.bytes:,} bytes"),
        ("backbone", said.get("backbone", SILENT)),
        ("input", f"`{report.input}` {_shape(report.input_shape)}: {INPUTS[report.preprocess]}"),
        ("output", f"`{report.output}` {_shape(report.output_shape)}{', of length one' if report.unit else ''}"),
        ("precision", report.precision),
        ("colour order", said["color"]),
        ("mean, std", f"{said['mean']}; {said['std']}"),
        ("alignment", said.get("template") or SILENT),
        ("made by", f"facekd {said['version']}, opset {report.opset}"),
        ("digest of the student", said.get("student_digest", SILENT)),
        ("digest of the teacher", said.get("teacher_digest") or SILENT),
        ("licence of the teacher", said.get("licence_teacher") or SILENT),
        ("licence of the data", said.get("licence_data") or SILENT),
    ]
    parts = [f"# {name}", "A face embedding network. Two faces are compared by the cosine of their embeddings."]
    parts.append(_table(("", ""), rows))
    parts += _thresholds(said)
    parts += _figures(report)
    parts += ["## Checked", _parity(report)]
    parts += ["## Know before use", "\n".join(f"- {note}" for note in [*report.notes, *_always()])]
    return "\n\n".join(parts) + "\n"


def _shape(sides: list[str | int]) -> str:
    return " x ".join(str(side) for side in sides)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _thresholds(said: dict[str, str]) -> list[str]:
    if "calibration" not in said:
        return ["## Thresholds", "None are kept in this file: `facekd calibrate` finds them on your faces."]
    kept = json.loads(said["calibration"])
    rows = [(f"{t['fpr']:g}", f"{t['cosine']:.4f}", f"{t['tpr']:.5f}") for t in kept["thresholds"]]
    mirrored = "plus that of the mirrored image" if kept["flip"] else "without that of the mirrored image"
    told = f"Accept at or above; found on `{kept['set']}`, with the embedding {mirrored}."
    return ["## Thresholds", told, _table(("FPR", "cosine", "TPR there"), rows)]


def _figures(report: ExportReport) -> list[str]:
    if not report.measured:
        return []
    rows = []
    for result in report.measured:
        accuracy = "-" if result["accuracy"] is None else f"{result['accuracy']['mean']:.4f}"
        points = ", ".join(f"{point['tpr']:.4f} at {point['fpr']:g}" for point in result["tpr_at_fpr"])
        rows.append((result["model"], result["set"], accuracy, points))
    return ["## Measured", _table(("model", "set", "accuracy", "TPR at FPR"), rows)]


def _parity(report: ExportReport) -> str:
    rows = [
        (check.runtime, str(check.batch), f"{check.max_abs:.2e}", f"{check.min_cosine:.7f}") for check in report.parity
    ]
    return _table(("runtime", "batch", "largest difference", "smallest cosine"), rows)


def _always() -> list[str]:
    return [
        "Faces must be aligned as the model was trained; figures hold for faces like those they were measured on.",
        "Error rates differ between groups of people: measure yours with `facekd eval --by COLUMN`.",
    ]
