"""The benchmark of an IJB folder of real photographs: what is dealt out, and a reference that can tell a difference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from facekd_cli.main import cli
from ijb_folder import write_ijb
from random_model import TINY, save_random_model

from benchmarks import ijb_building, ijb_real, ijb_reference, ijb_tables
from facekd.data.align import TEMPLATE
from facekd.data.images import decode, read_bytes, resize, to_chw
from facekd.models.embedder import load_embedder

RATES = {"ijb-1:1": (1e-3, 1e-2, 1e-1), "ijb-1:n": (0.1, 0.2)}
"""Rates of which few people can show all but the first."""
COUNTED = {
    "images": 1,
    "people": 1,
    "media": 1,
    "media_of_several_images": 1,
    "templates": {"G1": 1},
    "templates_of_several_media": 1,
    "detector_scores": [0.5, 0.75, 1.0],
    "unseen_by_the_detector": 3,
}


def facekd(*words: object) -> str:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_image_is_dealt_out_once_and_nobody_is_in_two_galleries() -> None:
    people = {f"p{number}": [100 * number + one for one in range(number % 7 + 1)] for number in range(40)}
    plan = ijb_building.planned(people, 3)
    dealt = [image for template in plan for medium in template.media for image in medium]
    assert sorted(dealt) == sorted(image for images in people.values() for image in images)
    assert len({template.number for template in plan}) == len(plan)
    owner = {image: name for name, images in people.items() for image in images}
    for template in plan:
        assert len({owner[image] for medium in template.media for image in medium}) == 1
    whom = {part: {one.subject for one in plan if one.part == part} for part in ("G1", "G2", "probes")}
    assert whom["G1"] and whom["G2"] and not whom["G1"] & whom["G2"]
    several = {one.subject for one in plan if len(people[owner[one.media[0][0]]]) > 1}
    assert several <= whom["G1"] | whom["G2"] and several < whom["probes"]
    assert max(len(medium) for template in plan for medium in template.media) == ijb_building.VIDEO
    assert ijb_building.planned(people, 3) == plan != ijb_building.planned(people, 4)


def test_a_face_laid_loose_is_turned_and_of_another_size_on_gray() -> None:
    face = np.random.default_rng(0).integers(0, 256, (112, 112, 3)).astype(np.uint8)
    loose = ijb_building.laid_loose(face, (0.5, 0.5), np.random.default_rng(1))
    assert loose.shape == (112, 112, 3) and (loose[0, 0] == ijb_building.GRAY).all()
    covered = (loose != ijb_building.GRAY).any(axis=2).mean()
    assert 0.2 < covered < 0.3  # a quarter, and a border half covered


def test_the_reference_aligns_as_the_points_say() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (150, 150, 3)).astype(np.uint8)
    assert np.array_equal(ijb_reference.aligned(picture, TEMPLATE + (9, 20)), picture[20:132, 9:121])


@pytest.fixture(autouse=True)
def rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ijb_real, "PROTOCOLS", RATES)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict], np.ndarray]:
    """A folder of drawn faces, its results in every mode, and the embeddings of its images in the reference's crops."""
    runs = tmp_path_factory.mktemp("drawn")
    write_ijb(runs / "ijbc")
    save_random_model(runs / "net.safetensors", size=16, options=TINY)
    results = []
    for protocol, rates in RATES.items():
        asked = [word for rate in rates for word in ("--fpr", rate)]
        words = ("eval", runs / "net.safetensors", "--on", runs / "ijbc", "--protocol", protocol, "--all-modes")
        facekd(
            *words, *asked, "--bootstrap", 0, "--cache", runs / "cache", "--device", "cpu", "--json", runs / "out.json"
        )
        results += json.loads((runs / "out.json").read_text())["results"]
    rows = ijb_reference.read_rows(runs / "ijbc" / "meta")
    pictures = [decode(read_bytes(runs / "ijbc" / "loose_crop" / row.name), row.name) for row in rows]
    crops = [ijb_reference.aligned(picture, row.points) for picture, row in zip(pictures, rows, strict=True)]
    faces = torch.from_numpy(np.stack([to_chw(resize(crop, (32, 32))) for crop in crops]))
    embed = load_embedder(runs / "net.safetensors").embed
    return runs, results, np.stack([embed(faces).numpy(), embed(faces.flip(3)).numpy()], axis=1)


def test_facekd_and_the_reference_agree_in_every_mode(drawn: tuple[Path, list[dict], np.ndarray]) -> None:
    runs, results, views = drawn
    rows = ijb_real.compared(results, views, runs)
    assert len(rows) == 16 and len({tuple(row[name] for name in ("protocol", *ijb_real.HOW)) for row in rows}) == 16
    told = [row["differs_from_reference"] for row in rows]
    assert {"auc", "eer", "tpr@0.01", "tpr@0.1"} < told[0].keys() and "tpr@0.001" not in told[0]
    assert {"tpir_nist@0.2", "tpir_merged@0.1"} < told[-1].keys() and "tpir_nist@0.1" not in told[-1]
    assert max(max(each.values()) for each in told) < 1e-6
    assert ijb_real.ours(results[0])["tpr@0.1"] < 1 and ijb_real.ours(results[-1])["rank@1"] < 1


@pytest.mark.parametrize("name", ijb_real.HOW)
def test_another_mode_is_told_by_its_figures(drawn: tuple[Path, list[dict], np.ndarray], name: str) -> None:
    runs, results, views = drawn
    other = {"norm": "unit", "det": False, "flip": False}[name]
    for result in (results[0], results[8]):
        differs = ijb_real.apart(ijb_real.ours(result), ijb_real.theirs(views, runs, {**result, name: other}))
        assert max(differs.values()) > 1e-4


def test_a_figure_that_one_side_refuses_is_no_agreement() -> None:
    with pytest.raises(ValueError, match=r"only one side tells \['tpr@0.1'\]"):
        ijb_real.apart({"auc": 0.5}, {"auc": 0.5, "tpr@0.1": 1.0})


def test_the_tables_show_every_mode_and_the_largest_difference(drawn: tuple[Path, list[dict], np.ndarray]) -> None:
    runs, results, views = drawn
    rows = ijb_real.compared(results, views, runs)
    rows[3]["differs_from_reference"]["auc"] = 0.25
    page, verified = {"faces": 384, "loads_from_elsewhere": 0}, {"said": "8 results computed again"}
    evaluations = {name: {"page": page, "verified": verified} for name in RATES}
    seconds = {"reference embeds": 2.0, "ijb-1:1 embeds": 1.0}
    head = {"model": "net", "folder": COUNTED, "busy": {"cores": 2, "load_of_15_minutes": 1.5}}
    told = ijb_tables.ijb_real({**head, "evaluations": evaluations, "seconds": seconds, "rows": rows})
    lines = [line for line in told.splitlines() if line.startswith(("| keep", "| unit"))]
    assert len(lines) == 16 and [number for number, line in enumerate(lines) if "| 0.2 |" in line] == [3]
    assert "1,104 impostor pairs" in told and "probes in galleries of 12 and 12" in told and "refused" not in lines[0]


@pytest.mark.slow
def test_real_photographs_end_to_end(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ijb_real, "facekd", facekd)
    found = ijb_real.measure(shared_data, tmp_path, 0, 40)
    assert found["folder"]["templates_of_several_media"] > 5 and found["folder"]["media_of_several_images"] > 2
    low, _, high = found["folder"]["detector_scores"]
    assert 0.6 <= low < 0.85 and 0.9 < high < 1
    assert len(found["rows"]) == 16
    assert max(max(row["differs_from_reference"].values()) for row in found["rows"]) < 1e-5
    assert all(row["auc"] > 0.99 for row in found["rows"] if row["protocol"] == "ijb-1:1")
    assert all(row["rank"]["1"] > 0.9 for row in found["rows"] if row["protocol"] == "ijb-1:n")
    for each in found["evaluations"].values():
        assert each["verified"]["said"] == "8 results computed again, equal to the last bit"
        assert each["page"]["faces"] > 8 and each["page"]["loads_from_elsewhere"] == 0
    assert ijb_tables.ijb_real(found).count("| keep | on | on |") == 2
