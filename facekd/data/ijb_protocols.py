"""What is compared in an IJB folder: listed pairs of templates (1:1), and probes searched for in galleries (1:N)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facekd.data.ijb import PUBLISHED, IjbFolder
from facekd.data.ijb_lists import read_subjects
from facekd.data.images import shown
from facekd.data.number_rows import most_rows, number_rows
from facekd.errors import InputError

UNKNOWN = -1


@dataclass(frozen=True)
class TemplatePairs:
    """The 1:1 comparisons.

    Attributes:
        left: int32 (p,) row of the first template of each pair.
        right: int32 (p,) row of the second.
        genuine: bool (p,).
        subjects: int32 (t,), the subject of each template, numbered from 0; None when the folder does not say for every
            template that is compared.
        warnings: What a user should know and nothing refuses.
    """

    left: np.ndarray
    right: np.ndarray
    genuine: np.ndarray
    subjects: np.ndarray | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class TemplateList:
    """Templates that are searched for or in.

    Attributes:
        name: ``G1``, ``G2``, ``S1``, ``S2`` or ``probes``.
        rows: int64 (k,) row of each template.
        subjects: int64 (k,) whom it shows.
    """

    name: str
    rows: np.ndarray
    subjects: np.ndarray


@dataclass(frozen=True)
class TemplateSearch:
    """The 1:N protocol.

    Attributes:
        galleries: Each is searched by itself.
        probes: What is searched for.
    """

    galleries: tuple[TemplateList, ...]
    probes: TemplateList


def read_pairs(folder: IjbFolder) -> TemplatePairs:
    """Read the 1:1 comparisons, in memory of 9 bytes a pair.

    Raises:
        InputError: A line cannot be read, names a template without images, has a label other than 0 and 1, pairs a
            template with itself or two that share an image, or contradicts the subjects of the 1:N lists; names the
            line. Or there are no genuine or no impostor pairs.
    """
    path = folder.pair_list
    subjects = _all_subjects(folder)
    shared = _sharing(folder)
    most, count = most_rows(path), 0
    left, right, genuine = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, bool)
    for lines, numbers in number_rows(path, ("template id", "template id", "label")):
        where = _At(path, lines)
        rows = _rows_of(folder, numbers[:, :2], where)
        _check_pairs(where, numbers, rows, subjects[rows], shared.at(rows))
        part = slice(count, count + len(rows))
        left[part], right[part], genuine[part] = rows[:, 0], rows[:, 1], numbers[:, 2] == 1
        count += len(rows)
    left, right, genuine = left[:count], right[:count], genuine[:count]
    if genuine.all() or not genuine.any():
        kind, rate = ("impostor", "FPR") if genuine.all() else ("genuine", "TPR")
        raise InputError(shown(path), f"0 {kind} pairs: {rate} is not defined", f"add {kind} pairs")
    compared = np.zeros(len(subjects), bool)
    compared[left] = compared[right] = True
    known = subjects if (subjects[compared] != UNKNOWN).all() else None
    wanted = PUBLISHED[folder.kind][1]
    differs = f"{shown(path)}: {genuine.size:,} pairs; IJB-{folder.kind[3].upper()} has {wanted:,}"
    return TemplatePairs(left, right, genuine, known, (differs,) if genuine.size != wanted else ())


def read_search(folder: IjbFolder) -> TemplateSearch:
    """Read the galleries and the probes of 1:N.

    Raises:
        InputError: A list is missing or cannot be read, names a template without images, or lists a probe that shares
            an image with a template of its subject in a gallery; names the line. Or no probe has a mate in a gallery.
    """
    listed = {name: _template_list(folder, name, path) for name, path in folder.gallery_lists.items()}
    galleries = tuple(found for found, _ in listed.values())
    probes, lines = _template_list(folder, "probes", folder.probe_list)
    shared = _sharing(folder)
    for gallery in galleries:
        if not np.isin(probes.subjects, gallery.subjects).any():
            what = f"no probe is of a subject of gallery {gallery.name}"
            raise InputError(shown(folder.probe_list), what, "are the subject ids of one numbering?")
        for probe, mate in shared.pairs(probes.rows, gallery.rows):
            if probes.subjects[probe] == gallery.subjects[mate]:
                one, other = folder.members.ids[probes.rows[probe]], folder.members.ids[gallery.rows[mate]]
                what = f"template {one} holds an image of template {other}, its mate in gallery {gallery.name}"
                raise InputError(f"{shown(folder.probe_list)}:{lines[int(one)]}", what, "remove it from one of them")
    return TemplateSearch(galleries, probes)


def _check_pairs(where: _At, numbers: np.ndarray, rows: np.ndarray, people: np.ndarray, shared: np.ndarray) -> None:
    """Refuse the first pair that cannot be what its label says."""
    genuine, one = numbers[:, 2] == 1, people[:, 0] == people[:, 1]
    known = (people != UNKNOWN).all(axis=1)
    where.refuse(numbers[:, 2] > 1, numbers, "label {2}", "write 0 or 1")
    where.refuse(rows[:, 0] == rows[:, 1], numbers, "template {0} is compared with itself", "remove the line")
    image = "templates {0} and {1} are a genuine pair and hold the same image"
    where.refuse(genuine & shared, numbers, image, "remove it from one of them")
    where.refuse(known & genuine & ~one, numbers, "label 1, and the 1:N lists give {0} and {1} to two subjects")
    where.refuse(known & ~genuine & one, numbers, "label 0, and the 1:N lists give {0} and {1} to one subject")


def _template_list(folder: IjbFolder, name: str, path: Path) -> tuple[TemplateList, dict[int, int]]:
    subjects, lines = read_subjects(path)
    ids = np.fromiter(subjects, np.int64, len(subjects))
    rows = _rows_of(folder, ids[:, None], _At(path, np.array([lines[template] for template in subjects])))[:, 0]
    return TemplateList(name, rows, np.fromiter(subjects.values(), np.int64, len(subjects))), lines


def _all_subjects(folder: IjbFolder) -> np.ndarray:
    """The subject of each template as the 1:N lists give it, numbered from 0; -1 where they do not."""
    found = np.full(len(folder.members.ids), UNKNOWN, np.int64)
    given: dict[int, int] = {}
    for path in (*folder.gallery_lists.values(), folder.probe_list):
        if not path.is_file():
            continue
        for template, subject in read_subjects(path)[0].items():
            if given.setdefault(template, subject) != subject:
                what = f"template {template} is of subject {subject}, and of {given[template]} in another list"
                raise InputError(shown(path), what)
    ids = np.fromiter(given, np.int64, len(given))
    people = np.unique(np.fromiter(given.values(), np.int64, len(given)), return_inverse=True)[1]
    places = np.searchsorted(folder.members.ids, ids)
    there = places < len(folder.members.ids)
    there[there] = folder.members.ids[places[there]] == ids[there]
    found[places[there]] = people[there]
    return found.astype(np.int32)


@dataclass(frozen=True)
class _At:
    """Where the rows of a list stand."""

    path: Path
    lines: np.ndarray

    def refuse(self, bad: np.ndarray, numbers: np.ndarray, what: str, fix: str = "") -> None:
        """Refuse the first bad row; its numbers fill ``what``."""
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            raise InputError(f"{shown(self.path)}:{self.lines[first]}", what.format(*numbers[first]), fix)


def _rows_of(folder: IjbFolder, ids: np.ndarray, where: _At) -> np.ndarray:
    """The row of each template of (k, sides); refuses one that has no images."""
    known = folder.members.ids
    rows = np.searchsorted(known, ids)
    absent = known[np.minimum(rows, len(known) - 1)] != ids
    first = np.where(absent[:, 0], ids[:, 0], ids[:, -1])[:, None]
    fix = f"every template needs a line in {folder.faces.path.name}"
    where.refuse(absent.any(axis=1), first, "template {0} has no images", fix)
    return rows


@dataclass(frozen=True)
class _Sharing:
    """Pairs of templates that hold the same image, each as lower row x count + higher row, sorted."""

    count: int
    codes: np.ndarray

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Whether the two templates of each row share an image."""
        if not self.codes.size:
            return np.zeros(len(rows), bool)
        return np.isin(rows.min(axis=1) * self.count + rows.max(axis=1), self.codes)

    def pairs(self, first: np.ndarray, second: np.ndarray) -> Iterable[tuple[int, int]]:
        """Places in ``first`` and ``second`` of templates that share an image."""
        place = {int(row): at for at, row in enumerate(first)}, {int(row): at for at, row in enumerate(second)}
        for code in self.codes.tolist():
            for one, other in (divmod(code, self.count), divmod(code, self.count)[::-1]):
                if one in place[0] and other in place[1]:
                    yield place[0][one], place[1][other]


def _sharing(folder: IjbFolder) -> _Sharing:
    count, names = len(folder.members.ids), folder.faces.names
    if len(set(names)) == len(names):
        return _Sharing(count, np.empty(0, np.int64))
    holders: dict[str, set[int]] = {}
    for name, row in zip(names, folder.members.rows.tolist(), strict=True):
        holders.setdefault(name, set()).add(row)
    several = (sorted(rows) for rows in holders.values() if len(rows) > 1)
    codes = {one * count + other for rows in several for i, one in enumerate(rows) for other in rows[i + 1 :]}
    return _Sharing(count, np.array(sorted(codes), np.int64))
