"""``facekd eval`` and ``facekd embed``: files in, table, JSON and exit codes out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from facekd_cli import eval as eval_command
from facekd_cli.main import cli
from random_model import save_random_model

from facekd import __version__
from facekd.data.images import encode_png
from facekd.data.verification import write_bin
from facekd.engine.evaluation import evaluation_sets, figures, template_sets
from facekd.models.backbone import build_backbone
from facekd.models.preprocessing import Preprocessing
from facekd.models.weights import save_model

PEOPLE, EACH = 12, 4
SIDE = 32


def face(person: int, number: int) -> np.ndarray:
    base = np.random.default_rng([1, person]).integers(40, 216, (4, 4, 3)).astype(float)
    noise = np.random.default_rng([2, person, number]).normal(0, 12, (SIDE, SIDE, 3))
    return np.clip(np.kron(base, np.ones((SIDE // 4, SIDE // 4, 1))) + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, an identity folder, a list, an LFW-like pairs file and a .bin."""
    root = tmp_path_factory.mktemp("eval")
    for person in range(PEOPLE):
        (root / f"faces/p{person:02d}").mkdir(parents=True)
        for number in range(EACH):
            path = root / f"faces/p{person:02d}/p{person:02d}_{number + 1:04d}.png"
            path.write_bytes(encode_png(face(person, number)))
    genuine = [f"p{p:02d}\t1\t{n}" for p in range(PEOPLE) for n in range(2, EACH + 1)]
    impostor = [f"p{p:02d}\t1\tp{(p + k) % PEOPLE:02d}\t2" for k in (1, 2, 3) for p in range(PEOPLE)]
    folds = [line for part in range(3) for kind in (genuine, impostor) for line in kind[12 * part : 12 * part + 12]]
    (root / "pairs.txt").write_text("\n".join(["3\t12", *folds]) + "\n")
    rows = [f"p{p:02d}/p{p:02d}_{n:04d}.png,p{p:02d}" for p in range(PEOPLE) for n in range(1, EACH + 1)]
    (root / "list.csv").write_text("\n".join(["path,identity", *rows]) + "\n")
    encoded = [encode_png(face(p, n)) for p in range(PEOPLE) for n in (0, 1)]
    strangers = [encode_png(face(p + n, n)) for p in range(PEOPLE - 1) for n in (0, 1)]
    write_bin(root / "set.bin", encoded + strangers, [True] * PEOPLE + [False] * (PEOPLE - 1))
    save_random_model(root / "net.safetensors")
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_table_json_and_notes(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    sets = ("--on", files / "pairs.txt", "--on", files / "list.csv", "--images", files / "faces")
    result = run(
        "eval", files / "net.safetensors", *sets, "--fpr", 0.1, "--fpr", "1e-2", "--json", out, "--device", "cpu"
    )
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert found["facekd"] == __version__ and [r["set"] for r in found["results"]] == ["pairs.txt", "list.csv"]
    pairs, every = found["results"]
    assert (pairs["protocol"], pairs["genuine"], pairs["impostor"]) == ("lfw", 36, 36)
    assert (every["protocol"], every["genuine"], every["impostor"]) == ("all-pairs", 72, 1056)
    assert pairs["accuracy"] and every["accuracy"] is None
    assert pairs["refused"] == [{"fpr": 0.01, "impostors": 36, "needed": 300}]
    for text in ("TPR @ 0.1", "accuracy", "rests on fewer than 30", "FPR 0.01 refused: it needs 300 impostor pairs"):
        assert text in result.stdout
    assert f"{pairs['accuracy']['mean']:.4f}" in result.stdout and f"{every['auc']:.5f}" in result.stdout


def test_many_fprs_stand_below_each_other(files: Path, tmp_path: Path) -> None:
    fprs = [word for fpr in ("0.5", "0.3", "0.1", "0.05") for word in ("--fpr", fpr)]
    options = (
        "--on",
        files / "list.csv",
        "--images",
        files / "faces",
        "--device",
        "cpu",
        "--json",
        tmp_path / "all.json",
    )
    result = run("eval", files / "net.safetensors", *options, *fprs)
    assert result.exit_code == 0, result.output
    (found,) = json.loads((tmp_path / "all.json").read_text())["results"]
    lines = result.stdout.splitlines()
    for point in found["tpr_at_fpr"]:
        cells = (f"{point['fpr']:g}", f"{point['tpr']:.5f}", "{:.4f}-{:.4f}".format(*point["ci95"]))
        assert any(all(cell in line for cell in cells) for line in lines)


def test_item_049_images_of_another_cut_need_to_be_allowed(files: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_model(
        tmp_path / "net.safetensors",
        build_backbone("resnet_tiny", embedding_size=64, input_size=112, options={}).eval(),
        backbone="resnet_tiny",
        embedding_size=64,
        options={},
        preprocessing=Preprocessing.named("half", size=(112, 112)),
        extra={},
    )
    words = (tmp_path / "net.safetensors", files / "list.csv", "--images", files / "faces", "--device", "cpu")
    line = (
        "p00/p00_0001.png: 32x32 pixels, and the model takes 112x112 (facekd data align lays faces onto the template; "
        "--allow-resize takes images as they are)\n"
    )
    refused = run("eval", words[0], "--on", *words[1:])
    assert refused.exit_code == 3 and refused.stderr.endswith(f"facekd: error: list.csv: {line}")
    allowed = run("eval", words[0], "--on", *words[1:], "--bootstrap", 0, "--allow-resize")
    assert allowed.exit_code == 0 and "no size of aligned faces" in allowed.stderr
    refused = run("embed", *words, "-o", tmp_path / "e.npz")
    assert refused.exit_code == 3 and refused.stderr.endswith(f"facekd: error: {line}")
    assert run("embed", *words, "-o", tmp_path / "e.npz", "--allow-resize").exit_code == 0


def test_item_110_pairs_of_one_image_are_left_out_on_demand(files: Path, tmp_path: Path) -> None:
    name = "p{0:02d}/p{0:02d}_000{1}.png"
    rows = [(name.format(p, 1), name.format(p, 2), 1) for p in range(4)]
    rows += [(name.format(p, 1), name.format(p + 1, 1), 0) for p in range(4)] + [(name.format(0, 3),) * 2 + (1,)]
    (tmp_path / "pairs.csv").write_text("path1,path2,label\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    words = ("eval", files / "net.safetensors", "--on", tmp_path / "pairs.csv", "--images", files / "faces")
    options = ("--bootstrap", 0, "--device", "cpu", "--json", "-")
    whole, kept = run(*words, *options), run(*words, *options, "--drop-same")
    assert [json.loads(found.stdout)["results"][0]["genuine"] for found in (whole, kept)] == [5, 4]
    assert "1 pairs hold the same image on both sides: 'p00/p00_0003.png'" in whole.stderr
    assert "1 such pairs are left out" in kept.stderr


def test_json_on_stdout_is_alone_there(files: Path) -> None:
    arguments = ("--on", files / "set.bin", "--bootstrap", 0, "--json", "-", "--fpr", 0.3, "--no-flip", "--batch", 5)
    result = run("eval", files / "net.safetensors", *arguments)
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["results"]
    assert found["flip"] is False and found["tpr_at_fpr"][0]["ci95"] is None
    assert "TPR @ 0.3" in result.stderr


def test_unknown_people_are_said(files: Path) -> None:
    result = run("eval", files / "net.safetensors", "--on", files / "set.bin", "--fpr", 0.3, "--bootstrap", 20)
    assert "intervals on set.bin resample pairs, for the people are unknown" in result.stdout


def test_embed_then_eval_equals_eval(files: Path, tmp_path: Path) -> None:
    output = tmp_path / "faces.npz"
    result = run("embed", files / "net.safetensors", files / "faces", "-o", output)
    assert result.exit_code == 0 and "48 embeddings of 12 identities" in result.stdout
    again = run("embed", files / "net.safetensors", files / "faces", "-o", output)
    assert again.exit_code == 2 and "exists" in again.stderr
    listed = ("embed", files / "net.safetensors", files / "list.csv", "--images", files / "faces", "-o", output)
    assert run(*listed, "--force").exit_code == 0
    with np.load(output, allow_pickle=False) as arrays:
        assert arrays["embeddings"].shape == (48, 64) and arrays["names"][5] == "p01/p01_0002.png"
        assert arrays["identities"][arrays["labels"][5]] == "p01"
    stored = run("eval", output, "--json", "-", "--fpr", 1e-2)
    direct = run("eval", files / "net.safetensors", "--on", files / "faces", "--json", "-", "--fpr", 1e-2)
    one, other = (json.loads(text.stdout)["results"][0] for text in (stored, direct))
    differing = {key for key in one if one[key] != other[key]}
    assert differing <= {"set", "set_digest", "seconds"} and one["set"] == "faces.npz"


def test_a_picture_is_drawn_beside_the_figures_which_stay_the_same(files: Path, tmp_path: Path) -> None:
    words = (
        "eval",
        files / "net.safetensors",
        "--on",
        files / "faces",
        "--bootstrap",
        9,
        "--fpr",
        0.1,
        "--device",
        "cpu",
    )
    drawn = run(*words, "--plot", tmp_path / "p.svg", "--json", tmp_path / "drawn.json")
    plain = run(*words, "--json", tmp_path / "plain.json")
    assert drawn.exit_code == plain.exit_code == 0 and drawn.stdout == plain.stdout
    picture = (tmp_path / "p.svg").read_text()
    assert "eval0/net.safetensors" in picture and ">faces<" in picture and "ROC" in picture
    one, other = (json.loads((tmp_path / name).read_text())["results"][0] for name in ("drawn.json", "plain.json"))
    assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_a_report_shows_models_sets_and_stored_embeddings(files: Path, tmp_path: Path) -> None:
    net = files / "net.safetensors"
    assert run("embed", net, files / "faces", "-o", tmp_path / "e.npz", "--device", "cpu").exit_code == 0
    stored = run("eval", tmp_path / "e.npz", "--report", tmp_path / "e.html", "--fpr", 0.1, "--bootstrap", 0)
    assert stored.exit_code == 0, stored.output
    page = (tmp_path / "e.html").read_text()
    assert "no picture" in page and page.count("_0001.png</span>") > 0 and "e.npz" in page
    sets = ("--on", files / "pairs.txt", "--on", files / "set.bin", "--images", files / "faces")
    asked = (*sets, "--fpr", 0.1, "--bootstrap", 9, "--resolution", 16, "--device", "cpu")
    result = run("eval", net, *asked, "--report", tmp_path / "r.html", "--json", tmp_path / "r.json")
    assert result.exit_code == 0, result.output
    page, told = (tmp_path / "r.html").read_text(), json.loads((tmp_path / "r.json").read_text())
    assert (
        len(told["results"]) == 4
        and page.count("<h2>") == 5
        and page.count("<img ") == 2 * 2 * (12 + 12) + 2 * 2 * (12 + 11)
    )
    for found in told["results"]:
        for figure in (found["auc"], found["eer"]["threshold"], found["accuracy"]["mean"], found["set_digest"]):
            assert str(figure) in page
    assert str(told["across_sets"][0]["accuracy"]["mean"]) in page and "largest error over smallest" in page
    assert f"facekd eval {net} --on {files}/pairs.txt" in page and "no size of aligned faces" in page
    assert " ms<" in page.replace("\n", "") and "32x32 RGB, half" in page


def test_requirements_decide_the_exit_code_after_everything_is_written(files: Path, tmp_path: Path) -> None:
    base = ("eval", files / "net.safetensors", "--on", files / "faces", "--bootstrap", 0)
    assert run(*base, "--require", "tpr@0.05>=0.01", "--require", "auc>=0.5").exit_code == 0
    out = tmp_path / "out.json"
    missed = run(*base, "--require", "eer<=0", "--require", "tpr@1e-6>=0.5", "--json", out)
    assert missed.exit_code == 1
    assert "facekd: error: " in missed.stderr and "needs 3,000,000 impostor pairs" in missed.stderr
    assert json.loads(out.read_text())["results"] and "TPR @" in missed.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "MODEL: missing"),
        (["net.safetensors"], "--on: missing"),
        (["net.safetensors", "--on", "set.bin", "--plot", "a.pdf"], "a.pdf ends not in .png or .svg"),
        (["net.safetensors", "--on", "set.bin", "--plot", "absent/a.png"], "absent is not a folder"),
        (["net.safetensors", "--on", "set.bin", "--report", "a.pdf"], "a.pdf ends not in .html or .htm"),
        (["absent.onnx", "--on", "set.bin"], "absent.onnx: no such file"),
        (["net.safetensors", "--on", "absent.bin"], "absent.bin: no such file"),
        (["net.safetensors", "--on", "set.bin", "--images", "absent"], "absent: no such file"),
        (["net.safetensors", "--on", "set.bin", "--fpr", "0"], "0 is not between 0 and 1"),
        (["net.safetensors", "--on", "set.bin", "--fpr", "nan"], "nan is not between 0 and 1"),
        (["net.safetensors", "--on", "set.bin", "--require", "auc>95"], "auc>95: not a requirement"),
        (["net.safetensors", "--on", "faces", "--protocol", "lfw"], "lfw needs pairs"),
        (["net.safetensors", "--on", "set.bin", "--protocol", "ijb-1:1"], "set.bin: is no IJB folder"),
        (["net.safetensors", "--on", "set.bin", "--color", "bgr"], "leave out --color"),
        (["bad.npz"], "bad.npz: no readable .npz file"),
        (["bad.npz", "--on", "set.bin"], "leave --on out"),
    ],
)
def test_refusals_are_one_line_and_exit_2(
    files: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(files)
    (files / "bad.npz").write_bytes(b"not a zip")
    result = run("eval", *arguments)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("facekd: warning: ")]
    assert line.startswith("facekd: error: ") and message in line


def test_an_image_that_breaks_while_running_is_exit_3(files: Path, tmp_path: Path) -> None:
    for person in "ab":
        (tmp_path / person).mkdir()
        for number in range(2):
            (tmp_path / person / f"{number}.png").write_bytes(encode_png(face(ord(person), number)))
    (tmp_path / "b" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nand nothing more")
    result = run("eval", files / "net.safetensors", "--on", tmp_path)
    assert result.exit_code == 3 and "1.png" in result.stderr and not result.stdout


def test_the_command_and_the_engine_know_the_same_protocols() -> None:
    assert eval_command.PROTOCOLS == evaluation_sets.PROTOCOLS and eval_command.FPRS == figures.DEFAULT_FPRS
    assert eval_command.TEMPLATE_PROTOCOLS == template_sets.TEMPLATE_PROTOCOLS


@pytest.mark.slow
def test_lfw_figures_of_a_known_model(shared_data: Path, tmp_path: Path) -> None:
    """Figures computed once by independent code (onnxruntime, scikit-learn's ROC curve, InsightFace's 10-fold rule)."""
    model = shared_data / "models" / "edgeface_xs_raw_rgb.onnx"
    sets = ("--on", shared_data / "lfw_pairs.txt", "--on", shared_data / "lfw_pairs_test.txt")
    images = ("--images", shared_data / "lfw112", "--color", "rgb", "--normalize", "none")
    result = run("eval", model, *sets, *images, "--fpr", 1e-2, "--fpr", 1e-3, "--json", tmp_path / "lfw.json")
    assert result.exit_code == 0, result.output
    whole, test = json.loads((tmp_path / "lfw.json").read_text())["results"]
    assert round(whole["accuracy"]["mean"], 4) == 0.9943 and round(whole["accuracy"]["std"], 4) == 0.0037
    assert [round(point["tpr"], 4) for point in whole["tpr_at_fpr"]] == [0.9957, 0.9907]
    assert round(whole["auc"], 5) == 0.9988 and round(whole["eer"]["value"], 4) == 0.0057
    assert test["tpr_at_fpr"][0]["tpr"] == 1.0 and test["pairs"] == 1200


@pytest.mark.slow
def test_all_pairs_figures_of_a_known_model(shared_data: Path, tmp_path: Path) -> None:
    model = shared_data / "models" / "edgeface_xs_raw_rgb.onnx"
    images = ("--images", shared_data / "lfw112", "--color", "rgb", "--normalize", "none")
    fprs = ("--fpr", 1e-3, "--fpr", 1e-4, "--fpr", 1e-5)
    result = run("eval", model, "--on", shared_data / "lfw_test.csv", *images, *fprs, "--json", tmp_path / "all.json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads((tmp_path / "all.json").read_text())["results"]
    assert (found["genuine"], found["impostor"]) == (5140, 2_654_831)
    assert [round(point["tpr"], 5) for point in found["tpr_at_fpr"]] == [0.99922, 0.99436, 0.97957]


def test_resolutions__give_further_results_with_their_key_and_column(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    arguments = ("--on", files / "list.csv", "--images", files / "faces", "--fpr", 0.1, "--bootstrap", 0, "--json", out)
    asked = ("--resolution", 16, "--resolution", 8, "--gallery", "both")
    result = run("eval", files / "net.safetensors", *arguments, *asked, "--device", "cpu")
    assert result.exit_code == 0, result.output
    told = [found["resolution"] for found in json.loads(out.read_text())["results"]]
    assert told == [None] + [{"probe": p, "gallery": g} for p, g in ((16, None), (16, 16), (8, None), (8, 8))]
    for text in ("probe to", "full", "16 px to full", "8 px to 8 px"):
        assert text in result.stdout
    plain = run("eval", files / "net.safetensors", *arguments, "--device", "cpu")
    assert "probe to" not in plain.stdout
    assert [found["resolution"] for found in json.loads(out.read_text())["results"]] == [None]


def test_resolutions_that_cannot_be__are_refused(files: Path, tmp_path: Path) -> None:
    on = ("--on", files / "set.bin", "--device", "cpu", "--fpr", 0.3)
    result = run("eval", files / "net.safetensors", *on, "--resolution", 64)
    assert result.exit_code == 3 and "set.bin" not in result.stderr.split("cannot")[0].split(":")[0]
    assert "32x32 pixels cannot be brought down to 64 (leave that resolution out)" in result.stderr
    result = run("eval", files / "net.safetensors", *on, "--gallery", "same")
    assert result.exit_code == 2 and "--gallery: same has no effect without --resolution" in result.stderr
    np.savez(tmp_path / "e.npz", embeddings=np.eye(4, dtype=np.float32) + 0.1, labels=[0, 0, 1, 1], names=list("abcd"))
    result = run("eval", tmp_path / "e.npz", "--resolution", 14)
    assert result.exit_code == 2 and "stored embeddings have no pixels to bring down" in result.stderr
