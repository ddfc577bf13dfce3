"""Identity folders and lists: stable labels, one digest, and every refusal naming file and line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from facekd.data.image_folder import ImageFolder
from facekd.data.image_list import ImageList
from facekd.data.images import encode_png
from facekd.errors import DataError, InputError


def make_faces(root: Path, layout: dict[str, int]) -> Path:
    for label, (identity, count) in enumerate(layout.items()):
        (root / identity).mkdir(parents=True)
        for sample in range(count):
            image = np.full((8, 8, 3), label * 40 + sample, np.uint8)
            (root / identity / f"{sample}.png").write_bytes(encode_png(image))
    return root


@pytest.fixture
def faces(tmp_path) -> Path:
    return make_faces(tmp_path / "faces", {"cy": 2, "ann": 3, "bob": 1})


def write_list(root: Path, text: str | bytes) -> Path:
    path = root / "list.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(action) -> str:
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)


def test_folder_labels_follow_sorted_names(faces):
    source = ImageFolder(faces)
    assert source.names == ["ann", "bob", "cy"]
    assert source.labels.tolist() == [0, 0, 0, 1, 2, 2] and source.labels.dtype == np.int64
    assert [source.sample_name(i) for i in range(4)] == ["ann/0.png", "ann/1.png", "ann/2.png", "bob/0.png"]
    assert source.read(4)[0, 0, 0] == 0 and source.read(2)[0, 0, 0] == 42
    assert source.warnings == []


def test_list_and_folder_of_the_same_files_share_labels_and_digest(faces):
    folder = ImageFolder(faces)
    rows = [f"{folder.sample_name(i)},{folder.names[folder.labels[i]]}" for i in reversed(range(len(folder)))]
    listed = ImageList(write_list(faces.parent, "path,identity\n" + "\n".join(rows)), faces)
    assert listed.names == folder.names and listed.labels.tolist() == folder.labels.tolist()[::-1]
    assert listed.digest == folder.digest
    assert np.array_equal(listed.read(0), folder.read(5))


def test_digest_notices_added_renamed_and_resized_files(faces):
    before = ImageFolder(faces).digest
    assert ImageFolder(faces).digest == before
    moved = shutil.copytree(faces, faces.parent / "elsewhere")
    assert ImageFolder(moved).digest == before
    (moved / "ann" / "0.png").rename(moved / "ann" / "9.png")
    renamed = ImageFolder(moved).digest
    (moved / "ann" / "9.png").write_bytes(b"x")
    assert len({before, renamed, ImageFolder(moved).digest}) == 3


def test_list_accepts_bom_crlf_tabs_quotes_blank_lines_and_more_columns(faces):
    plain = ImageList(write_list(faces, "path,identity\nann/0.png,ann\nbob/0.png,bob\n"))
    body = b'\xef\xbb\xbfidentity\tage\tpath\r\nann\t3\t"ann/0.png"\r\nbob\t4\t./bob//0.png\r\n\r\n'
    other = ImageList(write_list(faces, body))
    assert other.digest == plain.digest and other.labels.tolist() == [0, 1]


def test_latin_1_lists_are_read_with_a_warning(faces):
    source = ImageList(write_list(faces, "path,identity\nann/0.png,Jos\xe9\nbob/0.png,b\n".encode("latin-1")))
    assert source.names == ["José", "b"]
    assert len(source.warnings) == 1 and ":2: not UTF-8" in source.warnings[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("path,identity\n", "holds a header and no rows"),
        ("ann/0.png,ann\n", "list.csv:1: the header 'ann/0.png,ann' lacks path and identity"),
        ("path;identity\n", "lacks path and identity"),
        ("path,identity\nann/0.png\n", "list.csv:2: 1 fields instead of 2: 'ann/0.png'"),
        ("path,identity\nann/0.png,a,b\n", "list.csv:2: 3 fields instead of 2"),
        ("path,identity\nann/0.png,\n", "list.csv:2: the identity is empty"),
        ("path,identity\n,ann\n", "list.csv:2: path '' is empty"),
        ("path,identity\n../x.png,ann\n", "list.csv:2: path '../x.png' leads upwards"),
        ("path,identity\na/../../x.png,ann\n", "leads upwards"),
        ("path,identity\n/etc/passwd,ann\n", "list.csv:2: path '/etc/passwd' is absolute"),
        ("path,identity\nC:/x.png,ann\n", "names a drive"),
        ("path,identity\nann\\0.png,ann\n", "holds a backslash"),
        ("path,identity\nann/0.png,ann\nx\0,ann\n", "list.csv:3: holds a NUL byte"),
        ("path,identity\nann/0.png,a\nbob/0.png,b\nann//0.png,b\n", "list.csv:4: 'ann/0.png' is listed on line 2"),
        ("path,identity\nann/0.png,ann\n", "only one identity, 'ann'"),
        ("path,identity\nann,ann\nbob/0.png,b\n", "list.csv:2: 'ann' is not a regular file"),
        ('path,identity\n"ann/0.png,ann\n', "broken row"),
        ("\ufeffpath,identity\n".encode("utf-16"), "is UTF-16"),
    ],
)
def test_bad_lists_are_refused_with_the_line(faces, text, message):
    assert message in refusal(lambda: ImageList(write_list(faces, text)))


def test_missing_images_are_counted_and_the_first_three_named(faces):
    rows = "".join(f"gone/{i}.png,g{i}\n" for i in range(5))
    message = refusal(lambda: ImageList(write_list(faces, f"path,identity\nann/0.png,ann\n{rows}")))
    assert "5 images are missing: line 3: " in message and "gone/2.png; and 2 more" in message
    assert "gone/3.png" not in message
    assert "no such file" in refusal(lambda: ImageList(faces / "none.csv"))
    assert "no such folder" in refusal(lambda: ImageList(write_list(faces, "path,identity\n"), faces / "none"))


def test_bad_folders_are_refused(tmp_path):
    assert refusal(lambda: ImageFolder(tmp_path / "none")).endswith("none: no such folder")
    (tmp_path / "empty").mkdir()
    assert "holds no identities" in refusal(lambda: ImageFolder(tmp_path / "empty"))
    assert "is not a folder" in refusal(lambda: ImageFolder(Path(__file__)))
    assert "only one identity, 'ann'" in refusal(lambda: ImageFolder(make_faces(tmp_path / "one", {"ann": 2})))
    hollow = make_faces(tmp_path / "hollow", {"ann": 2, "bob": 0, "cy": 1})
    assert "1 identities without images: 'bob'" in refusal(lambda: ImageFolder(hollow))
    nested = make_faces(tmp_path / "nested", {"ann": 2, "bob/album": 1})
    assert "album: is a folder inside an identity" in refusal(lambda: ImageFolder(nested))


def test_files_that_are_no_images_are_left_out_and_said(faces):
    (faces / "readme.txt").write_text("x")
    (faces / "ann" / "notes.txt").write_text("x")
    (faces / ".hidden").mkdir()
    source = ImageFolder(faces)
    assert len(source) == 6
    assert source.warnings[0].endswith("1 files are no images and left out: 'ann/notes.txt'")


def test_links_may_not_loop_or_leave_the_root(faces, tmp_path):
    outside = make_faces(tmp_path / "outside", {"eve": 1})
    (faces / "eve").symlink_to(outside / "eve")
    assert "leads out of" in refusal(lambda: ImageFolder(faces))
    assert "leads out of" in refusal(lambda: ImageList(write_list(faces, "path,identity\neve/0.png,e\nann/0.png,a\n")))
    (faces / "eve").unlink()
    (faces / "eve").symlink_to(faces / "eve")
    assert "eve: cannot be read" in refusal(lambda: ImageFolder(faces))
    (faces / "eve").unlink()
    (faces / "eve").symlink_to(faces)
    assert "is a folder inside an identity" in refusal(lambda: ImageFolder(faces))
    (faces / "eve").unlink()
    (faces / "bob" / "1.png").symlink_to(outside / "eve" / "0.png")
    assert "leads out of" in refusal(lambda: ImageFolder(faces))
    (faces / "bob" / "1.png").unlink()
    (faces / "bob" / "1.png").symlink_to(faces / "ann" / "0.png")
    assert len(ImageFolder(faces)) == 7


def test_a_root_that_is_itself_a_link_is_fine(faces, tmp_path):
    (tmp_path / "link").symlink_to(faces)
    assert ImageFolder(tmp_path / "link").digest == ImageFolder(faces).digest


def test_names_that_differ_in_case_only_are_said(tmp_path):
    root = make_faces(tmp_path / "faces", {"Ann": 1, "ann": 1})
    assert "'Ann' and 'ann' differ in case only" in ImageFolder(root).warnings[0]


def test_odd_file_names_work(tmp_path):
    root = make_faces(tmp_path / "faces", {"a b": 1, "-rf": 1, "new\nline": 1, "tab\there": 1})
    source = ImageFolder(root)
    assert source.names == ["-rf", "a b", "new\nline", "tab\there"]
    assert all(source.read(i).shape == (8, 8, 3) for i in range(4))


def test_reading_a_file_that_went_away_or_broke_names_it(faces):
    source = ImageFolder(faces)
    (faces / "ann" / "0.png").unlink()
    (faces / "ann" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match="ann/0.png: no such file"):
        source.read(0)
    with pytest.raises(DataError, match="ann/1.png: zero bytes"):
        source.read(1)


def test_the_real_lists_hold_what_their_readme_says(shared_data):
    train = ImageList(shared_data / "lfw_train.csv", shared_data / "lfw112")
    test = ImageList(shared_data / "lfw_test.csv", shared_data / "lfw112")
    assert (len(train.names), len(train)) == (1324, 7007)
    assert (len(test.names), len(test)) == (1189, 2307)
    assert not set(train.names) & set(test.names)
    assert train.read(0).shape == (112, 112, 3)
