"""Results of IJB folders: contract, figures by independent code, caching, failures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ijb_folder import write_ijb
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from facekd.data.embedding_cache import BLOCK
from facekd.data.images import encode_png, resize
from facekd.engine.evaluation import template_pairs
from facekd.engine.evaluation.figures import EvalSettings
from facekd.engine.evaluation.report_faces import faces_of_templates
from facekd.engine.evaluation.requirements import parse_requirement, require
from facekd.engine.evaluation.template_evaluation import TemplateEvaluation, evaluate_templates
from facekd.engine.evaluation.template_sets import TemplateSet, is_template_set, open_template_set
from facekd.engine.evaluation.two_views import ViewCache
from facekd.engine.resumable import Watched
from facekd.errors import DataError, Interrupted, NonFiniteError
from facekd.metrics.templates import AGGREGATIONS, Aggregation
from facekd.models.preprocessing import Preprocessing

SETTINGS = EvalSettings(fprs=(0.1, 1e-2, 1e-6), bootstrap=40)
HEAD = ["model", "model_digest", "set", "set_digest", "precision", "protocol", "norm", "det", "flip", "resolution"]
PAIRS = ["pairs", "genuine", "impostor", "failed_images", "accuracy", "auc", "auc_ci95", "eer", "tpr_at_fpr", "refused"]
SEARCH = [
    "gallery",
    "probes",
    "accuracy",
    "auc",
    "eer",
    "tpr_at_fpr",
    "rank",
    "rank_ci95",
    "rank_merged",
    "rank_merged_ci95",
    "tpir_at_fpir",
    "refused",
]


@dataclass(frozen=True)
class Skewed:
    """Embeds 8x8 pixels by a fixed matrix, so that a mirrored face has another embedding; counts what it was given."""

    name: str = "skewed"
    digest: str = "d1"
    embedding_size: int = 20
    parameters: int = 0
    preprocessing: Preprocessing = Preprocessing.named("none", size=(8, 8))
    bad: int | None = None
    seen: list[int] = field(default_factory=list)

    @property
    def metadata(self) -> dict[str, str]:
        return {}

    @property
    def warnings(self) -> tuple[str, ...]:
        return ()

    def embed(self, images: Tensor) -> Tensor:
        first = sum(self.seen) // 2
        self.seen.append(len(images))
        found = project(images.numpy())
        if self.bad is not None and first <= self.bad < first + len(images):
            found[self.bad - first] = np.nan
        return torch.from_numpy(found)


def project(images: np.ndarray) -> np.ndarray:
    matrix = np.random.default_rng(5).normal(size=(192, 20))
    return ((images.reshape(len(images), -1).astype(np.float64) - 127) @ matrix).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ijb")
    write_ijb(root / "ijbc")
    return root / "ijbc"


def evaluate(
    opened: TemplateSet,
    cache: Path,
    modes: tuple[Aggregation, ...] = AGGREGATIONS,
    settings: EvalSettings = SETTINGS,
    model: Skewed | None = None,
    failures: bool = False,
) -> list[TemplateEvaluation]:
    kept = ViewCache(cache, "", 16, failures)
    return list(evaluate_templates(model or Skewed(), opened, settings, modes, kept, Watched()))


def templates_by_hand(opened: TemplateSet, how: Aggregation, without: tuple[int, ...] = ()) -> dict[int, np.ndarray]:
    """Every template from the lists of the folder, the slow way; in float64."""
    members, images = opened.members, opened.images
    parts: dict[int, dict[int, list[np.ndarray]]] = {template: {} for template in members.ids.tolist()}
    for index in range(len(images)):
        media = parts[int(members.ids[members.rows[index]])]
        if index in without:
            continue
        pixels = resize(images.read(index), (8, 8)).transpose(2, 0, 1)[None]
        vector = project(pixels)[0].astype(np.float64)
        if how.flip:
            vector = vector + project(pixels[..., ::-1])[0]
        if how.norm == "unit":
            vector = vector / np.linalg.norm(vector)
        if how.det:
            vector = vector * opened.members.detector[index]
        media.setdefault(int(members.media[index]), []).append(vector)
    sums = {template: sum(np.mean(one, axis=0) for one in media.values()) for template, media in parts.items() if media}
    return {template: total / np.linalg.norm(total) for template, total in sums.items()}


def test_1_1_in_every_mode_is_what_numpy_and_scikit_learn_say(folder: Path, tmp_path: Path) -> None:
    opened = open_template_set(folder, "auto")
    assert opened.protocol == "ijb-1:1" and opened.subjects_known
    pairs, ids = opened.compared, opened.members.ids
    found = evaluate(opened, tmp_path)
    assert len(found) == 8 and len({one.result["eer"]["threshold"] for one in found}) == 8
    for evaluation, how in zip(found, AGGREGATIONS, strict=True):
        result = evaluation.result
        assert list(result) == [*HEAD, *PAIRS, "failed_templates", "seconds"]
        assert (result["norm"], result["det"], result["flip"]) == (how.norm, how.det, how.flip)
        assert json.loads(json.dumps(result)) == result and not evaluation.notes
        by_hand = templates_by_hand(opened, how)
        rows = np.stack([by_hand[template] for template in ids.tolist()])
        scores = (rows[pairs.left] * rows[pairs.right]).sum(axis=1)
        assert abs(result["auc"] - roc_auc_score(pairs.genuine, scores)) < 1e-5
        rates, tprs, thresholds = roc_curve(pairs.genuine, scores, drop_intermediate=False)
        for point in result["tpr_at_fpr"]:
            at = np.flatnonzero(rates <= point["fpr"])[-1]
            assert point["tpr"] == tprs[at] and point["attained_fpr"] == pytest.approx(rates[at])
            assert point["threshold"] == pytest.approx(thresholds[at], abs=1e-6)
            assert point["ci95"][0] <= point["tpr"] <= point["ci95"][1] and 0.1 < point["tpr"] < 1
        assert [point["fpr"] for point in result["tpr_at_fpr"]] == [0.1, 0.01]
        assert result["refused"] == [{"fpr": 1e-6, "impostors": 1104, "needed": 3_000_000}]
    require([found[0].result], [parse_requirement("tpr@0.1>=0.1")])


def test_1_n_is_what_plain_loops_say(folder: Path, tmp_path: Path) -> None:
    opened = open_template_set(folder, "ijb-1:n")
    settings = replace(SETTINGS, fprs=(0.2, 0.125, 1e-3))
    for evaluation, how in zip(evaluate(opened, tmp_path, settings=settings), AGGREGATIONS, strict=True):
        result = evaluation.result
        assert list(result) == [*HEAD, *SEARCH, "failed_images", "failed_templates", "seconds"]
        assert json.loads(json.dumps(result)) == result and evaluation.measured is None
        assert (result["gallery"], result["probes"]) == ({"G1": 12, "G2": 12}, 48)
        by_hand, ids = templates_by_hand(opened, how), opened.members.ids
        rows = np.stack([by_hand[template] for template in ids.tolist()])
        ranks, points = [], []
        for gallery in opened.compared.galleries:
            scores = rows[opened.compared.probes.rows] @ rows[gallery.rows].T
            own = opened.compared.probes.subjects[:, None] == gallery.subjects
            mated = own.any(axis=1)
            assert mated.sum() == 24
            mates = scores[own]
            better = (np.where(own, -2, scores)[mated] >= mates[:, None]).sum(axis=1)
            ranks.append(better + 1)
            highest = np.sort(scores[~mated].max(axis=1))[::-1]
            points.append([(mates > highest[allowed]).mean() for allowed in (4, 3)])
        for rank, rate in result["rank"].items():
            assert rate == pytest.approx(np.mean([(one <= int(rank)).mean() for one in ranks]))
        nist = [point for point in result["tpir_at_fpir"] if point["definition"] == "nist"]
        assert [point["tpir"] for point in nist] == pytest.approx(np.mean(points, axis=0))
        assert [point["false_alarms"] for point in nist] == [8, 6] and nist[0]["nonmated"] == 48
        assert {(entry["definition"], entry["nonmated"]) for entry in result["refused"]} == {
            ("nist", 24),
            ("merged", 48),
        }
        merged = [point for point in result["tpir_at_fpir"] if point["definition"] == "merged"]
        every = np.concatenate([gallery.rows for gallery in opened.compared.galleries])
        people = np.concatenate([gallery.subjects for gallery in opened.compared.galleries])
        scores = rows[opened.compared.probes.rows] @ rows[every].T
        own = opened.compared.probes.subjects[:, None] == people
        for point, count in zip(merged, (10, 6), strict=True):  # 48 x 0.2 and 48 x 0.125, rounded up
            limit = np.sort(scores[~own])[::-1][count - 1]
            assert point["tpir"] == (scores[own] > limit).mean() and point["false_alarms"] == count - 1


def test_images_are_embedded_once_for_all_modes_protocols_and_runs(folder: Path, tmp_path: Path) -> None:
    model = Skewed()
    first = evaluate(open_template_set(folder, "ijb-1:1"), tmp_path, model=model)
    count = len(open_template_set(folder, "ijb-1:1").images)
    assert sum(model.seen) == 2 * count
    evaluate(open_template_set(folder, "ijb-1:n"), tmp_path, model=model)
    again = evaluate(open_template_set(folder, "ijb-1:1"), tmp_path, model=model)
    assert sum(model.seen) == 2 * count
    for one, other in zip(first, again, strict=True):
        assert {**one.result, "seconds": 0} == {**other.result, "seconds": 0}
    evaluate(open_template_set(folder, "ijb-1:1"), tmp_path, model=replace(model, digest="d2"))
    assert sum(model.seen) == 4 * count


def test_a_pass_that_was_stopped_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facekd.data.embedding_cache.BLOCK", 32)
    assert BLOCK > 32
    opened, model = open_template_set(folder, "ijb-1:1"), Skewed()
    polled: Iterator[int] = iter(range(100))

    def poll() -> None:
        if next(polled) == 5:
            raise Interrupted(15, "facekd eval", "stopped")

    kept = ViewCache(tmp_path, "", 16)
    with pytest.raises(Interrupted):
        list(evaluate_templates(model, opened, SETTINGS, AGGREGATIONS, kept, Watched(poll=poll)))
    assert sum(model.seen) == 2 * 80
    found = evaluate(opened, tmp_path, model=model)
    assert sum(model.seen) == 2 * (80 + len(opened.images) - 64)
    want = evaluate(opened, tmp_path / "other")
    assert [{**one.result, "seconds": 0} for one in found] == [{**one.result, "seconds": 0} for one in want]


def test_a_face_replaced_by_another_of_the_same_name_and_size_is_seen(tmp_path: Path) -> None:
    write_ijb(tmp_path / "set")
    crops, model = tmp_path / "set" / "loose_crop", Skewed()
    one, other = (path.read_bytes() for path in (crops / "5.png", crops / "6.png"))
    size = max(len(one), len(other))
    (crops / "5.png").write_bytes(one.ljust(size, b"\0"))
    before = evaluate(open_template_set(tmp_path / "set", "ijb-1:1"), tmp_path / "cache", model=model)
    (crops / "5.png").write_bytes(other.ljust(size, b"\0"))
    opened = open_template_set(tmp_path / "set", "ijb-1:1")
    after = evaluate(opened, tmp_path / "cache", model=model)
    assert sum(model.seen) == 2 * 2 * len(opened.images)
    assert [one.result["auc"] for one in after] != [one.result["auc"] for one in before]


def test_item_122_failed_images_are_an_error_or_are_counted(tmp_path: Path) -> None:
    made = write_ijb(tmp_path / "set")
    first = [line.split()[0] for line in made.lines["faces"] if int(line.split()[1]) == made.templates[0]]
    (tmp_path / "set" / "loose_crop" / "9.png").write_bytes(b"\x89PNG\r\n\x1a\nand nothing more")
    opened = open_template_set(tmp_path / "set", "ijb-1:1")
    with pytest.raises(DataError, match=r"9\.png: the png header is cut short or damaged"):
        evaluate(opened, tmp_path / "cache")
    for name in first:
        (tmp_path / "set" / "loose_crop" / name).unlink()
    opened = open_template_set(tmp_path / "set", "ijb-1:1", count_failures=True)
    gone = tuple(int(name.removesuffix(".png")) - 1 for name in [*first, "9.png"])
    whole = AGGREGATIONS[:1]
    (found,) = evaluate(opened, tmp_path / "cache", modes=whole, failures=True)
    assert (found.result["failed_images"], found.result["failed_templates"]) == (len(gone), 2)
    assert f"{len(gone)} of {len(opened.images)} images failed, the first '1.png'" in found.notes[0]
    assert found.result["pairs"] == 24 * 48
    by_hand, pairs, ids = templates_by_hand(opened, whole[0], gone), opened.compared, opened.members.ids
    assert made.templates[0] not in by_hand
    rows = np.stack([by_hand.get(template, np.full(20, np.nan)) for template in ids.tolist()])
    scores = (rows[pairs.left] * rows[pairs.right]).sum(axis=1)
    plain = found.result["failed_as_non_matches"]
    assert abs(plain["auc"] - roc_auc_score(pairs.genuine, np.nan_to_num(scores, nan=-1.0))) < 1e-5
    spoiled = np.flatnonzero(np.isin(ids, [made.templates[0], ids[opened.members.rows[8]]]))
    lost = np.isin(pairs.left, spoiled) | np.isin(pairs.right, spoiled)
    scores[lost] = np.where(pairs.genuine[lost], -2.0, 2.0)
    assert abs(found.result["auc"] - roc_auc_score(pairs.genuine, scores)) < 1e-5
    count = int((lost & pairs.genuine).sum())
    assert found.result["failed_comparisons"] == {"genuine": count, "impostor": int(lost.sum()) - count}
    (point,), (refusal, *_) = found.result["tpr_at_fpr"], found.result["refused"]
    assert (point["fpr"], refusal["fpr"], refusal["failed"]) == (0.1, 0.01, int(lost.sum()) - count)
    allowed = np.sort(scores[~pairs.genuine])[::-1][:111]
    assert point["threshold"] >= allowed[-1] and point["false_accepts"] + refusal["failed"] <= 110
    (search,) = evaluate(
        open_template_set(tmp_path / "set", "ijb-1:n", count_failures=True), tmp_path / "cache", whole, failures=True
    )
    assert search.result["failed_templates"] == 2 and search.result["probes"] == 48
    assert search.result["failed_probes"] + sum(search.result["failed_gallery"].values()) == 2
    assert search.result["rank"]["1"] < search.result["failed_as_non_matches"]["rank"]["1"]


def test_an_embedding_that_is_not_finite_stops_or_counts(folder: Path, tmp_path: Path) -> None:
    opened, whole = open_template_set(folder, "ijb-1:1"), AGGREGATIONS[:1]
    with pytest.raises(NonFiniteError, match=r"skewed: the embedding of 6\.png is not finite, 1 of 16"):
        evaluate(opened, tmp_path, whole, model=Skewed(bad=5))
    (found,) = evaluate(opened, tmp_path, whole, model=Skewed(bad=5), failures=True)
    assert found.result["failed_images"] == 1 and found.result["failed_templates"] == 1


def test_unknown_people_resample_pairs_where_these_are_few(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_template_set(folder, "ijb-1:1")
    unknown = replace(opened, compared=replace(opened.compared, subjects=None))
    assert not unknown.subjects_known
    known, pairs = (evaluate(one, tmp_path, AGGREGATIONS[:1])[0].result["tpr_at_fpr"] for one in (opened, unknown))
    assert known[0]["ci95"] != pairs[0]["ci95"] and known[0]["tpr"] == pairs[0]["tpr"]
    areas = [evaluate(one, tmp_path, AGGREGATIONS[:1])[0].result["auc_ci95"] for one in (opened, unknown)]
    assert areas[0] != areas[1] and all(low < high for low, high in areas)
    monkeypatch.setattr(template_pairs, "MOST_UNKNOWN_PAIRS", 1000)
    (many,) = evaluate(unknown, tmp_path, AGGREGATIONS[:1])
    assert [point["ci95"] for point in many.result["tpr_at_fpr"]] == [None, None]
    assert many.result["auc_ci95"] is many.result["eer"]["ci95"] is None
    assert many.result["no_interval"] == "people are unknown, and more than 1,000 pairs are not resampled"


def test_pairs_that_are_too_many_have_no_interval_of_the_curve(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_pairs, "HELD_PAIRS", 1000)
    (found,) = evaluate(open_template_set(folder, "ijb-1:1"), tmp_path, AGGREGATIONS[:1])
    assert found.result["auc_ci95"] is None and all(point["ci95"] for point in found.result["tpr_at_fpr"])
    assert "AUC and EER of more than 5,000,000 impostor pairs" in found.result["no_interval"]


def test_details_hold_the_curve_of_the_templates(folder: Path, tmp_path: Path) -> None:
    opened = open_template_set(folder, "ijb-1:1")
    (found,) = evaluate(opened, tmp_path, AGGREGATIONS[:1], replace(SETTINGS, details=True))
    assert found.measured is not None and found.measured.details is not None
    details, pairs = found.measured.details, opened.compared
    assert int(details.histogram.genuine.sum()) == found.result["genuine"]
    by_hand, ids = templates_by_hand(opened, AGGREGATIONS[0]), opened.members.ids
    rows = np.stack([by_hand[template] for template in ids.tolist()])
    scores = (rows[pairs.left] * rows[pairs.right]).sum(axis=1)
    worst = np.where(pairs.genuine, scores, 9).argsort()[:12], np.where(pairs.genuine, -9, scores).argsort()[:-13:-1]
    for hard, places in zip((details.hardest_genuine, details.hardest_impostor), worst, strict=True):
        assert [(one.first, one.second) for one in hard] == [(pairs.left[k], pairs.right[k]) for k in places]
        assert [one.score for one in hard] == pytest.approx(scores[places], abs=1e-6)


def test_details_of_a_search_hold_every_rank_and_the_hardest_probes(folder: Path, tmp_path: Path) -> None:
    opened, whole = open_template_set(folder, "ijb-1:n"), AGGREGATIONS[:1]
    (found,) = evaluate(opened, tmp_path, whole, replace(SETTINGS, fprs=(0.2,), details=True))
    details, search = found.search_details, opened.compared
    assert details is not None and evaluate(opened, tmp_path, whole)[0].search_details is None
    by_hand, ids = templates_by_hand(opened, whole[0]), opened.members.ids
    rows, probes = np.stack([by_hand[template] for template in ids.tolist()]), search.probes
    apart = []
    for gallery in search.galleries:
        scores, own = rows[probes.rows] @ rows[gallery.rows].T, probes.subjects[:, None] == gallery.subjects
        mated = own.any(axis=1)
        apart.append(1 + (np.where(own, -2, scores)[mated] >= scores[own][:, None]).sum(axis=1))
    wanted = [np.mean([(ranks <= k).mean() for ranks in apart]) for k in range(1, 13)]
    assert details.cmc == pytest.approx(wanted) and len(set(wanted)) > 3 and wanted[-1] == 1
    every = np.concatenate([gallery.rows for gallery in search.galleries])
    people = np.concatenate([gallery.subjects for gallery in search.galleries])
    scores, own = rows[probes.rows] @ rows[every].T, probes.subjects[:, None] == people
    mates, others = np.where(own, scores, -2), np.where(own, -2, scores)
    ranks = 1 + (others >= mates.max(axis=1)[:, None]).sum(axis=1)
    for hard, side, order in (
        (details.hardest_impostor, others, (-others.max(axis=1)).argsort()),
        (details.hardest_genuine, mates, mates.max(axis=1).argsort()),
    ):
        told = [(one.probe, one.other, one.rank) for one in hard]
        assert told == [(probes.rows[k], every[side[k].argmax()], ranks[k]) for k in order[:12]]
        assert [one.score for one in hard] == pytest.approx(side.max(axis=1)[order[:12]], abs=1e-6)


def test_a_template_is_shown_by_the_image_its_detector_was_surest_of(tmp_path: Path) -> None:
    write_ijb(tmp_path / "set")
    opened = open_template_set(tmp_path / "set", "ijb-1:n")
    members, faces = opened.members, faces_of_templates(opened, (112, 112), count_failures=False)
    several = [template for template in range(len(members.ids)) if (members.rows == template).sum() > 2]
    for template in several[:3]:
        own = np.flatnonzero(members.rows == template)
        best = own[members.detector[own].argmax()]
        assert faces.name(template) == f"template {members.ids[template]}: {opened.images.sample_name(best)}"
        assert faces.read is not None and (faces.read(template, None) == opened.images.read(best)).all()
    template = several[0]
    own = np.flatnonzero(members.rows == template)
    order = own[np.argsort(-members.detector[own])]
    files = [tmp_path / "set" / "loose_crop" / opened.images.sample_name(image) for image in order]
    files[0].write_bytes(b"no picture")
    with pytest.raises(DataError, match=files[0].name):
        faces_of_templates(opened, (112, 112), count_failures=False).name(template)
    counted = faces_of_templates(opened, (112, 112), count_failures=True)
    assert counted.name(template).endswith(f": {files[1].name}")
    for file in files:
        file.unlink(missing_ok=True)
    without = faces_of_templates(opened, (112, 112), count_failures=True)
    assert without.name(template) == f"template {members.ids[template]}"
    assert without.read is not None and without.read(template, None) is None


def test_an_image_of_tinyface_is_shown_under_its_name(tmp_path: Path) -> None:
    pixels, _ = write_tinyface(tmp_path / "set")
    opened = open_template_set(tmp_path / "set", "tinyface")
    faces = faces_of_templates(opened, (8, 8), count_failures=False)
    assert faces.name(0) == "Probe/0_0.png" and faces.read is not None
    assert (faces.read(0, None) == pixels[0]).all()


def write_tinyface(root: Path, side: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Six people with three probes and two matches each, and twenty strangers; gives pixels and subjects."""
    pixels, subjects = [], []
    for part, person, count in (
        [("Probe", p, 3) for p in range(6)]
        + [("Gallery_Match", p, 2) for p in range(6)]
        + [("Gallery_Distractor", 50, 20)]
    ):
        (root / part).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            rng = np.random.default_rng([len(pixels), 3])
            base = np.random.default_rng([4, person]).integers(60, 196, (side, side, 3))
            picture = np.clip(base + rng.normal(0, 60, base.shape), 0, 255).astype(np.uint8)
            name = f"{person * 7}_{number}.png" if part != "Gallery_Distractor" else f"stranger{number:02d}.png"
            (root / part / name).write_bytes(encode_png(picture))
            pixels.append(picture)
            subjects.append(person if part != "Gallery_Distractor" else -1)
    return np.stack(pixels), np.array(subjects)


def test_tinyface_ranks_are_what_plain_loops_say(tmp_path: Path) -> None:
    pixels, subjects = write_tinyface(tmp_path / "set" / "Testing_Set")
    opened = open_template_set(tmp_path / "set", "auto")
    assert opened.protocol == "tinyface" and is_template_set(tmp_path / "set", "auto")
    assert "18 probes, 12 matches, 20 distractors; TinyFace has 3,728 probes" in opened.warnings[0]
    for flip in (True, False):
        (found,) = evaluate(opened, tmp_path / "cache", (Aggregation(flip=flip),))
        images = pixels.transpose(0, 3, 1, 2)
        rows = project(images) + (project(images[..., ::-1]) if flip else 0)
        rows = rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        scores, own = rows[:18] @ rows[18:].T, subjects[:18, None] == subjects[18:]
        best = np.where(own, scores, -2).max(axis=1)
        ranks = 1 + (np.where(own, -2, scores) >= best[:, None]).sum(axis=1)
        assert found.result["rank"] == {str(k): pytest.approx((ranks <= k).mean()) for k in (1, 5, 20)}
        assert (found.result["probes"], found.result["gallery"]) == (18, {"match + distractors": 32})
        assert 0.1 < found.result["rank"]["1"] < 1 and found.result["tpir_at_fpir"] == []
        assert list(found.result) == [*HEAD, *SEARCH, "failed_images", "failed_templates", "seconds"]


def test_tinyface_images_of_another_cut_need_to_be_allowed(tmp_path: Path) -> None:
    write_tinyface(tmp_path / "set", side=16)
    opened, flip = open_template_set(tmp_path / "set", "tinyface"), AGGREGATIONS[:1]
    assert "no size of aligned faces" in opened.warnings[1]
    with pytest.raises(DataError, match=r"set: Probe/0_0\.png: 16x16 pixels, and the model takes 8x8"):
        evaluate(opened, tmp_path / "cache", flip)
    assert evaluate(opened, tmp_path / "cache", flip, replace(SETTINGS, allow_resize=True))[0].result["probes"] == 18


def test_protocols_are_told_by_name_or_layout(folder: Path, tmp_path: Path) -> None:
    assert is_template_set(folder, "auto") and is_template_set(tmp_path, "ijb-1:n")
    assert not is_template_set(folder, "all-pairs") and not is_template_set(tmp_path, "auto")
