"""Losses and weightings against their closed forms."""

import pytest
import torch

from trainers.config import LossConfig
from trainers.loss import LOSSES, WEIGHTINGS, Loss

SNR = torch.tensor([0.01, 1.0, 5.0, 50.0, 2000.0])


@pytest.mark.parametrize(
    ("name", "v", "expected"),
    [
        ("none", False, [1, 1, 1, 1, 1]),
        ("min_snr", False, [1, 1, 1, 5 / 50, 5 / 2000]),
        ("min_snr", True, [0.01 / 1.01, 1 / 2, 5 / 6, 5 / 51, 5 / 2001]),
        ("soft_min_snr", False, [5 / 5.01, 5 / 6, 5 / 10, 5 / 55, 5 / 2005]),
        ("soft_min_snr", True, [0.01 * 5 / (5.01 * 1.01), 5 / 12, 25 / 60, 250 / (55 * 51), 10000 / (2005 * 2001)]),
        ("debiased", False, [10, 1, 5**-0.5, 50**-0.5, 1000**-0.5]),
        ("p2", False, [1 / 1.01, 1 / 2, 1 / 6, 1 / 51, 1 / 2001]),
    ],
)
def test_weights_follow_the_papers(name, v, expected):
    torch.testing.assert_close(WEIGHTINGS[name](SNR, 5.0, v), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_a_v_weight_is_the_epsilon_weight_on_the_same_error(name):
    """The v error is the epsilon error times (SNR + 1)/SNR, so the weights must be in the inverse ratio."""
    if name == "none":
        pytest.skip("none leaves each prediction type its own natural weight")
    ratio = WEIGHTINGS[name](SNR, 5.0, True) / WEIGHTINGS[name](SNR, 5.0, False)
    torch.testing.assert_close(ratio, SNR / (SNR + 1))


@pytest.mark.parametrize("name", LOSSES)
def test_no_error_costs_nothing_and_a_larger_one_costs_more(name):
    target = torch.zeros(1, 4, 2, 2)
    costs = [LOSSES[name](target + error, target, 0.1).mean().item() for error in (0.0, 0.05, 0.5, 2.0)]
    assert costs[0] == pytest.approx(0, abs=1e-7)
    assert costs == sorted(costs) and costs[1] > 0


def test_huber_is_squared_near_zero_and_linear_far_out():
    huber = LOSSES["huber"]
    near, far = torch.tensor([1e-2]), torch.tensor([1e3])
    torch.testing.assert_close(huber(near, torch.zeros(1), 1.0), near**2, rtol=1e-3, atol=0)
    torch.testing.assert_close(huber(far, torch.zeros(1), 1.0), 2 * far, rtol=1e-2, atol=0)


def test_loss_is_the_mean_of_weight_times_error():
    snr = torch.tensor([1.0, 50.0])
    loss = Loss(LossConfig(weighting="min_snr"), snr, "epsilon")
    prediction = torch.stack([torch.full((4, 2, 2), 2.0), torch.full((4, 2, 2), 3.0)])
    value = loss(prediction, torch.zeros_like(prediction), torch.tensor([0, 1]))
    torch.testing.assert_close(value, torch.tensor((4 * 1 + 9 * 0.1) / 2))  # weights 1 and 5/50
