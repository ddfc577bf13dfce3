"""What commands share: JSON that is JSON, devices that exist by name, progress that stays out of the way."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from facekd_cli.common import (
    BarProgress,
    PlainProgress,
    check_models,
    console,
    device_option,
    json_option,
    open_model,
    progress_bar,
    write_json,
)
from rich.console import Console
from rich.progress import Progress

from facekd.errors import InputError


@click.command()
@device_option
@json_option
def figures(device: str, json_path: str | None) -> None:
    console().print(f"on {device}")
    if json_path is not None:
        write_json({"device": device}, json_path)


def test_figures_go_to_the_file_and_words_to_stdout(tmp_path):
    result = CliRunner().invoke(figures, ["--device", "cuda:1", "--json", str(tmp_path / "f.json")])
    assert result.stdout == "on cuda:1\n"
    assert json.loads((tmp_path / "f.json").read_text(encoding="utf-8")) == {"device": "cuda:1"}


def test_json_on_stdout_moves_words_to_stderr():
    result = CliRunner().invoke(figures, ["--json", "-"])
    assert (json.loads(result.stdout), result.stderr) == ({"device": "auto"}, "on auto\n")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "", "CPU", "cuda:1111"])
def test_a_device_that_has_no_such_name_is_refused(device):
    assert CliRunner().invoke(figures, ["--device", device]).exit_code == 2


def test_what_json_cannot_say_is_refused_before_the_file_is_touched(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json({"tpr": float("nan")}, str(tmp_path / "f.json"))
    assert list(tmp_path.iterdir()) == []


def test_quick_work_is_silent_and_a_new_phase_starts_anew():
    told: list[str] = []
    seconds = iter([0.0, 1.9, 100.0, 101.0, 102.5])
    report = PlainProgress(told.append, lambda: next(seconds))
    for phase, done in (("a", 0), ("a", 9), ("b", 0), ("b", 1), ("b", 5)):
        report(phase, done, 10)
    assert told == ["b: 5/10, 2.0/s, 2 s left"]


def test_the_rate_counts_only_what_was_done_here():
    told: list[str] = []
    seconds = iter([0.0, 4.0])
    report = PlainProgress(told.append, lambda: next(seconds))
    report("resumed", 1000, 1040)
    report("resumed", 1020, 1040)
    assert told == ["resumed: 1020/1040, 5.0/s, 4 s left"]


def test_bars_appear_only_once_the_work_has_lasted():
    seconds = iter([0.0, 1.0, 3.0])
    bar = Progress(console=Console(quiet=True))
    report = BarProgress(bar, lambda: next(seconds))
    started = []
    for done in range(3):
        report("a", done, 3)
        started.append(bar.live.is_started)
    bar.stop()
    assert started == [False, False, True]
    assert bar.tasks[0].completed == 2


def test_progress_away_from_a_terminal_is_plain():
    with progress_bar() as report:
        assert isinstance(report, PlainProgress)


def test_names_of_models_pass_where_paths_must_be_there(tmp_path):
    (tmp_path / "a.pt").touch()
    check_models([Path("hf:owner/name/a.pt"), Path("timm/resnet18"), tmp_path / "a.pt", tmp_path])
    with pytest.raises(InputError, match="b.pt: no such file or folder"):
        check_models([tmp_path / "a.pt", tmp_path / "b.pt"])


def test_what_a_model_was_taken_for_goes_to_stderr(tmp_path, capsys):
    import torch

    from facekd.models.backbone import build_backbone

    module = build_backbone("mobilefacenet", embedding_size=16, input_size=32, options={"width": 0.25})
    torch.save(module.state_dict(), tmp_path / "a.pt")
    open_model(tmp_path / "a.pt", None, None)
    told = capsys.readouterr()
    assert "a.pt: looks like TFace or AdaDistill MobileFaceNet, hence rgb and half" in told.err
    assert told.out == "" and all(line.startswith("facekd: warning: ") for line in told.err.splitlines())
    open_model(tmp_path / "a.pt", "rgb", "half")
    assert "looks like" not in capsys.readouterr().err
