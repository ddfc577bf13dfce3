"""Mixtures of two images: who meets whom, in which shares, and that their pixels are exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facekd.data.virtual import SHARE_STEPS, Mixture, draw_mixture, mix_images


@pytest.mark.parametrize("count", [2, 3, 17])
def test_everyone_is_a_partner_once_and_nobody_his_own(count: int) -> None:
    rows = torch.arange(count) * 3
    for step in range(50):
        found = draw_mixture(rows, seed=0, step=step, alpha=1.0)
        assert torch.equal(found.first, rows) and torch.equal(found.second.sort().values, rows)
        assert not (found.first == found.second).any()


def test_a_draw_is_a_function_of_seed_and_step_alone() -> None:
    rows = torch.arange(16)
    again, other, later = (draw_mixture(rows, seed=s, step=t, alpha=1.0) for s, t in ((0, 5), (1, 5), (0, 6)))
    torch.manual_seed(99)
    np.random.seed(99)
    found = draw_mixture(rows, seed=0, step=5, alpha=1.0)
    assert torch.equal(found.second, again.second) and torch.equal(found.shares, again.shares)
    for different in (other, later):
        assert not torch.equal(found.second, different.second) and not torch.equal(found.shares, different.shares)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_have_the_mean_and_variance_of_their_beta(alpha: float) -> None:
    shares = draw_mixture(torch.arange(20_000), seed=0, step=0, alpha=alpha).shares.double()
    variance = 1 / (4 * (2 * alpha + 1))
    assert float(shares.mean()) == pytest.approx(0.5, abs=4 * (variance / 20_000) ** 0.5)
    assert float(shares.var()) == pytest.approx(variance, rel=0.05)
    assert torch.equal(shares * SHARE_STEPS, (shares * SHARE_STEPS).round())


def test_every_partner_is_as_likely_as_any_other() -> None:
    met = torch.zeros(5, 5)
    for step in range(2000):
        found = draw_mixture(torch.arange(5), seed=0, step=step, alpha=1.0)
        met[found.first, found.second] += 1
    assert float(met.diagonal().sum()) == 0
    others = met[~torch.eye(5, dtype=torch.bool)]
    assert float((others / 2000 - 0.25).abs().max()) < 0.05


def images(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 6, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_pixels_are_the_rounded_weighted_mean() -> None:
    batch = images(4)
    mixture = draw_mixture(torch.arange(4), seed=0, step=0, alpha=1.0)
    shares = mixture.shares.double()[:, None, None, None]
    exact = shares * batch[mixture.first].double() + (1 - shares) * batch[mixture.second].double()
    found = mix_images(batch, mixture)
    assert found.dtype == torch.uint8 and found.shape == (4, 3, 6, 5)
    assert torch.equal(found.double(), (exact + 0.5).floor())


def test_pixels_do_not_care_which_image_is_called_first() -> None:
    batch, rows = images(6), torch.arange(6)
    mixture = draw_mixture(rows, seed=0, step=0, alpha=0.5)
    turned = Mixture(mixture.second, mixture.first, 1 - mixture.shares)
    assert torch.equal(mix_images(batch, mixture), mix_images(batch, turned))


def test_all_of_one_image_is_that_image() -> None:
    batch = images(2)
    for share, shown in ((1.0, batch[0]), (0.0, batch[1])):
        mixture = Mixture(torch.tensor([0]), torch.tensor([1]), torch.tensor([share]))
        assert torch.equal(mix_images(batch, mixture)[0], shown)
