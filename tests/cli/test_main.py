"""The command line as a whole: help without torch, one line per error, exit codes, a reader that goes away."""

from __future__ import annotations

import errno
import importlib.metadata
import itertools
import os
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from facekd_cli.main import COMMANDS, LIGHT, cli, exit_code

from facekd import __version__
from facekd.errors import DataError, DeviceError, Interrupted, NonFiniteError, RecipeError, RequirementError, UsageError
from facekd.releases import LEAST


def invoke(*arguments: str):
    return CliRunner().invoke(cli, list(arguments))


def raising(error: BaseException):
    def run() -> None:
        raise error

    return run


def walk(command: click.Command, path: tuple[str, ...] = ()):
    """Every command under ``command``, with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from walk(command.get_command(context, name), (*path, name))


def test_help_lists_every_command():
    for flag in ("-h", "--help"):
        result = invoke(flag)
        assert result.exit_code == 0
        assert all(name in result.stdout and line in result.stdout for name, line in COMMANDS.items())


def examples(text: str) -> list[list[str]]:
    """The words of each worked example in a help text."""
    joined = text.replace("\\\n", " ")
    lines = [line.strip() for line in joined.splitlines() if line.strip().startswith("facekd ")]
    return [list(itertools.takewhile(lambda word: word not in ("|", ">", "&&"), shlex.split(line))) for line in lines]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples_of_options_that_exist(name):
    commands = dict(walk(cli))
    for path, command in commands.items():
        if path[:1] != (name,):
            continue
        result = invoke(*path, "-h")
        assert result.exit_code == 0
        assert invoke(*path, "--help").stdout == result.stdout
        shown = examples(result.stdout)
        assert any(tuple(words[1 : len(path) + 1]) == path for words in shown), f"{path} has no example"
        for words in shown:
            called = commands[tuple(words[1:3]) if tuple(words[1:3]) in commands else (words[1],)]
            known = {option for parameter in called.params for option in (*parameter.opts, *parameter.secondary_opts)}
            assert {word.split("=")[0] for word in words if word.startswith("-") and len(word) > 1} <= known
        for parameter in command.params:
            assert isinstance(parameter, click.Argument) or parameter.help, f"{path}: {parameter.name} has no help"


def test_version():
    assert invoke("--version").stdout == f"facekd {__version__}\n"


@pytest.mark.parametrize("arguments", [["-h"], ["recipe", "list"], ["recipe", "-h"], ["--version"]])
def test_light_commands_import_nothing_heavy(arguments):
    code = (
        "import sys\n"
        "from facekd_cli.main import cli\n"
        f"try: cli({arguments!r})\n"
        "except SystemExit as done: assert done.code == 0, done.code\n"
        "heavy = {'torch', 'timm', 'cv2', 'onnx', 'onnxruntime', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_importing_a_command_does_not_import_torch(name):
    code = f"import sys, facekd_cli.{name}\nassert not {{'torch', 'timm', 'cv2', 'onnxruntime'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trian"], "facekd: no such command: trian; did you mean train? (facekd -h shows how)"),
        (["--nothing"], "facekd: No such option '--nothing' (facekd -h shows how)"),
        (["recipe", "show"], "facekd recipe show: Missing argument 'RECIPE' (facekd recipe show -h shows how)"),
        (
            ["recipe", "list", "--json", "/none/x"],
            "facekd recipe list: Invalid value for '--json': /none is not a folder",
        ),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments, line):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"facekd: error: {line}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (RequirementError("tpr@1e-3", "0.9 is below 0.95"), 1, "tpr@1e-3: 0.9 is below 0.95"),
        (UsageError("x", "unknown", "write y"), 2, "x: unknown (write y)"),
        (DataError("a.jpg", "bad\nimage"), 3, "a.jpg: bad image"),
        (NonFiniteError("l2", "NaN"), 4, "l2: NaN"),
        (DeviceError("runs", "no space"), 5, "runs: no space"),
        (Interrupted(15, "train", "saved"), 143, "train: saved"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 5, "out of memory (lower the batch size or the number of workers)"),
        (OSError(errno.ENOSPC, "No space left on device", "a.bin"), 5, "a.bin: No space left on device"),
        (click.UsageError("two\nlines."), 2, "two lines"),
    ],
)
def test_errors_become_one_line_and_their_exit_code(error, code, text, capsys):
    assert exit_code(raising(error)) == code
    assert capsys.readouterr().err == f"facekd: error: {text}\n"


def test_every_recipe_problem_is_a_line(capsys):
    assert exit_code(raising(RecipeError(["a.yaml:1: x", "a.yaml:2: y"]))) == 2
    assert capsys.readouterr().err == "facekd: error: a.yaml:1: x\nfacekd: error: a.yaml:2: y\n"


def test_a_bug_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        exit_code(raising(ZeroDivisionError()))


def test_item_127_a_library_of_the_system_that_is_missing_is_one_line_and_a_wrong_import_is_a_bug(capsys):
    missing = ImportError("libGL.so.1: cannot open shared object file: No such file or directory")
    assert exit_code(raising(missing)) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line.startswith("facekd: error: libGL.so.1: cannot open shared object file") and "install the library" in line
    )
    with pytest.raises(ImportError):
        exit_code(raising(ImportError("cannot import name 'x' from 'facekd'")))


def installed(monkeypatch, **versions):
    """Another release of a library than there is; None where it is absent."""
    known = importlib.metadata.version

    def version(name):
        found = versions.get(name, known(name))
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.mark.parametrize(
    ("versions", "line"),
    [
        (
            {"torch": "2.9.1+cu132"},
            "torch: 2.9.1+cu132 is installed, 2.10 is the least: in older ones a checkpoint can corrupt memory "
            "while it loads, CVE-2026-24747 (pip install 'torch>=2.10')",
        ),
        (
            {"onnx": "1.20.1"},
            "onnx: 1.20.1 is installed, 1.21 is the least: in older ones a model file can reach other files, "
            "CVE-2026-27489 and CVE-2026-34446 (pip install 'onnx>=1.21')",
        ),
    ],
)
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in LIGHT])
def test_item_127_a_library_with_a_known_hole_is_refused_before_a_word_of_a_command_is_read(
    name, versions, line, monkeypatch
):
    installed(monkeypatch, **versions)
    result = invoke(name, "none", "--no-such-option")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"facekd: error: {line}\n")
    assert invoke(name, "-h").exit_code == 0


@pytest.mark.parametrize("versions", [{"torch": "2.10.0", "onnx": "1.21.0rc1"}, {"torch": "3.0"}, {"torch": None}])
def test_item_127_newer_libraries_and_absent_ones_pass(versions, monkeypatch):
    installed(monkeypatch, **versions)
    assert "No such option" in invoke("train", "none", "--no-such-option").stderr


def test_item_127_recipes_are_told_whatever_is_installed(monkeypatch):
    installed(monkeypatch, torch="1.0", onnx="1.0")
    assert invoke("recipe", "list").exit_code == 0


def test_item_127_what_is_refused_is_what_is_not_installed_either():
    wanted = (Path(__file__).parents[2] / "setup.cfg").read_text()
    assert all(f"\n    {library}>={least}\n" in wanted for library, (least, _) in LEAST.items())


@pytest.mark.parametrize("arguments", [["--debug", "recipe", "show", "none"], ["recipe", "show", "none", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(arguments):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Traceback")
    assert result.stderr.splitlines()[-1].startswith("facekd: error: none: no such recipe")
    assert "Traceback" not in invoke("recipe", "show", "none").stderr


def test_a_reader_that_goes_away_is_no_error():
    run = "from facekd_cli.main import cli; cli(['recipe', 'schema'])"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", run], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_closed_stdout_is_no_error():
    run = "import os, sys; os.close(1); sys.stdout = None\nfrom facekd_cli.main import cli; cli(['recipe', 'list'])"
    done = subprocess.run([sys.executable, "-c", run], stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_behind_stdout_is_told():
    run = "from facekd_cli.main import cli; cli(['recipe', 'schema'])"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", run], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 5
    assert done.stderr == "facekd: error: No space left on device\n"


GONE = {
    "eval": "gone.pt --on gone.bin",
    "export": "gone.pt -o a.onnx",
    "embed": "gone.pt gone -o a.npz",
    "calibrate": "gone.pt --on gone.bin",
    "match": "gone.jpg gone.jpg --model gone.onnx --threshold 0.3",
    "bench": "gone.onnx",
    "teacher": "inspect gone.pth",
    "train": "quickstart/proxylesskd_pad --set teacher.weights=gone.pt",
}


def test_a_file_that_is_not_there_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    code = """
import sys
from facekd_cli.main import cli
for words in sys.argv[1:]:
    try:
        cli(words.split())
    except SystemExit as end:
        print(words.split()[0], end.code, "torch" in sys.modules)
"""
    words = [f"{name} {rest}" for name, rest in GONE.items()]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{name} 2 False" for name in GONE]
    assert done.stderr.count("no such file or folder") == len(GONE)
    assert not list(tmp_path.iterdir())
