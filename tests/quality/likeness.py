"""Is it the right thing? How near a sample is to the true drawing of its word, against 63 other words.

The distance between two pictures is the L2 distance of their 16x16 down-sampled RGB plus the L2 distance of the judge's
penultimate features, each divided by its mean over all pairs of the true drawings, so that both count alike.
The first sees layout and colour, the second what kinds of edges and shading are there.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.quality.judge import Judge


@dataclass(frozen=True)
class Likeness:
    """Ranks of each true picture among all true pictures, seen from its sample: 0 is the nearest. `ranks` is [N]."""

    ranks: Tensor

    def top(self, count: int) -> float:
        """Share of samples whose true picture is among the `count` nearest."""
        return (self.ranks < count).float().mean().item()


def likeness(samples: Tensor, truth: Tensor, judge: Judge) -> Likeness:
    """`samples` and `truth` are [N, 3, 64, 64] in -1..1; sample i ought to show truth i."""
    distance = torch.zeros(len(samples), len(truth))
    for describe in (_thumbnail, judge.features):
        with torch.no_grad():
            a, b = describe(samples), describe(truth)
        distance += torch.cdist(a, b) / F.pdist(b).mean()
    own = distance.diagonal().unsqueeze(1)
    return Likeness((distance < own).sum(1))


def _thumbnail(pictures: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(pictures, 16).flatten(1)
