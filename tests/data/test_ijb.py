"""IJB folders: what is read of a good one, and one line for every bad one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ijb_folder import SUBJECTS, Layout, draw, write_ijb

from facekd.data import number_rows as rows_module
from facekd.data.align import TEMPLATE, warp
from facekd.data.ijb import is_ijb, open_ijb
from facekd.data.ijb_protocols import read_pairs, read_search
from facekd.data.number_rows import number_rows
from facekd.errors import FacekdError, InputError


@pytest.mark.parametrize("kind", ["ijbc", "ijbb"])
def test_a_folder_is_read_as_it_was_written(tmp_path: Path, kind: str) -> None:
    made = write_ijb(tmp_path / "set", kind=kind)
    folder = open_ijb(tmp_path / "set")
    assert folder.members.ids.tolist() == sorted(made.templates) and max(made.templates) > 10**12
    assert len(folder.crops) == len(made.images) == len(folder.members.rows)
    pairs = read_pairs(folder)
    want = [tuple(int(text) for text in line.split()) for line in made.lines["pairs"]]
    ids = folder.members.ids
    found = list(zip(ids[pairs.left].tolist(), ids[pairs.right].tolist(), pairs.genuine.tolist(), strict=True))
    assert found == want and pairs.left.dtype == np.int32
    assert pairs.subjects is not None
    same = pairs.subjects[pairs.left] == pairs.subjects[pairs.right]
    assert np.array_equal(same, pairs.genuine) and len(np.unique(pairs.subjects)) == SUBJECTS
    search = read_search(folder)
    galleries, probes = search.galleries, search.probes
    assert [gallery.name for gallery in galleries] == (["G1", "G2"] if kind == "ijbc" else ["S1", "S2"])
    assert [len(gallery.rows) for gallery in galleries] == [12, 12] and len(probes.rows) == 48
    by_template = dict(zip(made.templates, made.subjects, strict=True))
    for part in (*galleries, probes):
        assert [by_template[template] for template in ids[part.rows].tolist()] == part.subjects.tolist()


def test_crops_are_aligned_by_their_landmarks(tmp_path: Path) -> None:
    def straight(made: Layout) -> None:
        points = " ".join(f"{value:.4f}" for value in (TEMPLATE + 14).ravel())
        made.lines["points"][0] = f"1.png {points} 0.25"

    made = write_ijb(tmp_path, straight)
    folder = open_ijb(tmp_path)
    assert np.array_equal(folder.crops.read(0), draw(*made.images["1.png"])[14:126, 14:126])
    assert folder.members.detector[0] == 0.25 and folder.crops.sample_name(0) == "1.png"
    other = np.array(made.lines["points"][1].split()[1:11], float).reshape(5, 2)
    assert np.array_equal(folder.crops.read(1), warp(draw(*made.images["2.png"]), other))


def test_the_folder_above_serves_and_two_sets_at_once_do_not(tmp_path: Path) -> None:
    write_ijb(tmp_path / "IJBC")
    assert is_ijb(tmp_path) and is_ijb(tmp_path / "IJBC") and not is_ijb(tmp_path / "IJBC" / "meta")
    assert open_ijb(tmp_path).digest == open_ijb(tmp_path / "IJBC").digest
    write_ijb(tmp_path / "IJBB", kind="ijbb")
    with pytest.raises(InputError, match=r"holds several sets: .*IJBB/meta, .*IJBC/meta \(name the folder of one\)"):
        open_ijb(tmp_path)
    with pytest.raises(InputError, match="is no IJB folder"):
        open_ijb(tmp_path / "IJBC" / "meta")


def test_landmarks_in_another_order_are_found_by_name_and_it_is_said(tmp_path: Path) -> None:
    write_ijb(tmp_path / "a")
    write_ijb(tmp_path / "b", lambda made: made.lines["points"].reverse())
    one, other = open_ijb(tmp_path / "a"), open_ijb(tmp_path / "b")
    assert np.array_equal(one.crops.landmarks, other.crops.landmarks)
    assert np.array_equal(one.members.detector, other.members.detector)
    assert any("images are matched by name" in line for line in other.warnings) and len(one.warnings) == 1


def test_counts_other_than_the_published_ones_are_told(tmp_path: Path) -> None:
    write_ijb(tmp_path)
    folder = open_ijb(tmp_path)
    assert folder.warnings[0].endswith("ijbc_face_tid_mid.txt: 72 templates; IJB-C has 23,124")
    assert read_pairs(folder).warnings[0].endswith("1,152 pairs; IJB-C has 15,658,489")


def test_the_digest_follows_images_and_landmarks_only(tmp_path: Path) -> None:
    def other_point(made: Layout) -> None:
        made.lines["points"][3] = re.sub(r"^(\S+) \S+", r"\1 50.0", made.lines["points"][3])

    def other_template(made: Layout) -> None:
        made.lines["faces"][3] = re.sub(r" \d+$", " 999999", made.lines["faces"][3])

    digests = []
    for number, change in enumerate((None, other_point, other_template)):
        write_ijb(tmp_path / str(number), change)
        digests.append(open_ijb(tmp_path / str(number)).digest)
    assert digests[0] == digests[2] != digests[1]


def line(name: str, at: int, text: str) -> Callable[[Layout], None]:
    """A change that replaces one line of a list, counted from 1; of ``{}`` fields are filled from the line there."""

    def change(made: Layout) -> None:
        made.lines[name][at - 1] = text.format(*made.lines[name][at - 1].replace(",", " ").split())

    return change


def shared_image(made: Layout) -> None:
    """An image of template 1 stands in its mate in the pairs, too."""
    name, template, _ = made.lines["faces"][0].split()
    mate = made.templates[SUBJECTS]
    assert int(template) == made.templates[0]
    made.lines["faces"].append(f"{name} {mate} 5")
    made.lines["points"].append(made.lines["points"][0])


def points_in_order(*order: int) -> Callable[[Layout], None]:
    """A change of the order in which the ten coordinates stand."""

    def change(made: Layout) -> None:
        for at, text in enumerate(made.lines["points"]):
            fields = text.split()
            made.lines["points"][at] = " ".join([fields[0], *(fields[1 + place] for place in order), fields[11]])

    return change


UNLIKE = "points: most of its points do not lie like faces (median likeness "
BAD = [
    ("faces:3: 2 fields instead of 3: '3.png ", line("faces", 3, "{0} {1}")),
    ("faces:3: 1 field instead of 3: '3.png,", line("faces", 3, "{0},{1},{2}")),
    ("faces:3: 4 fields instead of 3", line("faces", 3, "{0} {1} {2} 1")),
    ("faces:2: template id '-4' is no whole number from 0 up", line("faces", 2, "{0} -4 {2}")),
    ("faces:2: template id '\"5\"' is no whole number", line("faces", 2, '{0} "5" {2}')),
    ("faces:2: media id '3.0' is no whole number", line("faces", 2, "{0} {1} 3.0")),
    ("faces:2: template id '1" + "0" * 18 + "' is no whole", line("faces", 2, "{0} 1" + "0" * 18 + " {2}")),
    ("faces:2: path '../x.png' leads upwards", line("faces", 2, "../x.png {1} {2}")),
    ("faces: 1 image is missing: line 2: ", lambda made: made.images.pop("2.png")),
    ("faces: is empty", lambda made: made.lines["faces"].clear()),
    ("points:4: 11 fields instead of 12", line("points", 4, "{0} {1} {2} {3} {4} {5} {6} {7} {8} {9} {10}")),
    ("points:4: 'x' is no number", line("points", 4, "{0} x {2} {3} {4} {5} {6} {7} {8} {9} {10} {11}")),
    ("points:4: nan is no coordinate", line("points", 4, "{0} nan {2} {3} {4} {5} {6} {7} {8} {9} {10} {11}")),
    ("points:4: 1e9 is no coordinate", line("points", 4, "{0} 1e9 {2} {3} {4} {5} {6} {7} {8} {9} {10} {11}")),
    ("points:4: inf is no coordinate and no score", line("points", 4, "{0} 1 2 3 4 5 6 7 8 9 10 inf")),
    ("points:4: the detector score -0.5 is negative", line("points", 4, "{0} 1 2 3 4 5 6 7 8 9 10 -0.5")),
    ("points:4: the five landmarks are one point", line("points", 4, "{0} 9 8 9 8 9 8 9 8 9 8 0.5")),
    ("faces:4: '4.png' has no line in ijbc_name_5pts_score.txt", line("points", 4, "other.png 1 2 3 4 5 6 7 8 9 9 1")),
    ("points:4: '3.png' has other landmarks on line 3", line("points", 4, "3.png 1 2 3 4 5 6 7 8 9 10 1")),
    (UNLIKE + "0.7", points_in_order(0, 2, 4, 6, 8, 1, 3, 5, 7, 9)),
    (UNLIKE + "0.2", points_in_order(1, 0, 3, 2, 5, 4, 7, 6, 9, 8)),
    (UNLIKE + "0.5", points_in_order(2, 3, 0, 1, 4, 5, 6, 7, 8, 9)),
    ("pairs:5: 2 fields instead of 3", line("pairs", 5, "{0} {1}")),
    ("pairs:5: 1 field instead of 3: '", line("pairs", 5, "{0},{1},{2}")),
    ("pairs:5: label 2 (write 0 or 1)", line("pairs", 5, "{0} {1} 2")),
    ("pairs:5: label '-1' is no whole number from 0 up", line("pairs", 5, "{0} {1} -1")),
    ("pairs:5: template 4 has no images (every template needs a line in", line("pairs", 5, "{0} 4 0")),
    ("pairs:5: template 1000000000000 has no images", line("pairs", 5, "1000000000000 {1} 0")),
    ("pairs:5: template id '-5' is no whole number", line("pairs", 5, "{0} -5 0")),
    ("pairs:5: template id '\"5\"' is no whole number", line("pairs", 5, '{0} "5" 0')),
    ("is compared with itself (remove the line)", line("pairs", 5, "{0} {0} 0")),
    ("pairs:1: label 0, and the 1:N lists give", line("pairs", 1, "{0} {1} 0")),
    ("pairs:2: label 1, and the 1:N lists give", line("pairs", 2, "{0} {1} 1")),
    ("are a genuine pair and hold the same image (remove it from one of them)", shared_image),
    ("pairs: is empty", lambda made: made.lines["pairs"].clear()),
    ("pairs: 0 impostor pairs: FPR is not defined", lambda made: made.lines.update(pairs=made.lines["pairs"][:1])),
    ("pairs: 0 genuine pairs: TPR is not defined", lambda made: made.lines.update(pairs=made.lines["pairs"][1:9])),
    ("G1:1: the header 'TEMPLATE_ID,SIGHTING' lacks SUBJECT_ID", line("G1", 1, "TEMPLATE_ID,SIGHTING")),
    ("G1:1: the header", line("G1", 1, "TEMPLATE_ID SUBJECT_ID")),
    ("G1:2: 2 fields instead of 4", line("G1", 2, "{0},{1}")),
    ("G1:2: subject id 's5' is no whole number", line("G1", 2, "{0},s5,a,b")),
    ("probes:3: template ", line("probes", 3, "{0},77,a,b")),
    ("G2: holds a header and no templates", lambda made: made.lines.update(G2=made.lines["G2"][:1])),
]


@pytest.mark.parametrize(("message", "change"), BAD, ids=[message[:40] for message, _ in BAD])
def test_items_121_to_124_bad_lists_are_one_line(
    message: str, change: Callable[[Layout], None], tmp_path: Path
) -> None:
    write_ijb(tmp_path, change)
    with pytest.raises(FacekdError) as caught:
        read_pairs(open_ijb(tmp_path))
    told = re.sub(r"^.*/ijbc_", "", str(caught.value))
    for short, name in (("faces", "face_tid_mid.txt"), ("points", "name_5pts_score.txt"), ("G1", "1N_gallery_G1.csv")):
        told = re.sub(rf"^{re.escape(name)}", short, told)
    for short, name in (("pairs", "template_pair_label.txt"), ("G2", "1N_gallery_G2.csv"), ("probes", "1N_probe")):
        told = re.sub(rf"^{re.escape(name)}(_mixed.csv)?", short, told)
    assert message in told, told
    assert len(caught.value.lines) == 1 and caught.value.exit_code == 2


def test_a_template_of_the_search_without_images_and_one_that_shares_an_image_are_refused(tmp_path: Path) -> None:
    write_ijb(tmp_path / "a", line("probes", 2, "4,100,a,b"))
    with pytest.raises(InputError, match=r"probe_mixed.csv:2: template 4 has no images"):
        read_search(open_ijb(tmp_path / "a"))
    write_ijb(tmp_path / "b", shared_image)
    with pytest.raises(InputError, match=r"probe_mixed.csv:2: template \d+ holds an image of .* mate in gallery G1"):
        read_search(open_ijb(tmp_path / "b"))
    write_ijb(tmp_path / "c", lambda made: made.lines.update(G2=[made.lines["G2"][0], f"{made.templates[1]},5,a,b"]))
    with pytest.raises(InputError, match="no probe is of a subject of gallery G2"):
        read_search(open_ijb(tmp_path / "c"))


def test_subjects_are_unknown_where_the_lists_are_absent_or_do_not_tell_of_all(tmp_path: Path) -> None:
    write_ijb(tmp_path)
    for name in ("1N_gallery_G1.csv", "1N_gallery_G2.csv", "1N_probe_mixed.csv"):
        (tmp_path / "meta" / f"ijbc_{name}").unlink()
        assert read_pairs(open_ijb(tmp_path)).subjects is None
    with pytest.raises(InputError, match="1N_gallery_G1.csv: no such file"):
        read_search(open_ijb(tmp_path))


def test_a_missing_image_may_be_left_to_be_counted(tmp_path: Path) -> None:
    write_ijb(tmp_path, lambda made: made.images.pop("2.png"))
    assert len(open_ijb(tmp_path, missing_counts=True).crops) > 100


@pytest.mark.parametrize("size", [5, 64, 2**22])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_numbers_are_read_alike_in_chunks_of_any_size(
    size: int, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "CHUNK_BYTES", size)
    rng = np.random.default_rng(0)
    want = rng.integers(0, 10 ** rng.integers(1, 18, (400, 1)), (400, 2))
    text = ending.join(f"{a}\t {b} " for a, b in want.tolist())
    for number, written in enumerate((text, text + ending, "\ufeff" + text, text + ending * 3)):
        path = tmp_path / str(number)
        path.write_bytes(written.encode())
        parts = list(number_rows(path, ("one", "other")))
        assert np.array_equal(np.concatenate([numbers for _, numbers in parts]), want)
        assert np.array_equal(np.concatenate([lines for lines, _ in parts]), np.arange(1, 401))


def test_a_bad_line_is_named_wherever_the_chunks_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows"
    for at, bad in ((1, "1 2 3"), (50, "5"), (77, "1 x"), (100, "1,2"), (33, "1 \x00"), (34, "9" * 19 + " 1")):
        lines = [f"{n} {n}" for n in range(1, 101)]
        lines[at - 1] = bad
        path.write_text("\n".join(lines))
        for size in (7, 100, 2**22):
            monkeypatch.setattr(rows_module, "CHUNK_BYTES", size)
            with pytest.raises(InputError, match=rf"rows:{at}: "):
                list(number_rows(path, ("one", "other")))
    path.write_bytes(b"1" * 2**18)
    monkeypatch.setattr(rows_module, "CHUNK_BYTES", 2**17)
    with pytest.raises(InputError, match="a line is longer than 65536 bytes"):
        list(number_rows(path, ("one",)))
    with pytest.raises(InputError, match="is a folder"):
        list(number_rows(tmp_path, ("one",)))
