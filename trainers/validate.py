"""The stable validation loss: held-out pictures, fixed noise, stratified timesteps."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainers.families.base import Family
from trainers.loss import Loss
from trainers.noise import Noise
from trainers.stores import Feed, TextStore

LEVELS = 4  # timesteps per picture, spread evenly over the trained range
ROWS = 2  # denoised together for each picture that a step trains on, where it computes activations again
MOST = 16  # pictures measured, so that a big set does not stop the training for minutes


def measured_pictures(held_out: list[int], training: list[int]) -> tuple[list[int], list[int]]:
    """(held-out pictures that a validation measures, as many of those that are trained on)."""
    return held_out[:MOST], training[: min(MOST, len(held_out))]


class Validator:
    """Measures the same noise on the same pictures each time, so that only the adapter can move the number.

    The training pictures are measured in the same way: where the two part, the adapter learns its pictures by heart.
    """

    def __init__(
        self,
        feed: Feed,
        held_out: list[int],
        noise: Noise,
        loss: Loss,
        family: Family,
        denoiser: nn.Module,
        seed: int,
        together: int = LEVELS,
    ):
        """`together`: how many levels of noise are denoised at once: no more than have room."""
        self.together = together
        self.feed, self.noise, self.loss, self.family, self.denoiser, self.seed = (
            feed,
            noise,
            loss,
            family,
            denoiser,
            seed,
        )
        self.held_out, self.seen = measured_pictures(held_out, feed.training)

    @torch.no_grad()
    def measure(
        self, text: TextStore, dtype: torch.dtype, measured: Callable[[int, int], None] = lambda done, total: None
    ) -> tuple[float, float]:
        """Mean unweighted loss on held-out and on as many training pictures (adapter in eval mode, no dropout).

        `measured` is told of each picture: (done, in all).
        """
        training = self.denoiser.training
        self.denoiser.eval()
        total, values = len(self.held_out) + len(self.seen), []
        for before, indices in ((0, self.held_out), (len(self.held_out), self.seen)):
            after = lambda done, before=before: measured(before + done, total)  # noqa: E731
            values.append(float(self._mean(indices, text, dtype, after)))
        self.denoiser.train(training)
        return values[0], values[1]

    def _mean(self, indices: list[int], text: TextStore, dtype: torch.dtype, measured: Callable[[int], None]) -> Tensor:
        generator = torch.Generator(text.device)
        errors = []
        for index in indices:
            generator.manual_seed(self.seed * 7919 + index)
            mean = self.feed.latents.mean(index)[None].expand(LEVELS, -1, -1, -1)
            half = self.noise.noise_like(mean[: LEVELS // 2], generator)
            noise = torch.cat([half, -half])  # antithetic pairs: their first-order errors cancel
            timesteps = self.noise.levels(LEVELS).to(text.device)
            noisy, target = self.noise.corrupt(mean, noise, timesteps)
            row = torch.tensor([text.row[self.feed.variants[index][0]]] * LEVELS, device=text.device)
            sizes = self.feed.latents.told_sizes([index] * LEVELS, [False] * LEVELS)
            conditioning, noisy = text.conditioning(row).to(dtype).sized(sizes), noisy.to(dtype)
            predictions = [
                self.family.denoise(self.denoiser, noisy[some], timesteps[some], conditioning.rows(some))
                for some in torch.arange(LEVELS, device=text.device).split(self.together)
            ]
            errors.append(self.loss.per_sample(torch.cat(predictions), target).mean())
            measured(len(errors))
        return torch.stack(errors).mean()
