"""Several processes compute what one does: every loss, its memory, the student's gradient; and they end together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from several_processes import in_several
from torch import Tensor, nn

from facekd.engine.training.distributed import ALONE, World, joined
from facekd.engine.training.objective import Objective, loss_inputs
from facekd.engine.training.outputs import Sizes, StepOutputs, SubsetSizes
from facekd.engine.training.step import joined_outputs
from facekd.errors import DataError, Elsewhere, LostProcess, NonFiniteError, UsageError
from facekd.losses import LOSSES, ClassShare
from facekd.models.backbone import build_backbone, synchronised
from facekd.recipe.loss_options import LOSS_OPTIONS

OPTIONS = {model.model_fields["name"].annotation.__args__[0]: model for model in LOSS_OPTIONS}
GIVEN = {"pad": {"warmup_epochs": 0.5}, "ekd": {"fprs": (0.5, 0.1), "queue": 12, "hardest": 5}}
DIRECT = sorted(name for name in LOSSES if not any(field.startswith("virtual_") for field in loss_inputs(name)))
CASES = {name: (name, GIVEN.get(name, {})) for name in DIRECT}
CASES |= {
    "margin_softmax, frozen": ("margin_softmax", {"class_weights": "teacher"}),
    "margin_softmax, candidates": ("margin_softmax", {"class_weights": "teacher", "candidates": 3}),
}

PIXELS, DIM, CLASSES, STEPS = 12, 8, 5, 4
LABELS = torch.tensor([0, 0, 1, 2, 1, 3, 4, -1, 2, 2, 0, 3])
KNOWN = (torch.tensor([0, 2]), torch.tensor([1, 2, 4]))
SUBSETS = tuple(SubsetSizes(str(len(known)), DIM, 9, known, None, torch.eye(len(known), DIM)) for known in KNOWN)
SIZES = Sizes(
    classes=CLASSES,
    embedding_size=DIM,
    teacher_size=DIM,
    batch_size=len(LABELS),
    steps_per_epoch=2,
    subsets=SUBSETS,
)


class Pair(nn.Module):
    """Student and assistant, as plain as can be."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.assistant = nn.Linear(PIXELS, DIM), nn.Linear(PIXELS, DIM)


def take_steps(world: World, case: str) -> dict[str, Tensor]:
    """A few steps in float64 with one loss; every process is given its rows of the same images."""
    torch.manual_seed(0)
    student = Pair().double()
    images = torch.randn(STEPS, len(LABELS), PIXELS, dtype=torch.double)
    teacher = torch.randn(STEPS, len(LABELS), DIM, dtype=torch.double)
    name, given = CASES[case]
    loss = OPTIONS[name](name=name, **given)
    objective = Objective([loss], SIZES, torch.randn(CLASSES, DIM)).double()
    if name == "ekd":
        objective.parts[name].float()  # its thresholds are kept in float32, whatever comes
    optimizer = torch.optim.SGD([*student.parameters(), *objective.parameters()], lr=0.05, momentum=0.9)
    each = world.share_of(len(LABELS))
    rows = slice(world.rank * each, (world.rank + 1) * each)
    found: dict[str, Tensor] = {}
    for step in range(STEPS):
        torch.manual_seed(step)
        seen, shown = images[step, rows], (teacher[step, rows], LABELS[rows])
        of_subsets = (shown[0], 2 * shown[0].flip(1))
        share = StepOutputs(
            student.student(seen), *shown, assistant=student.assistant(seen), subset_teachers=of_subsets
        )
        (term,) = objective(joined_outputs(world, share), step).values()
        optimizer.zero_grad()
        term.backward()
        world.sum_gradients(student)
        found[f"{step}.loss"] = term.detach()
        found |= {f"{step}.gradient.{n}": p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}
        optimizer.step()
    found |= {f"student.{n}": held for n, held in student.state_dict().items()}
    return found | {f"objective.{n}": held for n, held in objective.state_dict().items()}


def normalised_steps(world: World) -> dict[str, Tensor]:
    """Two forward and backward passes through BatchNorm, whose statistics are those of the share."""
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(PIXELS, DIM), nn.BatchNorm1d(DIM, momentum=0.1))
    images = torch.randn(len(LABELS), PIXELS)
    each = world.share_of(len(LABELS))
    for _ in range(2):
        student.zero_grad()
        world.gather(student(images[world.rank * each :][:each])).square().sum().backward()
        world.sum_gradients(student)
    return student.state_dict() | {f"gradient.{n}": p.grad for n, p in student.named_parameters() if p.grad is not None}


def all_losses(world: World, folder: Path) -> None:
    found = {f"{name}.{key}": held for name in CASES for key, held in take_steps(world, name).items()}
    found |= {f"normalised.{key}": held for key, held in normalised_steps(world).items()}
    torch.manual_seed(world.rank)
    with world.own_draws(7):
        found["own"] = torch.rand(3)
    found["shared"] = torch.rand(3)
    module = nn.Linear(2, 2).to(memory_format=torch.channels_last)
    world.follow(module)
    found["followed"] = module.weight.detach()
    found["same"] = world.same(torch.tensor([world.rank + 5]))
    save_file({key: held.contiguous() for key, held in found.items()}, folder / f"{world.rank}.safetensors")


Found = list[dict[str, Tensor]]


@pytest.fixture(scope="module", params=[2, 3])
def ranks(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Found:
    """What each of so many processes found."""
    folder, count = tmp_path_factory.mktemp("ranks"), request.param
    assert in_several(all_losses, folder, count) == [0] * count
    return [load_file(folder / f"{rank}.safetensors") for rank in range(count)]


def of(found: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): held for key, held in found.items() if key.startswith(f"{name}.")}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_loss__is_the_loss_of_the_joined_batch(name: str, ranks: Found) -> None:
    wanted = take_steps(ALONE, name)
    assert any(held.abs().sum() > 0 for key, held in wanted.items() if "gradient.student" in key)
    for rank in ranks:
        torch.testing.assert_close(of(rank, name), wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_process__ends_with_the_same_bits(name: str, ranks: Found) -> None:
    first, *others = (of(rank, name) for rank in ranks)
    for other in others:
        assert first.keys() == other.keys()
        assert all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.slow
def test_batch_statistics__are_of_the_share_and_the_running_ones_their_mean(ranks: Found) -> None:
    first, *others = (of(rank, "normalised") for rank in ranks)
    assert all(torch.equal(first[key], other[key]) for other in others for key in first)
    torch.manual_seed(0)
    linear = nn.Linear(PIXELS, DIM)
    shares = linear(torch.randn(len(LABELS), PIXELS)).detach().chunk(len(ranks))
    mean = torch.stack([share.mean(0) for share in shares]).mean(0)
    variance = torch.stack([share.var(0) for share in shares]).mean(0)
    torch.testing.assert_close(first["1.running_mean"], 0.19 * mean)
    torch.testing.assert_close(first["1.running_var"], 0.81 + 0.19 * variance)
    assert not torch.allclose(first["1.running_var"], normalised_steps(ALONE)["1.running_var"], rtol=1e-3)


@pytest.mark.slow
def test_draws__are_each_process_s_own_for_its_images_and_common_after(ranks: Found) -> None:
    first, *others = ranks
    for other in others:
        assert not torch.equal(first["own"], other["own"])
        assert torch.equal(first["shared"], other["shared"])
    with ALONE.own_draws(7):
        pass
    torch.manual_seed(7)
    assert torch.equal(first["shared"], torch.rand(3))


@pytest.mark.slow
def test_followers__hold_what_rank_0_holds(ranks: Found) -> None:
    first, *others = ranks
    for other in others:
        assert torch.equal(first["followed"], other["followed"])
        assert first["same"].tolist() == other["same"].tolist() == [5]


def trouble(world: World, folder: Path) -> None:
    """Each kind of trouble; what each process meets, in turn."""
    met = []

    def meet(rank: int, error: Exception) -> None:
        try:
            with world.together():
                if world.rank == rank:
                    raise error
        except Exception as found:
            met.append(f"{type(found).__name__} {getattr(found, 'exit_code', None)} {found}")

    def items() -> Iterator[int]:
        yield 1
        if world.rank == 1:
            raise DataError("b.png", "is no image")
        yield 2

    meet(1, DataError("a.png", "is no image"))
    meet(0, ValueError("a bug"))
    try:
        for item in world.agreed(items()):
            met.append(str(item))
    except (DataError, Elsewhere) as found:
        met.append(f"{type(found).__name__} {found.exit_code} {found}")
    try:
        with world.together(), world.together():
            if world.rank == 1:
                raise DataError("c.png", "is no image")
    except (DataError, Elsewhere) as found:
        met.append(type(found).__name__)
    (folder / f"{world.rank}.txt").write_text("\n".join(met))


@pytest.mark.slow
def test_trouble_of_one__is_the_end_of_all_and_told_by_one(tmp_path: Path) -> None:
    assert in_several(trouble, tmp_path) == [0, 0]
    silent = "process {} of 2: met an error, which it tells"
    assert (tmp_path / "0.txt").read_text().splitlines() == [
        f"Elsewhere 3 {silent.format(1)}",
        "ValueError None a bug",
        "1",
        f"Elsewhere 3 {silent.format(1)}",
        "Elsewhere",
    ]
    assert (tmp_path / "1.txt").read_text().splitlines() == [
        "DataError 3 a.png: is no image",
        f"Elsewhere 1 {silent.format(0)}",
        "1",
        "DataError 3 b.png: is no image",
        "DataError",
    ]


def lost(world: World, folder: Path) -> None:
    if world.rank == 1:
        raise SystemExit(9)
    try:
        world.gather(torch.zeros(2))
    except LostProcess as error:
        (folder / "told").write_text(f"{error.exit_code} {error}")


@pytest.mark.slow
def test_a_process_that_is_gone__ends_the_others_with_a_line(tmp_path: Path) -> None:
    assert in_several(lost, tmp_path)[1] == 9
    assert (tmp_path / "told").read_text() == (
        "5 process 0 of 2: lost another process of the run, in the middle of common work "
        "(see what that one or its launcher said, then go on with --resume)"
    )


@pytest.mark.parametrize("other", ["l2", "subset_kd", "logit_kd"])
def test_a_frozen_classifier__is_shared_out_unless_another_loss_asks_for_all_of_it(other: str) -> None:
    losses = [OPTIONS[name](name=name) for name in ("margin_softmax", other)]
    losses[0] = losses[0].model_copy(update={"class_weights": "teacher"})
    sizes = replace(SIZES, class_share=ClassShare(1, 2, lambda rows: rows))
    objective = Objective(losses, sizes, torch.randn(CLASSES, DIM))
    assert (objective.share is not None) is (other == "l2")
    assert len(objective.inherited.class_weights) == (CLASSES - CLASSES // 2 if other == "l2" else CLASSES)


@pytest.mark.parametrize(("size", "batch"), [(2, 5), (4, 6), (4, 4), (3, 2)])
def test_a_batch_that_does_not_divide__is_refused(size: int, batch: int) -> None:
    with pytest.raises(UsageError, match=f"train.batch_size: {batch} images cannot be shared out evenly among {size}"):
        World(size=size).share_of(batch)


def test_a_device__is_each_process_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(rank=5, size=8, local=1)
    for there, wanted in ((True, "cuda:1"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert world.own_device("auto") == wanted
    assert world.own_device("cuda") == "cuda:1"
    assert world.own_device("cpu") == "cpu"
    for name in ("cuda:0", "mps"):
        with pytest.raises(UsageError, match=f"--device: {name} for each of 8 processes"):
            world.own_device(name)
        assert ALONE.own_device(name) == name


def test_trouble_all_meet_alike__is_told_by_rank_0(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NonFiniteError), World(size=2).alike():
        raise NonFiniteError("step 3", "loss term l2 is not finite")
    with pytest.raises(Elsewhere) as met, World(rank=1, size=2).alike():
        raise NonFiniteError("step 3", "loss term l2 is not finite")
    assert met.value.exit_code == 4 and met.value.lines == []
    with pytest.raises(LostProcess), World(rank=1, size=2).alike():
        raise LostProcess("process 1 of 2", "lost another")


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"WORLD_SIZE": "2"}, "RANK, LOCAL_RANK, MASTER_PORT, MASTER_ADDR"),
        ({"WORLD_SIZE": "x", "RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": "1", "MASTER_ADDR": "a"}, "WORLD_SIZE"),
        ({"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0", "MASTER_PORT": "1", "MASTER_ADDR": "a"}, "RANK"),
    ],
)
def test_a_launcher_that_says_too_little__is_refused(
    environment: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_PORT", "MASTER_ADDR", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(UsageError, match=f"several processes: {named} of the environment does not say"), joined():
        pytest.fail("it was let in")


@pytest.mark.parametrize("name", ["resnet_tiny", pytest.param("timm/resnet10t", marks=pytest.mark.slow)])
def test_synchronised__keeps_parameters_activations_and_answers(name: str) -> None:
    torch.manual_seed(0)
    module = build_backbone(name, embedding_size=8, input_size=32).eval()
    images = torch.randn(2, 3, 32, 32)
    wanted, parameters, keys = module(images), list(module.parameters()), list(module.state_dict())
    changed = synchronised(module)
    norms = [m for m in changed.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert list(changed.state_dict()) == keys
    assert all(one is other for one, other in zip(parameters, changed.parameters(), strict=True))
    torch.testing.assert_close(changed(images), wanted)
