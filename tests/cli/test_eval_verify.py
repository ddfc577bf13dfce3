"""``facekd eval --verify``: agrees with what stands in the file, and with nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from facekd_cli.main import cli
from random_model import save_random_model

from facekd.data.images import encode_png

SIDE = 32


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with faces, a list, a model, and the report of evaluating it."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = ["path,identity"]
    for person in range(8):
        base = rng.integers(40, 216, (4, 4, 3))
        for number in range(3):
            image = np.kron(base, np.ones((8, 8, 1))) + rng.normal(0, 30, (SIDE, SIDE, 3))
            rows.append(f"p{person}_{number}.png,p{person}")
            Path(f"p{person}_{number}.png").write_bytes(encode_png(np.clip(image, 0, 255).astype(np.uint8)))
    Path("list.csv").write_text("\n".join(rows) + "\n")
    save_random_model(Path("net.safetensors"), seed=0)
    options = (
        "--fpr",
        0.1,
        "--fpr",
        1e-3,
        "--bootstrap",
        30,
        "--device",
        "cpu",
        "--resolution",
        16,
        "--json",
        "r.json",
    )
    result = run("eval", "net.safetensors", "--on", "list.csv", *options)
    assert result.exit_code == 0, result.output
    return tmp_path / "r.json"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def changed(path: Path, change: Callable[[Any], object]) -> None:
    report = json.loads(path.read_text())
    change(report)
    path.write_text(json.dumps(report))


def test_a_report_is_computed_again_and_equal_to_the_last_bit(made: Path) -> None:
    result = run("eval", "--verify", made)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{made}: 2 results computed again, equal to the last bit\n"
    assert run("eval", "--verify", made, "--device", "cpu").exit_code == 0


FIGURES: list[tuple[str, Callable[[Any], object], str]] = [
    ("auc", lambda r: r.update(auc=np.nextafter(r["auc"], 0)), "auc is "),
    ("eer", lambda r: r["eer"].update(high=0.123), "eer.high is "),
    ("tpr", lambda r: r["tpr_at_fpr"][0].update(tpr=0.875), "tpr_at_fpr[fpr 0.1].tpr is "),
    ("interval", lambda r: r["tpr_at_fpr"][0]["ci95"].__setitem__(1, 0.99), "tpr_at_fpr[fpr 0.1].ci95[1] is "),
    ("area", lambda r: r["auc_ci95"].__setitem__(0, 0.5), "auc_ci95[0] is "),
    ("crossing", lambda r: r["eer"]["ci95"].__setitem__(1, 0.5), "eer.ci95[1] is "),
    ("reason", lambda r: r.update(no_interval="none"), "no_interval is absent, the report says "),
    ("count", lambda r: r.update(impostor=r["impostor"] + 1), "impostor is 252, the report says 253"),
    (
        "needed",
        lambda r: r["refused"][0].update(needed=3001),
        "refused[fpr 0.001].needed is 3000, the ",
    ),
    ("added", lambda r: r.update(bonus=1), "bonus is absent, the report says 1"),
    ("taken", lambda r: r.pop("flip"), "flip is true, the report says absent"),
    ("kind", lambda r: r.update(failed_images=0.0), "failed_images is 0, the report says 0.0"),
]


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in FIGURES], ids=[row[0] for row in FIGURES])
def test_one_changed_figure_is_named_and_exits_1(made: Path, change: Callable, message: str) -> None:
    changed(made, lambda report: change(report["results"][1]))
    result = run("eval", "--verify", made)
    assert result.exit_code == 1, result.output
    (line,) = [line for line in result.stderr.splitlines() if "warning: " not in line]
    assert line.startswith(f"facekd: error: {made}: ") and message in line
    assert "net.safetensors on list.csv (16 px to full): " in line


def test_times_are_not_compared(made: Path) -> None:
    changed(made, lambda report: report["results"][0].update(seconds={"embed": 99.0}))
    assert run("eval", "--verify", made).exit_code == 0


def test_a_report_from_before_points_told_their_mark_still_agrees(made: Path) -> None:
    changed(made, lambda report: [p.pop("supported") for r in report["results"] for p in r["tpr_at_fpr"]])
    result = run("eval", "--verify", made)
    assert result.exit_code == 0 and "equal to the last bit" in result.stdout
    changed(made, lambda report: [(r.pop("auc_ci95"), r["eer"].pop("ci95")) for r in report["results"]])
    assert run("eval", "--verify", made).exit_code == 0
    changed(made, lambda report: report["results"][0]["tpr_at_fpr"][0].update(supported=True))
    result = run("eval", "--verify", made)
    assert result.exit_code == 1 and "supported is false, the report says true" in result.stderr
    changed(made, lambda report: report["results"][0]["tpr_at_fpr"][0].pop("ci95"))
    result = run("eval", "--verify", made)
    assert result.exit_code == 1 and "tpr_at_fpr[fpr 0.1].ci95 is " in result.stderr


def test_another_machine_is_allowed_its_rounding_and_no_more(made: Path) -> None:
    changed(made, lambda report: report["environment"].update(machine="abacus"))
    changed(made, lambda report: report["results"][0].update(auc=report["results"][0]["auc"] - 9e-4))
    result = run("eval", "--verify", made)
    assert result.exit_code == 0, result.output
    assert "equal within 0.001, for the report was made with another machine" in result.stdout
    changed(made, lambda report: report["results"][0].update(auc=report["results"][0]["auc"] - 9e-4))
    assert run("eval", "--verify", made).exit_code == 1


@pytest.mark.parametrize("key", ["pairs", "genuine", "impostor"])
def test_counts_of_pairs_are_exact_on_every_machine(made: Path, key: str) -> None:
    changed(made, lambda report: report["environment"].update(machine="abacus"))
    changed(made, lambda report: report["results"][0].update({key: report["results"][0][key] + 1}))
    result = run("eval", "--verify", made)
    assert result.exit_code == 1 and f"list.csv: {key} is " in result.stderr


def test_another_model_is_refused_before_it_is_measured(made: Path) -> None:
    save_random_model(Path("net.safetensors"), seed=1)
    result = run("eval", "--verify", made)
    assert result.exit_code == 2 and not result.stdout
    assert "net.safetensors: its digest is " in result.stderr and "was made with " in result.stderr


def test_another_set_is_refused(made: Path) -> None:
    lines = Path("list.csv").read_text().splitlines()
    Path("list.csv").write_text("\n".join(lines[:-1]) + "\n")
    result = run("eval", "--verify", made)
    assert result.exit_code == 2 and "list.csv: its digest is " in result.stderr


def test_stored_embeddings_are_verified_by_their_content(made: Path) -> None:
    rng = np.random.default_rng(3)
    arrays = {"labels": np.repeat(np.arange(5), 4), "names": np.array([str(i) for i in range(20)])}
    np.savez("e.npz", embeddings=rng.normal(size=(20, 8)).astype(np.float32), **arrays)
    assert run("eval", "e.npz", "--fpr", 0.1, "--json", "e.json", "--bootstrap", 9).exit_code == 0
    assert run("eval", "--verify", "e.json").exit_code == 0
    np.savez("e.npz", embeddings=rng.normal(size=(20, 8)).astype(np.float32), **arrays)
    result = run("eval", "--verify", "e.json")
    assert result.exit_code == 2 and "e.npz: its digest is " in result.stderr


ARGUMENTS: list[tuple[Callable[[Any], object], str]] = [
    (lambda report: report.pop("arguments"), "says not how it was made"),
    (lambda report: report["arguments"].pop("flip"), "arguments: flip is missing"),
    (lambda report: report["arguments"].update(wish=1), "arguments: 'wish' is unknown"),
    (lambda report: report["arguments"].update(fprs=[5.0]), "arguments: fprs is [5.0]"),
    (lambda report: report["arguments"].update(batch=0), "arguments: batch is 0"),
    (lambda report: report["arguments"].update(models=[]), "arguments: models is []"),
    (lambda report: report["arguments"].update(protocol="guess"), "holds identities, and guess needs pairs"),
    (lambda report: report["arguments"].update(models=["gone.onnx"]), "gone.onnx: no such file"),
    (lambda report: report["arguments"].update(sets=["gone.csv"]), "gone.csv: no such file"),
    (lambda report: report.update(results=[]), "holds no results"),
    (lambda report: report["results"][0].pop("set_digest"), "does not name model and set with their digests"),
]


@pytest.mark.parametrize(("change", "message"), ARGUMENTS, ids=[row[1][:30] for row in ARGUMENTS])
def test_a_report_that_cannot_be_done_again_is_refused_in_one_line(made: Path, change: Callable, message: str) -> None:
    changed(made, change)
    result = run("eval", "--verify", made)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if "warning: " not in line]
    assert line.startswith("facekd: error: ") and message in line


@pytest.mark.parametrize("text", ["", "{", "[]", '{"results": [{"auc": NaN}]}', "[" * 100_000, "\udcff"])
def test_what_is_no_report_is_refused(made: Path, text: str) -> None:
    Path("x.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    result = run("eval", "--verify", "x.json")
    assert result.exit_code == 2 and result.stderr.startswith("facekd: error: x.json: ")


@pytest.mark.parametrize(
    ("option", "name"), [(("net.safetensors",), "MODEL"), (("--no-flip",), "--flip"), (("--fpr", "0.1"), "--fpr")]
)
def test_other_options_beside_verify_are_refused(made: Path, option: tuple[str, ...], name: str) -> None:
    result = run("eval", "--verify", made, *option)
    assert result.exit_code == 2 and f"takes everything from {made} (leave {name} out)" in result.stderr


def test_false_accepts_may_differ_by_two_on_another_machine(made: Path) -> None:
    changed(made, lambda report: report["environment"].update(machine="abacus"))
    changed(made, lambda report: report["results"][0]["tpr_at_fpr"][0].update(false_accepts=23))
    assert run("eval", "--verify", made).exit_code == 0
    changed(made, lambda report: report["results"][0]["tpr_at_fpr"][0].update(false_accepts=22))
    result = run("eval", "--verify", made)
    assert result.exit_code == 1 and "false_accepts is 25, the report says 22" in result.stderr


def test_a_changed_summary_is_named_too(made: Path) -> None:
    rows = [f"p{p}_{n}.png,p{(p + shift) % 8}_{m}.png,{int(shift == 0)}" for p in range(8) for n, m, shift in
            ((0, 1, 0), (0, 2, 0), (1, 2, 1), (0, 1, 3))]  # fmt: skip
    for name in ("one.csv", "two.csv"):
        Path(name).write_text("\n".join(["path1,path2,label", *(rows if name == "one.csv" else rows[4:])]) + "\n")
    words = ("eval", "net.safetensors", "--on", "one.csv", "--on", "two.csv", "--bootstrap", 0, "--device", "cpu")
    assert run(*words, "--json", "s.json", "--protocol", "lfw").exit_code == 0
    assert run("eval", "--verify", "s.json").exit_code == 0
    changed(Path("s.json"), lambda report: report["across_sets"][0]["accuracy"].pop("spread"))
    changed(Path("s.json"), lambda report: report["across_sets"][0].pop("tpr_at_fpr"))
    assert run("eval", "--verify", "s.json").exit_code == 0  # as before summaries told these
    changed(Path("s.json"), lambda report: report["across_sets"][0]["accuracy"].update(mean=0.9876))
    result = run("eval", "--verify", "s.json")
    assert result.exit_code == 1 and "net.safetensors over 2 sets: accuracy.mean is " in result.stderr
    changed(Path("s.json"), lambda report: report.update(across_sets=[1]))
    assert run("eval", "--verify", "s.json").exit_code == 2


def test_a_comparison_of_two_models_is_verified_with_both_named(made: Path) -> None:
    save_random_model(Path("two.safetensors"), seed=2)
    words = ("eval", "net.safetensors", "two.safetensors", "--on", "list.csv", "--bootstrap", 0, "--device", "cpu")
    made_again = run(*words, "--cross", "--fpr", 0.1, "--json", "c.json", "--report", "c.html")
    assert made_again.exit_code == 0, made_again.output
    assert "--cross" in Path("c.html").read_text() and run("eval", "--verify", "c.json").exit_code == 0
    changed(Path("c.json"), lambda report: report["results"][2].update(auc=0.5))
    result = run("eval", "--verify", "c.json")
    assert result.exit_code == 1
    assert "net.safetensors in " in result.stderr and "two.safetensors on list.csv: auc is " in result.stderr
