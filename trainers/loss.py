"""How far a prediction is from its target, and how much each noise level counts."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.config import LossConfig


def huber(prediction: Tensor, target: Tensor, c: float) -> Tensor:
    """c² (sqrt(1 + (e/c)²) - 1) · 2: squared near zero, linear far out (pseudo-Huber)."""
    squared = (prediction - target) ** 2
    return 2 * c * squared / ((squared + c**2).sqrt() + c)  # without the difference that cancels for small errors


# elementwise [B, C, h, w] x2, delta -> [B, C, h, w]
LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "l2": lambda prediction, target, c: F.mse_loss(prediction, target, reduction="none"),
    "l1": lambda prediction, target, c: F.l1_loss(prediction, target, reduction="none"),
    "huber": huber,
    "smooth_l1": lambda prediction, target, c: F.smooth_l1_loss(prediction, target, reduction="none", beta=c),
}


def _v_share(snr: Tensor, v: bool) -> Tensor:
    """Turns a weight on the epsilon error into the same weight on the v error: SNR / (SNR + 1)."""
    return snr / (snr + 1) if v else torch.ones_like(snr)


def min_snr(snr: Tensor, gamma: float, v: bool) -> Tensor:
    """min(SNR, γ)/SNR for epsilon, min(SNR, γ)/(SNR + 1) for v [Hang et al. 2023]."""
    return snr.clamp(max=gamma) / snr * _v_share(snr, v)


def soft_min_snr(snr: Tensor, gamma: float, v: bool) -> Tensor:
    """γ/(SNR + γ) for epsilon: min-SNR without its corner [Crowson et al. 2024]."""
    return gamma / (snr + gamma) * _v_share(snr, v)


def debiased(snr: Tensor, gamma: float, v: bool) -> Tensor:
    """1/sqrt(SNR) for epsilon, SNR held at 1000 [Yu et al. 2023]; √SNR/(SNR + 1) for v."""
    return snr.clamp(max=1000).rsqrt() * _v_share(snr, v)


def p2(snr: Tensor, gamma: float, v: bool) -> Tensor:
    """1/(1 + SNR) for epsilon [Choi et al. 2022, k = γ = 1]."""
    return 1 / (1 + snr) * _v_share(snr, v)


# SNR table [1000], gamma, is it v-prediction -> weight table [1000]
WEIGHTINGS: dict[str, Callable[[Tensor, float, bool], Tensor]] = {
    "none": lambda snr, gamma, v: torch.ones_like(snr),
    "min_snr": min_snr,
    "soft_min_snr": soft_min_snr,
    "debiased": debiased,
    "p2": p2,
}


class Loss:
    """The weighted loss of a run, its weights looked up in one table on the device."""

    def __init__(self, config: LossConfig, snr: Tensor | None, prediction: str):
        self.measure, self.c = LOSSES[config.type], config.huber_c
        self.weights = None
        if config.weighting != "none" and snr is not None:
            above_zero = snr.clamp(min=1e-8)  # a zero-terminal-SNR base ends in pure noise: no 0/0 there
            self.weights = WEIGHTINGS[config.weighting](above_zero, config.snr_gamma, prediction == "v")

    def per_sample(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Unweighted error of each picture: [B, C, h, w] x2 -> [B], fp32."""
        return self.measure(prediction.float(), target.float(), self.c).mean(dim=(1, 2, 3))

    def __call__(self, prediction: Tensor, target: Tensor, timesteps: Tensor) -> Tensor:
        """Mean weighted error, a scalar that stays on the device."""
        if self.weights is None and self.measure is LOSSES["l2"]:
            return F.mse_loss(prediction.float(), target.float())
        errors = self.per_sample(prediction, target)
        return errors.mean() if self.weights is None else torch.dot(errors, self.weights[timesteps]) / len(errors)
