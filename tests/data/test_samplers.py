"""The batches of a step depend on seed and step alone."""

from __future__ import annotations

from facekd.data.samplers import StepBatches, epoch_order


def test_epoch_order__is_a_permutation_that_changes_with_seed_and_epoch() -> None:
    orders = [epoch_order(50, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_step_batches__any_start_goes_on_with_the_same_batches() -> None:
    whole = list(StepBatches(23, 5, 3, 0, 13))
    for start in range(13):
        assert list(StepBatches(23, 5, 3, start, 13)) == whole[start:]


def test_step_batches__an_epoch_shows_each_image_at_most_once_and_full_batches_only() -> None:
    batches = list(StepBatches(23, 5, 0, 0, 4))
    keys = [key for batch in batches for key in batch]
    assert [len(batch) for batch in batches] == [5] * 4
    assert {epoch for epoch, _ in keys} == {0} and len({index for _, index in keys}) == 20
