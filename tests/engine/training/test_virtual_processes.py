"""Virtual samples of several processes are those of one: the same mixtures, each embedded by one of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from several_processes import in_several
from torch import Tensor, nn

from facekd.data.loading import Batch
from facekd.engine.training.distributed import ALONE, World
from facekd.engine.training.objective import Objective
from facekd.engine.training.outputs import Sizes, StepOutputs
from facekd.engine.training.step import joined_outputs
from facekd.engine.training.virtual import virtual_fields
from facekd.recipe.loss_options import MarginSoftmax, Stkd, StkdSimilarity

LABELS = torch.tensor([0, 0, 1, 2, 1, 3, 4, 2])
DIM, TEACHER_DIM, CLASSES, SIDE = 4, 6, 5, 3
OWN = MarginSoftmax(name="margin_softmax", scale=8.0)
LOSSES = (OWN, Stkd(name="stkd", scale=8.0), StkdSimilarity(name="stkd_similarity"))


def one_step(world: World, labels: Tensor) -> dict[str, Tensor]:
    """What a step makes of virtual samples: its fields, its terms and the student's gradient."""
    torch.manual_seed(0)
    student, teacher = nn.Linear(3 * SIDE**2, DIM), nn.Linear(3 * SIDE**2, TEACHER_DIM)
    images = torch.randint(0, 256, (len(labels), 3, SIDE, SIDE), dtype=torch.uint8)
    sizes = Sizes(CLASSES, DIM, TEACHER_DIM, len(labels), 1)
    objective = Objective(LOSSES, sizes, torch.randn(CLASSES, TEACHER_DIM))
    each = world.share_of(len(labels))
    rows = slice(world.rank * each, (world.rank + 1) * each)
    batch = Batch(images[rows], labels[rows], torch.arange(len(labels))[rows], torch.zeros(each))
    recipe = SimpleNamespace(train=SimpleNamespace(seed=3))
    session = SimpleNamespace(
        world=world, objective=objective, step=5, recipe=recipe, student=student, all_labelled=False
    )

    def embed(network: nn.Module, shown: Tensor) -> Tensor:
        return network(shown.float().flatten(1) / 255)

    with torch.no_grad():
        known = embed(teacher, batch.images)
    share = joined_outputs(world, StepOutputs(embed(student, batch.images), known, batch.labels))
    fields = virtual_fields(
        session, batch, lambda shown: embed(student, shown), lambda shown: embed(teacher, shown).detach()
    )
    terms = objective(StepOutputs(share.student, share.teacher, share.labels, **fields), 5)
    torch.stack(list(terms.values())).sum().backward()
    world.sum_gradients(student)
    found = {f"gradient.{name}": parameter.grad for name, parameter in student.named_parameters()}
    return found | {name: held.detach() for name, held in (fields | terms).items()}


def every_step(world: World, folder: Path) -> None:
    found = one_step(world, LABELS)
    uneven = LABELS.clone()
    uneven[2] = -1
    found |= {f"uneven.{name}": held for name, held in one_step(world, uneven).items()}
    save_file({name: held.contiguous() for name, held in found.items()}, folder / f"{world.rank}.safetensors")


@pytest.mark.slow
def test_two_processes__make_the_mixtures_terms_and_gradients_of_one(tmp_path: Path) -> None:
    assert in_several(every_step, tmp_path) == [0, 0]
    found = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(2)]
    wanted = one_step(ALONE, LABELS)
    assert len(wanted["virtual_shares"]) == 8
    for rank in found:
        torch.testing.assert_close({name: rank[name] for name in wanted}, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_mixtures_that_do_not_divide__are_left_out(tmp_path: Path) -> None:
    assert in_several(every_step, tmp_path) == [0, 0]
    uneven = LABELS.clone()
    uneven[2] = -1
    wanted = one_step(ALONE, uneven)
    assert len(wanted["virtual_shares"]) == 7
    for rank in range(2):
        found = load_file(tmp_path / f"{rank}.safetensors")
        assert len(found["uneven.virtual_shares"]) == 6
        for name in ("virtual_student", "virtual_teacher", "virtual_labels", "virtual_shares"):
            torch.testing.assert_close(found[f"uneven.{name}"], wanted[name][:6])
