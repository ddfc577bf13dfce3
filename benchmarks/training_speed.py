"""What a step of distillation costs beside the student's own arithmetic, and beside the loops people write.

Every way trains the same student on the same images, in batches of the same size, and takes one step in every round, so
that a busy machine slows all of them; a ratio is within a round. A step is everything: decoding, augmentation, forward,
losses, backward, update. The teacher's weights, and what a cache holds of it, are drawn, which changes no time. Memory
is the most that PyTorch handed out at once in a step, above what was there before.

* ``forward and backward``: the student alone on one ready batch, no loss, no data, no update: the floor.
* ``facekd, ...``: the trainer's own step with the student's classifier alone; with l2 and the inherited classifier from
  a teacher that was cached; and with the teacher live.
* ``plain, ...``: the loops of ``benchmarks/plain_loops.py``: ArcFace with every logit held, alone; with a live teacher;
  with its answers in one file for each image; and with pytorch-metric-learning's ArcFaceLoss, where it is installed.

    python -m benchmarks.training_speed --out benchmarks/results/training_speed.json
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from benchmarks.all_pairs import precise, seconds
from benchmarks.latency import RANGED, settle_norms
from benchmarks.plain_loops import MARGIN, SCALE, ArcFaceHead, Taught, plain_loop
from benchmarks.record import hand_over, surroundings
from facekd.data.identities import IdentitySource
from facekd.data.images import decode, encode_jpeg
from facekd.data.synthetic import SyntheticFaces
from facekd.engine.allocations import peak_bytes
from facekd.engine.export.checks import drawn_faces
from facekd.engine.training.build import Caches, make_batches, make_dataset, make_session
from facekd.engine.training.plan import make_plan
from facekd.engine.training.step import take_step
from facekd.models.backbone import build_backbone
from facekd.models.embedder import TorchEmbedder
from facekd.models.macs import count_macs
from facekd.models.preprocessing import Preprocessing
from facekd.recipe import Recipe, load_recipe

SIDE, WIDTH = 112, 512
DISTINCT = 256
CPU = torch.device("cpu")
FLOOR, ALONE = "forward and backward", "facekd, student alone"
PRODUCT = 2048
"""Side of the square matrices whose product tells what the machine can do."""
OWN = {"name": "margin_softmax", "margin": MARGIN, "scale": SCALE}
INHERITED = OWN | {"class_weights": "teacher"}
Way = Callable[[], object]


class RepeatedFaces:
    """As many people as asked for with one image each, which is one of a few drawn ones; an identity source.

    Args:
        people: How many.
    """

    def __init__(self, people: int) -> None:
        faces = SyntheticFaces(identities=min(people, DISTINCT), samples=1)
        self._pool = [encode_jpeg(faces.read(index)) for index in range(len(faces))]
        self.names = [f"{label:06d}" for label in range(people)]
        self.labels = np.arange(people)
        self.digest, self.warnings = "", list[str]()

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, index: int) -> bytes:
        """Image ``index`` as a JPEG."""
        return self._pool[index % len(self._pool)]

    def read(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 RGB."""
        return decode(self.encoded(index), self.sample_name(index))

    def sample_name(self, index: int) -> str:
        """Name of image ``index``."""
        return self.names[index]


def drawn_teacher(backbone: str) -> TorchEmbedder:
    """A teacher with random weights, whose embeddings are finite."""
    torch.manual_seed(1)
    module, sees = build_backbone(backbone, embedding_size=WIDTH, input_size=SIDE), Preprocessing.named("half")
    settle_norms(module, sees.apply(torch.from_numpy(drawn_faces(RANGED, sees.size))))
    module = module.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TorchEmbedder("teacher", "1", WIDTH, sees, {}, module, CPU)


def drawn_student(backbone: str) -> nn.Module:
    """A student with random weights, as the plain loops hold it."""
    torch.manual_seed(0)
    return build_backbone(backbone, embedding_size=WIDTH, input_size=SIDE)


def recipe_of(backbone: str, batch: int, losses: list[dict[str, Any]], view: str | None) -> Recipe:
    """The recipe of a way of facekd's own."""
    teacher = {} if view is None else {"teacher": {"weights": "teacher", "view": view, "classifier": "class_means"}}
    recipe = {
        "name": "speed",
        "student": {"backbone": backbone, "embedding_size": WIDTH, "input_size": SIDE},
        "data": {"source": "synthetic", "augment": {"flip": 0.5}},
        "losses": losses,
        "optimizer": {"learning_rate": 0.01},
        "train": {"epochs": 1, "batch_size": batch},
        **teacher,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "r.yaml")
        path.write_text(yaml.safe_dump(recipe))
        return load_recipe(path)


def facekd_way(recipe: Recipe, source: IdentitySource, teacher: TorchEmbedder | None, caches: Caches) -> Way:
    """The trainer's step with its data; each call takes one."""
    plan, dataset = make_plan(recipe, source, teacher), make_dataset(recipe, source)
    session = make_session(recipe, plan, source, dataset, teacher, caches, CPU)
    batches = make_batches(session)
    return lambda: take_step(session, session.student, next(batches))


def bare_way(student: nn.Module, batch: int) -> Way:
    """Forward and backward on one ready batch."""
    student = student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = torch.rand(batch, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        student.zero_grad(set_to_none=True)
        student(pixels).sum().backward()

    return step


def metric_learning(classes: int) -> nn.Module | None:
    """The other library's loss, where it is installed."""
    try:
        from pytorch_metric_learning.losses import ArcFaceLoss
    except ImportError:
        return None
    loss: nn.Module = ArcFaceLoss(classes, WIDTH, margin=float(np.degrees(MARGIN)), scale=SCALE)
    return loss


def ways(student: str, teacher: str, batch: int, source: IdentitySource, answers: Path) -> dict[str, Way]:
    """Every way to take a step."""
    large = drawn_teacher(teacher)
    kept = np.random.default_rng(0).normal(size=(len(source), 2, WIDTH)).astype(np.float32)
    for index, rows in enumerate(kept):
        np.save(answers / f"{index}.npy", rows[0])
    distil = [INHERITED, {"name": "l2"}]
    live: Taught = lambda pixels, _: _embedded(large.module, pixels)  # noqa: E731 - one of two of a kind

    def own(losses: list[dict[str, Any]], view: str | None, caches: Caches) -> Way:
        return facekd_way(recipe_of(student, batch, losses, view), source, large if view else None, caches)

    def plain(head: nn.Module, taught: Taught | None = None, folder: Path | None = None) -> Way:
        return plain_loop(drawn_student(student), head, source, batch, taught=taught, answers=folder)

    def arcface() -> nn.Module:
        return ArcFaceHead(len(source.names), WIDTH)

    found = {
        FLOOR: bare_way(drawn_student(student), batch),
        ALONE: own([OWN], None, Caches()),
        "facekd, cached teacher": own(distil, "clean", Caches(kept, kept)),
        "facekd, live teacher": own(distil, "same", Caches(kept)),
        "plain, student alone": plain(arcface()),
        "plain, live teacher": plain(arcface(), live),
        "plain, a file of answers for each image": plain(arcface(), lambda _, told: told, answers),
    }
    other = metric_learning(len(source.names))
    return found | ({} if other is None else {"plain, student alone, pytorch-metric-learning": plain(other)})


@torch.no_grad()
def _embedded(module: nn.Module, pixels: Tensor) -> Tensor:
    found: Tensor = module(pixels)
    return found


def measured(chosen: Mapping[str, Way], repeats: int) -> dict[str, Any]:
    """Seconds of a step, ratios within rounds, what a matrix product reaches beside them, and memory."""
    taken: dict[str, list[float]] = {name: [] for name in chosen}
    one, rates = torch.rand(PRODUCT, PRODUCT), list[float]()
    for turn in range(repeats + 1):
        for name in list(chosen)[:: 1 if turn % 2 else -1]:
            value = seconds(chosen[name], "cpu")
            if turn:  # the first round warms up
                taken[name].append(value)
        rates.append(2e-9 * PRODUCT**3 / seconds(lambda: one @ one, "cpu"))
    ratios = {
        base: {
            name: precise([own / other for own, other in zip(taken[name], taken[base], strict=True)]) for name in taken
        }
        for base in (FLOOR, ALONE)
    }
    return {
        "seconds": {name: precise(values) for name, values in taken.items()},
        "ratio": ratios,
        "product_gflops": precise(rates[1:]),
        "peak_mib": {name: round(peak_bytes(way) / 2**20, 1) for name, way in chosen.items()},
    }


def report(student: str, teacher: str, batch: int, people: int, repeats: int, threads: int) -> dict[str, Any]:
    """Everything measured and everything it depends on."""
    torch.set_num_threads(threads)
    source = RepeatedFaces(people)
    try:
        other = {"pytorch-metric-learning": version("pytorch-metric-learning")}
    except PackageNotFoundError:
        other = {}
    with tempfile.TemporaryDirectory() as folder:
        found = measured(ways(student, teacher, batch, source, Path(folder)), repeats)
    return {
        "benchmark": "training_speed",
        "command": "python -m benchmarks.training_speed --out benchmarks/results/training_speed.json",
        "student": student,
        "student_macs": count_macs(drawn_student(student), SIDE),
        "teacher": teacher,
        "batch": batch,
        "classes": people,
        "repeats": repeats,
        "threads": threads,
        "seeds": [0],
        "device": "cpu",
        **found,
        **surroundings("torch", *other),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--student", default="mobilefacenet")
    parser.add_argument("--teacher", default="iresnet50")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the JSON object here too")
    given = parser.parse_args()
    chosen = (given.student, given.teacher, given.batch, given.people, given.repeats, given.threads)
    hand_over(report(*chosen), given.out)


if __name__ == "__main__":
    main()
