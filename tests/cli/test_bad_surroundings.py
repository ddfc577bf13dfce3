"""Bad inputs 126 to 128: folders, devices and environments that refuse; and recipes refused before torch is loaded."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from bad_inputs import RECIPE, TRAIN, Case, answer, recipe, write_faces, write_model
from facekd_cli.main import COMMANDS
from test_bad_recipes import TEXTS

from facekd.errors import UsageError


def absent_accelerator(here: Path) -> Sequence[str]:
    write_faces(here / "faces")
    return [*recipe(here)[:-1], "cuda:77"]


def output_below_a_file(here: Path) -> Sequence[str]:
    write_faces(here / "faces")
    (here / "file").write_text("x")
    return [*recipe(here)[:2], "--out", "file/run", "--device", "cpu"]


def output_is_a_file(here: Path) -> Sequence[str]:
    write_faces(here / "faces")
    (here / "out").write_text("x")
    return recipe(here)


def figures_into_no_folder(here: Path) -> Sequence[str]:
    return [*recipe(here), "--json", "gone/figures.json"]


def embeddings_into_no_folder(here: Path) -> Sequence[str]:
    write_faces(here / "faces")
    write_model(here / "m.safetensors")
    return ["embed", "m.safetensors", "faces", "-o", "gone/e.npz", "--device", "cpu"]


def onnx_into_no_folder(here: Path) -> Sequence[str]:
    write_model(here / "m.safetensors")
    return ["export", "m.safetensors", "-o", "gone/m.onnx"]


def planted(monkeypatch: pytest.MonkeyPatch, misdeed: Callable[[], object]) -> Case:
    """A command that is refused, after it did what none may."""

    def load(*_: object) -> None:
        misdeed()
        raise UsageError("r.yaml", "refused")

    monkeypatch.setitem(COMMANDS, "planted", "Do what no command may.")
    monkeypatch.setitem(sys.modules, "facekd_cli.planted", SimpleNamespace(command=click.Command("p", callback=load)))

    def make(here: Path) -> Sequence[str]:
        (here / "file").write_text("before")
        return ["planted"]

    return Case("planted", make, "refused")


MISDEEDS: list[tuple[Callable[[], object], str]] = [
    (lambda: print("figures"), "figures"),
    (lambda: Path("file").write_text("after.."), "changed or removed: .*here/file"),
    (lambda: Path("file").unlink(), "changed or removed: .*here/file"),
    (lambda: Path("other").touch(), "written outside the output folder: .*here/other"),
    (lambda: socket.socket(), "socket.__new__"),
    (lambda: subprocess.run(["true"], check=True), "subprocess.Popen"),
    (lambda: pickle.loads(b"cbuiltins\nlen\n."), "pickle.find_class"),
]


@pytest.mark.parametrize(("misdeed", "told"), MISDEEDS, ids=[told for _, told in MISDEEDS])
def test_negative_control__a_command_that_does_more_than_refuse_is_found(
    misdeed: Callable[[], object], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match=told):
        answer(planted(monkeypatch, misdeed), tmp_path)


def test_the_same_command_without_a_misdeed_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer(planted(monkeypatch, lambda: None), tmp_path).exit_code == 2


CASES = [
    Case("126-output-below-a-file", output_below_a_file, "file/run: cannot be written: Not a directory", 5),
    Case("126-output-is-a-file", output_is_a_file, "out: is a file, not a folder"),
    Case("126-json-into-no-folder", figures_into_no_folder, "Invalid value for '--json': .*gone is not a folder"),
    Case("126-embed-into-no-folder", embeddings_into_no_folder, "gone/e.npz: its folder does not exist"),
    Case("126-export-into-no-folder", onnx_into_no_folder, "gone/m.onnx: its folder does not exist"),
    Case("127-no-such-accelerator", absent_accelerator, "cuda:77: no such device here", 5),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.number)
def test_bad_surroundings_are_told(case: Case, tmp_path: Path) -> None:
    assert answer(case, tmp_path).exit_code == case.code


REFUSE_ALL = """
import pathlib, sys
from click.testing import CliRunner
from facekd_cli.main import cli
for path in sorted(pathlib.Path().glob("*.yaml")):
    result = CliRunner().invoke(cli, ["train", str(path), "--out", "out"])
    assert result.exit_code == 2 and result.stderr.startswith("facekd: error: " + path.name), (path, result.stderr)
heavy = {"torch", "timm", "cv2", "onnx", "onnxruntime", "sklearn"} & set(sys.modules)
assert not heavy, heavy
"""


def test_recipes_are_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    for number, text, _ in TEXTS:
        (tmp_path / f"{number}.yaml").write_bytes(text)
    done = subprocess.run([sys.executable, "-c", REFUSE_ALL], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


ENVIRONMENTS = {
    "no-home": {"HOME": ""},
    "c-locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "narrow-terminal": {"COLUMNS": "20"},
    "no-threads": {"OMP_NUM_THREADS": "0"},
    "no-accelerator": {"CUDA_VISIBLE_DEVICES": ""},
}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_item_126_odd_environments_change_no_refusal(environment: str, tmp_path: Path) -> None:
    (tmp_path / "é.yaml").write_text(RECIPE.replace("epochs: 1", "epochs: 0"))
    words = [sys.executable, "-m", "facekd_cli", "train", "é.yaml", *TRAIN[2:]]
    surroundings = {**os.environ, **ENVIRONMENTS[environment]}
    done = subprocess.run(words, cwd=tmp_path, env=surroundings, capture_output=True, timeout=60)
    assert done.returncode == 2
    (line,) = done.stderr.decode("utf-8", "replace").splitlines()
    assert line.startswith("facekd: error: ") and "train.epochs: must be at least 1, got 0" in line


LIMITED = """
import os, resource, signal, sys
from facekd_cli.main import cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run where both are ignored
signal.signal(signal.SIGHUP, signal.SIG_DFL)
{before}
cli(sys.argv[1:])
"""
WHILE_IMPORTING = """
asked = []
def hear(event, arguments):
    if event == "import" and arguments[0] == "torch" and not asked:
        asked.append(True)
        os.kill(os.getpid(), signal.{name})
sys.addaudithook(hear)
"""
WHILE_LISTING = """
asked = []
def hear(event, arguments):
    if event in ("os.scandir", "os.listdir") and str(arguments[0]).endswith("faces") and not asked:
        asked.append(True)
        os.kill(os.getpid(), signal.{name})
sys.addaudithook(hear)
"""
LIMITS = {
    "126-memory-of-1-GB": (
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))",
        5,
        ["facekd: error: .*memory"],
    ),
    "128-ctrl-c-while-importing": (WHILE_IMPORTING.format(name="SIGINT"), 130, ["facekd: error: interrupted"]),
    "128-sigterm-while-importing": (WHILE_IMPORTING.format(name="SIGTERM"), -signal.SIGTERM, []),
    "128-hangup-while-importing": (WHILE_IMPORTING.format(name="SIGHUP"), -signal.SIGHUP, []),
    "128-ctrl-c-while-listing-images": (WHILE_LISTING.format(name="SIGINT"), 130, ["facekd: error: interrupted"]),
    "128-sigterm-while-listing-images": (WHILE_LISTING.format(name="SIGTERM"), -signal.SIGTERM, []),
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits and signals as Linux has them")
@pytest.mark.parametrize("limit", LIMITS)
def test_too_little_memory_and_signals_before_the_start_leave_one_line_or_none_and_no_file(
    limit: str, tmp_path: Path
) -> None:
    before, code, told = LIMITS[limit]
    write_faces(tmp_path / "faces")
    words = [sys.executable, "-c", LIMITED.format(before=before), *recipe(tmp_path)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == code and not done.stdout
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == len(told) and all(re.match(*pair) for pair in zip(told, lines, strict=True)), done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"faces", "r.yaml"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="signals as Linux has them")
def test_item_128_a_run_that_was_held_for_a_while_goes_on_to_the_same_end(tmp_path: Path) -> None:
    write_faces(tmp_path / "faces")
    words = [sys.executable, "-m", "facekd_cli", *recipe(tmp_path, ("epochs: 1", "epochs: 4"))]
    students = []
    for held in (False, True):
        process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL)
        metrics = tmp_path / "out" / "metrics.jsonl"
        if held:
            while not metrics.exists() and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.5)
            assert process.poll() is None
            process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=300) == 0
        students.append((tmp_path / "out" / "student.safetensors").read_bytes())
        shutil.rmtree(tmp_path / "out")
    assert students[0] == students[1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_item_099_a_folder_that_cannot_be_written_is_exit_5(tmp_path: Path) -> None:
    def make(here: Path) -> Sequence[str]:
        write_faces(here / "faces")
        (here / "locked").mkdir(mode=0o500)
        return [*recipe(here)[:2], "--out", "locked/run", "--device", "cpu"]

    assert answer(Case("99-read-only", make, "locked/run", 5), tmp_path).exit_code == 5
