"""Verification sets: every format gives the same pairs, and every fault is named with its line or record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facekd.data.images import encode_png
from facekd.data.verification import distinct_pairs, open_verification_set, sniff_list, write_bin
from facekd.errors import DataError, InputError

PEOPLE = ["Ann", "Bob", "Cy_d"]
LFW = "2\t2\nAnn\t1\t2\nBob\t1\t2\nAnn\t1\tBob\t1\nBob\t2\tCy_d\t1\n" + (
    "Cy_d\t1\t2\nAnn\t1\t3\nAnn\t2\tCy_d\t1\nBob\t3\tCy_d\t3\n"
)


def pixels(person: int, number: int) -> np.ndarray:
    return np.full((8, 8, 3), person * 50 + number, np.uint8)


@pytest.fixture
def faces(tmp_path) -> Path:
    root = tmp_path / "faces"
    for person, name in enumerate(PEOPLE):
        (root / name).mkdir(parents=True)
        for number in (1, 2, 3):
            (root / name / f"{name}_{number:04d}.png").write_bytes(encode_png(pixels(person, number)))
    return root


def listed(faces: Path, text: str | bytes, suffix: str = ".txt") -> Path:
    path = faces / f"pairs{suffix}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def opened(faces: Path, text: str | bytes, suffix: str = ".txt"):
    return open_verification_set(listed(faces, text, suffix))


def refusal(faces: Path, text: str | bytes, suffix: str = ".txt") -> str:
    with pytest.raises(InputError) as caught:
        opened(faces, text, suffix)
    message = str(caught.value)
    assert f"pairs{suffix}" in message and "\n" not in message
    return message


def table(count: int = 12, header: str = "path1,path2,label\n") -> str:
    same = [f"Ann/Ann_000{1 + i % 3}.png,Ann/Ann_000{1 + (i + 1) % 3}.png,1\n" for i in range(count // 2)]
    other = [f"Ann/Ann_000{1 + i % 3}.png,Bob/Bob_000{1 + i // 3 % 3}.png,0\n" for i in range(count // 2)]
    return header + "".join(same + other)


def test_lfw_pairs_images_folds_and_subjects(faces):
    found = opened(faces, LFW)
    assert found.genuine.tolist() == [True, True, False, False] * 2
    assert found.folds.tolist() == [0] * 4 + [1] * 4
    assert len(found.images) == 9 and found.images.sample_name(0) == "Ann/Ann_0001.png"
    assert found.pairs[0].tolist() == [0, 1] and found.pairs[2].tolist() == [0, 2]
    assert len(np.unique(found.subjects)) == 3
    same = found.subjects[found.pairs[:, 0]] == found.subjects[found.pairs[:, 1]]
    assert np.array_equal(same, found.genuine)
    assert np.array_equal(found.images.read(int(found.pairs[3, 1])), pixels(2, 1))
    assert any("3 people are in more than one fold" in warning for warning in found.warnings)


def test_lfw_with_bom_crlf_and_blank_lines_is_the_same_set(faces):
    plain = opened(faces, LFW)
    other = opened(faces, b"\xef\xbb\xbf" + LFW.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    assert other.digest == plain.digest and other.warnings == plain.warnings


def test_the_digest_follows_images_pairs_and_folds(faces):
    digest = opened(faces, LFW).digest
    assert opened(faces, LFW.replace("Ann\t1\t3", "Ann\t2\t3")).digest != digest
    assert opened(faces, LFW.replace("2\t2\n", "", 1)).digest != digest
    (faces / "Ann" / "Ann_0001.png").write_bytes(encode_png(np.eye(9, dtype=np.uint8)[..., None].repeat(3, 2)))
    assert opened(faces, LFW).digest != digest


def test_jpg_is_preferred_and_png_found(faces):
    (faces / "Ann" / "Ann_0001.jpg").write_bytes(encode_png(pixels(0, 1)))
    assert opened(faces, LFW).images.sample_name(0) == "Ann/Ann_0001.jpg"


def test_one_count_header_and_lists_without_header_draw_folds(faces):
    one = opened(faces, "2\nAnn\t1\t2\nBob\t1\t2\nAnn\t1\tBob\t1\nBob\t2\tCy_d\t1\n")
    bare = opened(faces, "Ann\t1\t2\nBob\t1\t2\nAnn\t1\tBob\t1\nBob\t2\tCy_d\t1\n")
    assert one.genuine.tolist() == bare.genuine.tolist() == [True, True, False, False]
    assert sorted(one.folds.tolist()) == [0, 1, 2, 3]
    assert "4 stratified folds were drawn with seed 0" in one.warnings[0]


def test_a_bare_list_of_blocks_keeps_its_order_as_folds(faces):
    block = "Ann\t1\t2\nAnn\t1\t3\nAnn\t1\tBob\t1\nAnn\t1\tBob\t2\n"
    assert opened(faces, block * 10).folds.tolist() == [pair // 4 for pair in range(40)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("10\t300\n", "announces 10 x (300 genuine + 300 impostor) = 6000 pairs, the file holds 0"),
        (LFW.rsplit("\n", 2)[0], "= 8 pairs, the file holds 7"),
        ("0\t3\n" + LFW[4:], "pairs.txt:1: the header '0\\t3' counts no pairs"),
        ("-2\t2\n" + LFW[4:], "counts no pairs"),
        (LFW.replace("Bob\t1\t2\n", "Bob\t1\n"), "pairs.txt:3: 2 fields instead of 3 (genuine) or 4 (impostor): 'B"),
        (LFW.replace("Bob\t1\t2\n", "Bob\t1\t2\t3\t4\n"), "pairs.txt:3: 5 fields"),
        (LFW.replace("Bob\t1\t2\n", "Bob 1 2\n"), "pairs.txt:3: 1 field instead of 3 (genuine) or 4 (impostor): 'Bob "),
        (LFW.replace("Bob\t1\t2\n", "Bob 1 2\n"), "(separate the fields with tabs)"),
        (LFW.replace("Bob\t1\t2\n", "x" * 500 + "\n"), "pairs.txt:3: 1 field"),
        (LFW.replace("Bob\t1\t2", "Bob\t0\t2"), "pairs.txt:3: image number '0' (write a whole number from 1"),
        (LFW.replace("Bob\t1\t2", "Bob\t-1\t2"), "pairs.txt:3: image number '-1'"),
        (LFW.replace("Bob\t1\t2", "Bob\t1.5\t2"), "pairs.txt:3: image number '1.5'"),
        (LFW.replace("Bob\t1\t2", "Bob\t1\t1000000000000"), "pairs.txt:3: image number '1000000000000'"),
        (LFW.replace("Bob\t1\t2", "..\t1\t2"), "pairs.txt:3: name '..' leads upwards"),
        (LFW.replace("Bob\t1\t2", "../../etc/passwd\t1\t2"), "leads upwards"),
        (LFW.replace("Bob\t1\t2", "/etc/passwd\t1\t2"), "is absolute"),
        (LFW.replace("Bob\t1\t2", "a/b\t1\t2"), "holds a slash"),
        (LFW.replace("Bob\t1\t2", "a\\b\t1\t2"), "holds a backslash"),
        (LFW.replace("Bob\t1\t2", "C:\t1\t2"), "names a drive"),
        (LFW.replace("Bob\t1\t2", "Bo\0b\t1\t2"), "pairs.txt:3: holds a NUL byte"),
        (LFW.replace("Bob\t1\t2", "Bob\t1\tAnn\t2"), "pairs.txt:3: impostor pair where the header calls for a genuine"),
        (LFW.replace("Ann\t1\tBob\t1", "Ann\t1\tAnn\t2"), "pairs.txt:4: an impostor pair of one person, 'Ann'"),
        (LFW.encode("utf-16"), "is UTF-16"),
        ("Ann\t1\t2\nBob\t1\t2\n", "0 impostor pairs: FPR is not defined"),
        ("Ann\t1\tBob\t2\n", "0 genuine pairs: TPR is not defined"),
    ],
)
def test_bad_lfw_lists_are_refused_with_the_line(faces, text, message):
    assert message in refusal(faces, text)


def test_long_lines_are_shortened_and_control_characters_escaped(faces):
    message = refusal(faces, "Ann\t1\t2\n\x1b[31m" + "x" * 5000 + "\n")
    assert "pairs.txt:2: 1 field" in message and "\\x1b[31mxxx" in message and len(message) < 400


def test_missing_images_are_counted_with_line_and_path(faces):
    text = "Ann\t1\t2\nAnn\t1\t9\nAnn\t1\tEve\t1\nAnn\t1\tEve\t2\nAnn\t1\tEve\t3\n"
    message = refusal(faces, text)
    assert "4 images are missing: line 2: " in message and "Ann/Ann_0009.jpg; line 3: " in message
    assert message.endswith("Eve_0002.jpg; and 1 more (give the folder they lie in as the image root)")


def test_links_out_of_the_root_are_refused(faces, tmp_path):
    (tmp_path / "Eve_0001.png").write_bytes(encode_png(pixels(0, 0)))
    (faces / "Eve").symlink_to(tmp_path)
    assert "pairs.txt:2: 'Eve' is a link that leads out of" in refusal(faces, "Ann\t1\t2\nAnn\t1\tEve\t1\n")


def test_tables_with_and_without_header_by_comma_or_tab_are_one_set(faces):
    plain = opened(faces, table(), ".csv")
    assert plain.genuine.tolist() == [True] * 6 + [False] * 6 and len(plain.images) == 5
    assert opened(faces, table(header=""), ".csv").digest == plain.digest
    assert opened(faces, table().replace(",", "\t"), ".tsv").digest == plain.digest
    assert opened(faces, table().replace(",1\n", ",Same\n").replace(",0\n", ",FALSE\n"), ".csv").digest == plain.digest
    assert opened(faces, b"\xef\xbb\xbf" + table().replace("\n", "\r\n").encode(), ".csv").digest == plain.digest


def test_table_columns_may_come_in_any_order_with_others(faces):
    rows = [row.split(",") for row in table().split()[1:]]
    text = "age,label,path2,path1\n" + "".join(f"3,{label},{second},{first}\n" for first, second, label in rows)
    assert opened(faces, text, ".csv").digest == opened(faces, table(), ".csv").digest


def test_drawn_folds_are_stratified_seeded_and_said(faces):
    path = listed(faces, table(200), ".csv")
    first, again, other = (open_verification_set(path, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.folds, again.folds) and not np.array_equal(first.folds, other.folds)
    for kind in (True, False):
        assert np.bincount(first.folds[first.genuine == kind]).tolist() == [10] * 10
    assert any("10 stratified folds were drawn with seed 0" in warning for warning in first.warnings)


def test_a_fold_column_is_kept_without_gaps(faces):
    rows = table(4, "").split()
    text = "path1,path2,label,fold\n" + "".join(f"{row},{fold}\n" for row, fold in zip(rows, (7, 3, 3, 7), strict=True))
    assert opened(faces, text, ".csv").folds.tolist() == [1, 0, 0, 1]
    assert "all pairs are in one fold" in refusal(faces, text.replace(",7\n", ",3\n"), ".csv")
    lopsided = opened(faces, text.replace(rows[2] + ",3", rows[2] + ",7"), ".csv")
    assert any("1 folds lack genuine or impostor pairs" in warning for warning in lopsided.warnings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path1,path2,label\n", "holds a header and no pairs"),
        ("path1,path2\na,b\n", "pairs.csv:1: the header 'path1,path2' lacks label"),
        ("path,identity\na,b\n", "lacks path1, path2, label"),
        ("a.png,b.png\n", "pairs.csv:1: 2 fields instead of 3 or 4"),
        ("a.png,b.png,yes\n", "pairs.csv:1: label 'yes' (write one of 1, true, same, 0, false, different)"),
        ("a.png,b.png,2\n", "label '2'"),
        (table() + "a.png,b.png\n", "pairs.csv:14: 2 fields instead of 3: 'a.png,b.png'"),
        (table() + "../a.png,b.png,1\n", "pairs.csv:14: path '../a.png' leads upwards"),
        (table() + "a.png,/etc/passwd,1\n", "pairs.csv:14: path '/etc/passwd' is absolute"),
        (table() + ",b.png,1\n", "pairs.csv:14: path '' is empty"),
        ("a.png,b.png,1,x\n", "pairs.csv:1: fold 'x'"),
        ("a.png,b.png,1,-1\n", "fold '-1'"),
        (table() + "Ann/Ann_0001.png,gone.png,1\n", "1 image is missing: line 14: "),
        (table() + "Bob/Bob_0001.png,Ann/Ann_0001.png,1\n", "pairs.csv:14: this pair is labelled the other way on"),
    ],
)
def test_bad_tables_are_refused_with_the_line(faces, text, message):
    assert message in refusal(faces, text, ".csv")


def test_repeats_and_images_paired_with_themselves_are_counted(faces):
    more = "Ann/Ann_0002.png,Ann/Ann_0001.png,1\nBob/Bob_0003.png,./Bob//Bob_0003.png,1\n"
    warnings = opened(faces, table(6) + more, ".csv").warnings
    assert any("1 pairs hold the same image on both sides" in warning for warning in warnings)
    assert any("1 pairs repeat an earlier pair" in warning for warning in warnings)


def test_item_110_images_paired_with_themselves_are_listed_and_may_be_left_out(faces):
    more = "Bob/Bob_0003.png,./Bob//Bob_0003.png,1\n"
    plain, found = opened(faces, table(6), ".csv"), opened(faces, table(6) + more, ".csv")
    assert any("1 pairs hold the same image on both sides: 'Bob/Bob_0003.png'" in line for line in found.warnings)
    kept = distinct_pairs(found)
    assert distinct_pairs(plain) is plain and len(kept.pairs) == len(found.pairs) - 1 == len(plain.pairs)
    sides = [[kept.images.sample_name(image) for image in pair] for pair in kept.pairs.tolist()]
    assert sides == [[plain.images.sample_name(image) for image in pair] for pair in plain.pairs.tolist()]
    assert kept.genuine.tolist() == plain.genuine.tolist() and kept.digest != found.digest
    assert set(kept.folds.tolist()) == set(range(kept.folds.max() + 1))
    assert any("1 such pairs are left out" in line for line in kept.warnings)
    alone = opened(faces, "Bob/Bob_0003.png,Bob/Bob_0003.png,1\nBob/Bob_0001.png,Ann/Ann_0001.png,0\n", ".csv")
    with pytest.raises(InputError, match="0 genuine pairs: TPR is not defined"):
        distinct_pairs(alone)


def test_flat_folders_leave_subjects_unknown(faces):
    for number in range(4):
        (faces / f"{number}.png").write_bytes(encode_png(pixels(0, number)))
    found = opened(faces, "0.png,1.png,1\n2.png,3.png,0\n", ".csv")
    assert found.subjects is None
    assert any("folders do not tell people apart (1 pairs disagree)" in warning for warning in found.warnings)


def test_latin_1_tables_are_read_with_a_warning(faces):
    (faces / "Jos\xe9").mkdir()
    (faces / "Jos\xe9" / "1.png").write_bytes(encode_png(pixels(1, 1)))
    found = opened(faces, (table() + "Jos\xe9/1.png,Ann/Ann_0001.png,0\n").encode("latin-1"), ".csv")
    assert len(found.pairs) == 13 and "pairs.csv:14: not UTF-8" in found.warnings[0]


def test_bin_images_are_kept_once_and_read_back(tmp_path):
    encoded = [encode_png(pixels(0, i)) for i in range(4)]
    write_bin(tmp_path / "set.bin", [encoded[i] for i in (0, 1, 0, 2, 3, 2)], [True, False, True])
    found = open_verification_set(tmp_path / "set.bin")
    assert found.pairs.tolist() == [[0, 1], [0, 2], [3, 2]] and found.subjects is None
    assert [int(found.images.read(i)[0, 0, 0]) for i in range(4)] == [0, 1, 2, 3]
    assert found.images.sample_name(3) == "4"
    assert found.genuine.tolist() == [True, False, True]


def test_bin_folds_follow_the_published_order_unless_it_is_sorted_by_label(tmp_path):
    encoded = [encode_png(pixels(0, i)) for i in range(200)]
    write_bin(tmp_path / "mixed.bin", encoded, ([True] * 5 + [False] * 5) * 10)
    mixed = open_verification_set(tmp_path / "mixed.bin")
    assert mixed.folds.tolist() == [pair // 10 for pair in range(100)] and mixed.warnings == []
    write_bin(tmp_path / "sorted.bin", encoded, [True] * 50 + [False] * 50)
    ordered = open_verification_set(tmp_path / "sorted.bin")
    assert "10 stratified folds were drawn" in ordered.warnings[0]
    assert np.bincount(ordered.folds[ordered.genuine]).tolist() == [5] * 10


def test_bin_faults_name_the_record(tmp_path):
    good = encode_png(pixels(0, 0))
    write_bin(tmp_path / "set.bin", [good, good, good, good[:60]], [True, False])
    found = open_verification_set(tmp_path / "set.bin")
    with pytest.raises(DataError, match="set.bin: image 3: cut short or damaged"):
        found.images.read(1)
    write_bin(tmp_path / "one.bin", [good] * 4, [True, True])
    with pytest.raises(InputError, match="0 impostor pairs: FPR is not defined"):
        open_verification_set(tmp_path / "one.bin")


def test_bin_pairs_labelled_both_ways_are_said(tmp_path):
    first, second = encode_png(pixels(0, 0)), encode_png(pixels(0, 1))
    write_bin(tmp_path / "set.bin", [first, second, second, first], [True, False])
    warnings = open_verification_set(tmp_path / "set.bin").warnings
    assert any("1 pairs of the same images are labelled both ways" in warning for warning in warnings)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    for name, message in (("a.json", "not a verification set"), ("gone.txt", "no such file"), ("gone", "no such file")):
        with pytest.raises(InputError, match=message):
            open_verification_set(tmp_path / name)


def test_lists_of_identities_are_told_from_lists_of_pairs(faces):
    assert sniff_list(listed(faces, "path,identity\na,b\n", ".csv")) == "identities"
    assert sniff_list(listed(faces, "identity\tpath\tage\na\tb\t3\n", ".tsv")) == "identities"
    assert sniff_list(listed(faces, table(), ".csv")) == "pairs"
    assert sniff_list(listed(faces, table(header=""), ".csv")) == "pairs"
    assert sniff_list(listed(faces, LFW)) == "pairs"


def test_the_real_protocols(shared_data):
    images = shared_data / "lfw112"
    full = open_verification_set(shared_data / "lfw_pairs.txt", images=images)
    assert len(full.pairs) == 6000 and int(full.genuine.sum()) == 3000 and len(full.images) == 7701
    assert np.bincount(full.folds).tolist() == [600] * 10 and full.warnings == []
    test = open_verification_set(shared_data / "lfw_pairs_test.txt", images=images)
    assert np.bincount(test.folds).tolist() == [600, 600]
    assert full.images.read(0).shape == (112, 112, 3)
    with pytest.raises(InputError, match="0 impostor pairs: FPR is not defined"):
        open_verification_set(shared_data / "formats" / "small_lfw.bin")
    assert sniff_list(shared_data / "lfw_test.csv") == "identities"
