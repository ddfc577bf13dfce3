"""The batches of a step depend on seed and step alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from facekd.data.samplers import Draw, StepBatches, class_uniform, epoch_order, shuffled, superclass_uniform

LABELS = np.array([0] * 7 + [1] * 2 + [2] * 4 + [3] * 1 + [4] * 9)
SUPERCLASSES = np.array([0, 1, 1, 0, 1])
DRAWS = {
    "shuffled": shuffled(23, 5, 3),
    "class_uniform": class_uniform(LABELS, 6, 3, 3),
    "superclass_uniform": superclass_uniform(LABELS, SUPERCLASSES, 6, 3, 3),
}


def test_epoch_order__is_a_permutation_that_changes_with_seed_and_epoch() -> None:
    orders = [epoch_order(50, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_step_batches__any_start_goes_on_with_the_same_batches(draw: Draw) -> None:
    whole = list(StepBatches(draw, 4, 3, 0, 13))
    assert [batch[0][0] for batch in whole] == [0] * 4 + [1] * 4 + [2] * 4 + [3]
    for start in range(13):
        assert list(StepBatches(draw, 4, 3, start, 13)) == whole[start:]


def test_step_batches__an_epoch_shows_each_image_at_most_once_and_full_batches_only() -> None:
    batches = list(StepBatches(shuffled(23, 5, 0), 4, 0, 0, 4))
    keys = [key for batch in batches for key in batch]
    assert [len(batch) for batch in batches] == [5] * 4
    assert {epoch for epoch, _ in keys} == {0} and len({index for _, index in keys}) == 20


def test_class_uniform__takes_the_same_number_of_each_of_a_few_identities() -> None:
    for step in range(40):
        chosen = DRAWS["class_uniform"](step)
        assert sorted(Counter(LABELS[chosen].tolist()).values()) == [3, 3]
        repeated = {int(LABELS[index]) for index, times in Counter(chosen.tolist()).items() if times > 1}
        assert repeated <= {1, 3}


def test_class_uniform__draws_identities_alike_and_every_image_in_the_end() -> None:
    drawn = np.concatenate([DRAWS["class_uniform"](step) for step in range(2000)])
    assert np.bincount(LABELS[drawn]) / len(drawn) == pytest.approx([0.2] * 5, abs=0.02)
    assert set(drawn.tolist()) == set(range(len(LABELS)))


def test_class_uniform__another_seed_draws_others() -> None:
    assert any((class_uniform(LABELS, 6, 3, 4)(step) != DRAWS["class_uniform"](step)).any() for step in range(3))


@pytest.mark.parametrize(("batch_size", "images"), [(7, 3), (12, 2)])
def test_class_uniform__refuses_what_does_not_divide_or_is_not_there(batch_size: int, images: int) -> None:
    with pytest.raises(ValueError, match=f"{batch_size} images cannot be {images} of each .* the data has 5"):
        class_uniform(LABELS, batch_size, images, 0)


def test_superclass_uniform__takes_all_identities_of_a_batch_from_one_superclass_each_as_often() -> None:
    drawn = [LABELS[DRAWS["superclass_uniform"](step)] for step in range(600)]
    met = [set(SUPERCLASSES[labels].tolist()) for labels in drawn]
    assert all(len(one) == 1 for one in met)
    assert all(sorted(Counter(labels.tolist()).values()) == [3, 3] for labels in drawn)
    assert sum(one == {0} for one in met) / len(met) == pytest.approx(0.5, abs=0.07)
    mixed = [set(SUPERCLASSES[LABELS[DRAWS["class_uniform"](step)]].tolist()) for step in range(50)]
    assert any(len(one) == 2 for one in mixed)


def test_superclass_uniform__refuses_a_superclass_too_small_for_a_batch() -> None:
    with pytest.raises(ValueError, match="a superclass has 2 identities, a batch takes 3"):
        superclass_uniform(LABELS, SUPERCLASSES, 9, 3, 0)
