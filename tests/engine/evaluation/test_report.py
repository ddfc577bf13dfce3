"""The page: every figure of the JSON, nothing from elsewhere, names harmless, faces as the model saw them."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_plots import searched

from facekd.data.images import decode
from facekd.data.resolution import at_resolution
from facekd.engine.evaluation.evaluation_sets import identity_set
from facekd.engine.evaluation.evaluator import Evaluation
from facekd.engine.evaluation.figures import EvalSettings, figures, measure_all_pairs
from facekd.engine.evaluation.report import Told, report_html, write_report
from facekd.engine.evaluation.report_faces import Faces, faces_of_set, hardest_cards
from facekd.engine.model_facts import ModelFacts

HOSTILE = "<script>alert('x')</script>\" onerror=\"alert(1)<b>&amp;"
LABELS = np.repeat(np.arange(16), 3)
SETTINGS = EvalSettings(fprs=(0.1, 1e-2, 1e-5), bootstrap=20, details=True)
MACHINE = {"facekd": "9.9.9", "python": "3", "machine": HOSTILE}


class Pictures:
    """48 pictures of 16 people, with names that attack the page."""

    names = [f"person {label}" for label in range(16)]
    labels = LABELS
    digest = "set-digest"
    warnings: list[str] = []

    def __len__(self) -> int:
        return len(LABELS)

    def read(self, index: int) -> np.ndarray:
        person = np.random.default_rng([1, int(LABELS[index])]).integers(30, 226, (4, 4, 3))
        noise = np.random.default_rng([2, index]).normal(0, 3, (40, 40, 3))
        return np.clip(np.kron(person, np.ones((10, 10, 1))) + noise, 0, 255).astype(np.uint8)

    def sample_name(self, index: int) -> str:
        return f"{index}/{HOSTILE}"


def evaluation(model: str, spread: float, name: str = HOSTILE, resolution: dict[str, Any] | None = None) -> Evaluation:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(16, 12))[LABELS] + spread * rng.normal(size=(48, 12))
    found = measure_all_pairs(rows, rows, LABELS, SETTINGS)
    head = {"model": model, "model_digest": f"digest-{model}", "set": name, "set_digest": "set-digest"}
    how = {"protocol": "all-pairs", "flip": True, "resolution": resolution}
    return Evaluation({**head, **how, **figures(found), "seconds": {"embed": 1.25, "score": 0.5}}, found)


KNOWN = ModelFacts("runs/a", "digest-runs/a", 1_234_567, 89_000_000, 5_000_000, 64, "112x112 RGB", 1.5, 9, "abacus")
MODELS = [KNOWN, ModelFacts(HOSTILE, f"digest-{HOSTILE}")]
EVALUATIONS = [evaluation("runs/a", 0.8), evaluation("runs/a", 1.1, resolution={"probe": 14, "gallery": None})]
EVALUATIONS += [evaluation(HOSTILE, 1.4), evaluation(HOSTILE, 1.7, resolution={"probe": 14, "gallery": None})]
EVALUATIONS.append(evaluation("runs/a", 0.9, "another set"))
ACCURACY = {"mean": 0.75, "std": 0.125, "threshold": 0.5, "ci95": None}
TOLD = Told(MODELS, [HOSTILE], ["facekd", "eval", HOSTILE], MACHINE, {"models": [HOSTILE]}, "2026-01-02 03:04 UTC")


def page_of(evaluations: list[Evaluation] = EVALUATIONS, told: Told = TOLD) -> str:
    faces = faces_of_set(identity_set("set", Pictures()), (32, 32))
    return report_html(evaluations, [faces] * len(evaluations), told)


class Elements(HTMLParser):
    """Every element with its attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def page() -> str:
    return page_of()


def numbers(value: object, key: str = "") -> Iterator[int | float]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name not in ("resolution", "flip", "det", "supported"):
                yield from numbers(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner, key)
    elif isinstance(value, int | float) and key not in ("fpr", "fpir"):
        yield value


def test_every_figure_of_the_json_is_on_the_page_with_all_its_digits(page: str) -> None:
    exact = {attributes["value"] for tag, attributes in Elements(page).found if tag == "data"}
    wanted = {json.dumps(number) for one in EVALUATIONS for number in numbers(one.result)}
    assert wanted <= exact and len(wanted) > 60
    text = " ".join(Elements(page).texts)
    for fpr in ("TPR at FPR 0.1", "TPR at FPR 0.01", "TPR at FPR 1e-5", "refused: needs", "300,000", "14 px to full"):
        assert fpr in text
    for fact in (
        "1.23 M",
        "89 M",
        "5.00 MB",
        "1.5 ms",
        "abacus",
        "digest-runs/a",
        "set-digest",
        "2026-01-02 03:04 UTC",
    ):
        assert fact in text
    assert text.count("unknown") >= 4


def test_the_page_asks_for_nothing_from_elsewhere_and_runs_nothing(page: str) -> None:
    elements = Elements(page).found
    assert not {tag for tag, _ in elements} & {"script", "iframe", "object", "embed", "link", "base", "form"}
    for _, attributes in elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "xlink:href", "action", "data", "poster"):
                assert value is not None and value.startswith(("data:image/jpeg;base64,", "#"))
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style and "@import" not in style and "http" not in style
    assert "default-src 'none'" in page


def test_names_are_text_and_nothing_else(page: str) -> None:
    assert "<script" not in page and "<b>&amp;amp;" not in page and 'onerror="alert' not in page.replace("&#34;", '"_')
    text = "".join(Elements(page).texts)
    assert text.count(HOSTILE) > 20
    alts = [attributes["alt"] for tag, attributes in Elements(page).found if tag == "img"]
    assert all(alt is not None and alt.endswith(HOSTILE) for alt in alts)


def test_hard_pairs_are_shown_as_the_model_saw_them(page: str) -> None:
    pictures = Pictures()
    sources = [attributes["src"] for tag, attributes in Elements(page).found if tag == "img"]
    assert len(sources) == 2 * 24 * len(EVALUATIONS)
    faces = faces_of_set(identity_set("set", pictures), (40, 40))
    for one in EVALUATIONS[:2]:
        impostor, genuine = hardest_cards(one, faces)
        details = one.measured.details
        assert details is not None
        for cards, pairs in ((impostor, details.hardest_impostor), (genuine, details.hardest_genuine)):
            assert [card.score for card in cards] == [pair.score for pair in pairs]
            for card, pair in zip(cards, pairs, strict=True):
                assert card.first.name == pictures.sample_name(pair.first)
                uris = [str(face.uri).split(",")[1] for face in (card.first, card.second)]
                seen = [decode(base64.b64decode(uri), "face") for uri in uris]
                mode = one.result["resolution"]
                first, second = pictures.read(pair.first), pictures.read(pair.second)
                wanted = [first if mode is None else at_resolution(first, 14), second]
                for found, want in zip(seen, wanted, strict=True):
                    assert found.shape == (40, 40, 3) and np.abs(found.astype(int) - want).mean() < 9


def test_a_card_says_where_its_pair_is_decided_wrongly() -> None:
    one = evaluation("a", 1.4)
    thresholds = {point.fpr: point.threshold for point in one.measured.points}
    assert list(thresholds) == [0.1, 0.01]
    impostor, genuine = hardest_cards(one, Faces(str))
    for card in impostor:
        let_in = [fpr for fpr, threshold in thresholds.items() if card.score >= threshold]
        told = {(): "right at every point", (0.1,): "let in from FPR 0.1 up", (0.1, 0.01): "let in at every point"}
        assert card.remark == told[tuple(let_in)]
    for card in genuine:
        missed = [fpr for fpr, threshold in thresholds.items() if card.score < threshold]
        told = {(): "right at every point", (0.01,): "missed from FPR 0.01 down", (0.1, 0.01): "missed at every point"}
        assert card.remark == told[tuple(missed)]
    assert {card.remark for card in genuine} and impostor[0].first.uri is None


def test_without_pictures_intervals_or_points_the_page_still_stands() -> None:
    settings, rows = EvalSettings((1e-5,), bootstrap=0, details=True), np.eye(6)[:, :4] + 0.1
    bare = measure_all_pairs(rows, rows, np.arange(6) // 2, settings)
    one = EVALUATIONS[0]
    result = {**one.result, **figures(bare), "flip": None, "accuracy": ACCURACY}
    page = report_html([Evaluation(result, bare)], [Faces(lambda index: f"row {index}")], TOLD)
    assert "no picture" in page and "row 0" in page and "Thresholds to deploy" not in page and "0.7500" in page


@pytest.mark.parametrize("galleries", [1, 2])
def test_searches_are_told_by_rank_and_false_alarms(galleries: int) -> None:
    entries = [searched("runs/a", 0.5, galleries), searched("<i>", 1.4, galleries)]
    page = report_html(entries, [Faces(str)] * 2, TOLD)
    exact = {attributes["value"] for tag, attributes in Elements(page).found if tag == "data"}
    wanted = {json.dumps(number) for one in entries for number in numbers(one.result)}
    assert wanted <= exact and len(wanted) > 10
    text = " ".join(Elements(page).texts)
    assert "rank-5" in text and "60  probes searched in" in text and "Hardest pairs" not in text and "EER" not in text
    for one, (impostor, genuine) in [(one, hardest_cards(one, Faces(str))) for one in entries]:
        details = one.search_details
        assert details is not None and len(impostor) == len(genuine) == 12
        for cards, probes in ((impostor, details.hardest_impostor), (genuine, details.hardest_genuine)):
            told = [(card.first.name, card.second.name, card.score) for card in cards]
            assert told == [(str(one.probe), str(one.other), one.score) for one in probes]
            remarks = {f"its mate at rank {one.rank}" for one in probes if one.rank}
            remarks |= {"without a mate" for one in probes if not one.rank}
            assert {card.remark for card in cards} == remarks and remarks <= {text for text in Elements(page).texts}
    assert ("TPIR at FPIR 0.3" in text and "refused: needs" in text) == (galleries == 2)


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", EVALUATIONS[:1], [Faces(str)], TOLD)
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    assert (tmp_path / "r.html").read_text().rstrip().endswith("</html>")


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_it(page: str, tmp_path: Path, dark: bool) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    (tmp_path / "r.html").write_text(page)
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'u'}"]
    switches += ["--blink-settings=preferredColorScheme=0"] if dark else []
    command = [browser, *switches, "--window-size=1280,2400", f"--screenshot={tmp_path / 'r.png'}", "r.html"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=True)
    shown = decode((tmp_path / "r.png").read_bytes(), "r.png")
    assert shown.shape == (2400, 1280, 3)
    ground = shown[3, 3].astype(int)
    assert (ground.max() < 60) if dark else (ground.min() > 240)
    inked = (np.abs(shown.astype(int) - ground).max(axis=2) > 60).mean()
    assert 0.02 < inked < 0.6 and len(np.unique(shown.reshape(-1, 3), axis=0)) > 500
