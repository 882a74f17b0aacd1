"""Output preservation: what is drawn without the trigger word stays what the base draws.

The noisy pictures of a batch are denoised once more, under their captions with a class word in the trigger's place or
under the empty caption; the target is what the base alone predicts there. Also called differential output preservation.
"""

import torch
from torch import Tensor, nn

from trainers.adapters.adapter import Adapter
from trainers.config import LossConfig, TrainConfig
from trainers.data.captions import without_trigger
from trainers.data.types import Example
from trainers.families.base import Conditioning, Family
from trainers.loss import Loss
from trainers.stores import Feed


def preserved_captions(example: Example, config: TrainConfig) -> list[str]:
    """The captions under which a picture's prediction should stay the base's; none while preservation is off.

    The empty caption is always one of them: it is the other half of classifier-free guidance.
    """
    if not config.loss.preservation:
        return []
    trigger, words = config.data.trigger, config.data.class_words or ("",)
    return list(dict.fromkeys(["", *(without_trigger(example.caption, trigger, word) for word in words)]))


class Preservation:
    """The second loss of a run."""

    def __init__(
        self,
        config: LossConfig,
        adapter: Adapter,
        family: Family,
        denoiser: nn.Module,
        feed: Feed,
        base_text: Conditioning,
        loss: Loss,
    ):
        """`base_text`: every caption of the feed's TextStore as the text encoders without an adapter encode it."""
        self.weight, self.every = config.preservation * config.preservation_every, config.preservation_every
        self.adapter, self.family, self.denoiser, self.loss = adapter, family, denoiser, loss
        self.feed, self.base_text = feed, base_text

    def due(self, number: int) -> bool:
        """Whether micro-step `number` has this loss: the last of each `every`."""
        return (number + 1) % self.every == 0

    def __call__(self, number: int, pictures: list[int], noisy: Tensor, timesteps: Tensor) -> Tensor:
        """noisy [B, C, h, w] in the compute dtype, timesteps [B] -> the weighted loss, a scalar on the device."""
        rows = self.feed.preserved(number, pictures)
        with torch.no_grad(), self.adapter.disabled():
            base = self.base_text.rows(rows).to(noisy.dtype)
            target = self.family.denoise(self.denoiser, noisy, timesteps, base)
        conditioning = self.feed.text.conditioning(rows).to(noisy.dtype)
        prediction = self.family.denoise(self.denoiser, noisy, timesteps, conditioning)
        return self.weight * self.loss(prediction, target, timesteps)
