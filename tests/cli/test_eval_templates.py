"""``facekd eval`` on sets of templates: IJB and TinyFace folders in, tables and JSON out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from facekd_cli.main import cli
from ijb_folder import write_ijb
from random_model import save_random_model

from facekd.data.images import encode_png
from facekd.engine.training.selection import open_sets
from facekd.errors import UsageError
from facekd.recipe.evaluation import Evaluate

SIDE = 32


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, an IJB folder, a TinyFace folder and a folder of identities."""
    root = tmp_path_factory.mktemp("templates")
    write_ijb(root / "ijbc")
    picture = torch.zeros(SIDE, SIDE, 3, dtype=torch.uint8).numpy()
    for part, names in (("Probe", "1_0 2_0"), ("Gallery_Match", "1_1 2_1"), ("Gallery_Distractor", "a b c")):
        (root / "tiny" / part).mkdir(parents=True)
        for number, name in enumerate(names.split()):
            picture[:, : 4 + 5 * number] = 40 * number + len(part)
            (root / "tiny" / part / f"{name}.png").write_bytes(encode_png(picture))
            (root / "faces" / name[0]).mkdir(parents=True, exist_ok=True)
            (root / "faces" / name[0] / f"{name}.png").write_bytes(encode_png(picture))
    save_random_model(root / "net.safetensors")
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def evaluated(files: Path, tmp_path: Path, *arguments: object, on: str = "ijbc") -> tuple[list[dict], Result]:
    words = ("eval", files / "net.safetensors", "--on", files / on, "--device", "cpu", "--cache", tmp_path / "cache")
    result = run(*words, "--json", tmp_path / "out.json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads((tmp_path / "out.json").read_text())["results"], result


def test_1_1_is_what_auto_takes_and_the_table_tells_the_mode(files: Path, tmp_path: Path) -> None:
    (found,), result = evaluated(files, tmp_path, "--bootstrap", 20)
    assert (found["protocol"], found["norm"], found["det"], found["flip"]) == ("ijb-1:1", "keep", True, True)
    assert (found["genuine"], found["impostor"]) == (48, 1104)
    assert [point["fpr"] for point in found["tpr_at_fpr"]] == [1e-2, 1e-1]
    assert [entry["fpr"] for entry in found["refused"]] == [1e-6, 1e-5, 1e-4, 1e-3]
    for text in ("norm", "keep", "TPR @", f"{found['auc']:.5f}", "FPR 1e-6 refused: it needs 3,000,000 impostor pairs"):
        assert text in result.stdout
    assert "72 templates; IJB-C has 23,124" in result.stderr
    assert list((tmp_path / "cache").iterdir())


def test_all_modes_and_single_ones_agree(files: Path, tmp_path: Path) -> None:
    every, result = evaluated(files, tmp_path, "--all-modes", "--bootstrap", 0, "--fpr", 0.1)
    assert len({(r["norm"], r["det"], r["flip"]) for r in every}) == 8 and result.stdout.count("unit") == 4
    (one,), _ = evaluated(files, tmp_path, "--norm", "unit", "--no-det", "--no-flip", "--bootstrap", 0, "--fpr", 0.1)
    assert {**one, "seconds": 0} == {**every[-1], "seconds": 0}


def test_1_n_tells_both_definitions(files: Path, tmp_path: Path) -> None:
    (found,), result = evaluated(files, tmp_path, "--protocol", "ijb-1:n", "--fpr", 0.2, "--fpr", 0.1)
    assert found["gallery"] == {"G1": 12, "G2": 12} and set(found["rank"]) == {"1", "5", "10"}
    assert [(p["definition"], p["fpir"]) for p in found["tpir_at_fpir"]] == [
        ("nist", 0.2),
        ("merged", 0.2),
        ("merged", 0.1),
    ]
    for point in found["tpir_at_fpir"]:
        assert point["ci95"][0] <= point["tpir"] <= point["ci95"][1]
        told = f"TPIR ({point['definition']}) @ {point['fpir']:g} {point['ci95'][0]:.4f}-{point['ci95'][1]:.4f}"
        assert told in result.stdout
    assert set(found["rank_ci95"]) == set(found["rank_merged_ci95"]) == {"1", "5", "10"}
    for text in (
        "rank 10",
        "TPIR @",
        "apart",
        "merged",
        f"{found['rank']['1']:.4f}",
        "FPIR 0.1 (nist) refused: it needs 30",
    ):
        assert text in result.stdout
    missed = run(
        *(
            "eval",
            files / "net.safetensors",
            "--on",
            files / "ijbc",
            "--protocol",
            "ijb-1:n",
            "--cache",
            tmp_path / "cache",
        ),
        *("--require", "tpr@0.2>=0.5"),
    )
    assert missed.exit_code == 1 and "protocol ijb-1:n gives no tpr here" in missed.stderr


def test_tinyface_ranks_and_other_sets_beside_it(files: Path, tmp_path: Path) -> None:
    found, result = evaluated(files, tmp_path, "--on", files / "faces", "--fpr", 0.5, "--bootstrap", 0, on="tiny")
    assert [r["protocol"] for r in found] == ["tinyface", "all-pairs"]
    assert set(found[0]["rank"]) == {"1", "5", "20"} and found[0]["rank"]["5"] == 1.0
    assert found[0]["rank_ci95"] is None and found[0]["no_interval"] == "no replicates were asked for"
    assert "no 95 % interval on tiny where none is told: no replicates were asked for" in result.stdout
    (sure,), shown = evaluated(files, tmp_path, "--bootstrap", 50, "--report", tmp_path / "page.html", on="tiny")
    assert set(sure["rank_ci95"]) == {"1", "5", "20"} and sure["rank_ci95"]["5"] == [1.0, 1.0]
    assert "net.safetensors on tiny" in shown.stdout and "rank 5 1.0000-1.0000" in shown.stdout
    assert "no_interval" not in sure and "no interval" not in (tmp_path / "page.html").read_text()
    assert "rank 20" in result.stdout and "AUC" in result.stdout


def test_a_report_on_templates_is_verified_without_the_cache(files: Path, tmp_path: Path) -> None:
    evaluated(files, tmp_path, "--plot", tmp_path / "plot.svg", "--report", tmp_path / "page.html", "--bootstrap", 20)
    page = (tmp_path / "page.html").read_text()
    assert "norm keep" in page and "the image its detector was surest of" in page
    assert page.count('<img src="data:image/jpeg;base64,') == 2 * 24 and (tmp_path / "plot.svg").stat().st_size
    (embeddings,) = (tmp_path / "cache").glob("*/embeddings.f32")
    embeddings.write_bytes(bytes(embeddings.stat().st_size))
    result = run("eval", "--verify", tmp_path / "out.json", "--device", "cpu")
    assert result.exit_code == 0 and "1 results computed again, equal to the last bit" in result.stdout


def test_a_report_tells_of_searching_too(files: Path, tmp_path: Path) -> None:
    words = ("--protocol", "ijb-1:n", "--report", tmp_path / "page.html", "--plot", tmp_path / "plot.svg")
    (found,), _ = evaluated(files, tmp_path, *words, "--fpr", 0.2)
    page = (tmp_path / "page.html").read_text()
    assert f"{found['rank']['10']:.4f}" in page and "Hardest probes" in page
    assert page.count('<img src="data:image/jpeg;base64,') == 2 * 24 and ".png</span>" in page


def test_item_122_a_missing_image_is_an_error_unless_failures_count(files: Path, tmp_path: Path) -> None:
    write_ijb(tmp_path / "ijbb", lambda made: made.images.pop("3.png"), kind="ijbb")
    words = (
        "eval",
        files / "net.safetensors",
        "--on",
        tmp_path / "ijbb",
        "--bootstrap",
        0,
        "--cache",
        tmp_path / "cache",
    )
    refused = run(*words)
    assert refused.exit_code == 2 and "1 image is missing: line 3: " in refused.stderr
    counted = run(*words, "--count-failures", "--json", tmp_path / "out.json")
    assert counted.exit_code == 0 and "1 of " in counted.stdout and "images failed, the first '3.png'" in counted.stdout
    (found,) = json.loads((tmp_path / "out.json").read_text())["results"]
    assert (found["failed_images"], found["failed_templates"]) == (1, 1)
    failed = found["failed_comparisons"]["impostor"]
    assert {entry["fpr"]: entry.get("failed") for entry in found["refused"]}[0.01] == failed > 11
    assert f"FPR 0.01 refused: it allows less than the {failed} that failed" in counted.stdout
    plain = found["failed_as_non_matches"]["tpr_at_fpr"]
    assert [point["fpr"] for point in plain] == [0.01, 0.1]
    assert f"failed templates as non-matches, which may flatter: TPR @ 0.01 {plain[0]['tpr']:.5f}" in counted.stdout
    missed = run(*words, "--count-failures", "--require", "tpr@0.01>=0.1")
    assert missed.exit_code == 1 and f"{failed} failed comparisons are more than it allows" in missed.stderr


@pytest.mark.parametrize("protocol", ["ijb-1:1", "ijb-1:n"])
def test_page_and_picture_of_failures_tell_both_rules(files: Path, protocol: str, tmp_path: Path) -> None:
    write_ijb(tmp_path / "ijbb", lambda made: made.images.pop("3.png"), kind="ijbb")
    words = ("--protocol", protocol, "--count-failures", "--bootstrap", 20, "--fpr", 0.2, "--plot", tmp_path / "p.svg")
    (found,), told = evaluated(files, tmp_path, *words, "--report", tmp_path / "p.html", on=tmp_path / "ijbb")
    page, plain = (tmp_path / "p.html").read_text(), found["failed_as_non_matches"]
    assert "1</data> templates: every comparison with one is an error" in page and "failures as non-matches" in page
    rates = [point["tpr"] for point in plain["tpr_at_fpr"]] if protocol == "ijb-1:1" else plain["rank"].values()
    assert rates and all(f'value="{json.dumps(rate)}"' in page for rate in rates)
    assert "so that no failure raises a figure" in told.stdout and (tmp_path / "p.svg").stat().st_size > 1000
    assert run("eval", "--verify", tmp_path / "out.json").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--on", "faces", "--norm", "unit"], "--norm: has no effect: no set has templates"),
        (["--on", "faces", "--all-modes"], "--all-modes: has no effect"),
        (["--on", "faces", "--count-failures"], "--count-failures: has no effect"),
        (["--on", "ijbc", "--all-modes", "--no-flip"], "--all-modes: evaluates every mode, and --flip asks for one"),
        (["--on", "ijbc", "--resolution", "14"], "--resolution: images of templates are not brought down"),
        (["net.safetensors", "--on", "ijbc", "--cross"], "--cross: templates are not compared across models"),
        (["--on", "faces", "--protocol", "ijb-1:1"], "faces: is no IJB folder"),
        (["--on", "ijbc", "--protocol", "tinyface"], "ijbc: is no TinyFace folder"),
        (["--on", "ijbc", "--protocol", "ijb-1:2"], "'ijb-1:2' is not one of"),
    ],
)
def test_options_that_cannot_be__are_one_line(
    files: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(files)
    result = run("eval", "net.safetensors", *arguments)
    assert result.exit_code == 2 and message in result.stderr
    assert len([line for line in result.stderr.splitlines() if not line.startswith("facekd: warning: ")]) == 1


@pytest.mark.parametrize(("layout", "called"), [("ijbc", "IJB"), ("tiny", "TinyFace")])
@pytest.mark.parametrize(
    "words",
    [
        ("calibrate", "net.safetensors", "--on"),
        ("export", "net.safetensors", "-o", "net.onnx", "--on"),
        ("teacher", "inspect", "net.safetensors", "--on"),
        ("eval", "net.safetensors", "--protocol", "all-pairs", "--on"),
    ],
)
def test_whoever_takes_no_templates_says_so(
    files: Path, words: tuple[str, ...], layout: str, called: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a folder of identities TinyFace would be three people, with as many wrong figures as anybody likes."""
    monkeypatch.chdir(files)
    told = run(*words, layout)
    wanted = (
        f"facekd: error: {layout}: holds templates in {called}'s layout, which are no pairs and no identities (give"
    )
    assert told.exit_code == 2 and told.stderr.splitlines()[-1].startswith(wanted)
    assert not (files / "net.onnx").exists() and not list(files.glob("*.calibration.json"))


def test_a_recipe_takes_no_templates(files: Path) -> None:
    with pytest.raises(UsageError, match="holds templates in TinyFace's layout"):
        open_sets(Evaluate.model_validate({"sets": [{"path": str(files / "tiny")}], "fpr": [0.1]}))
