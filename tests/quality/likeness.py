"""Is it the right thing? How near a sample is to the true drawing of its word, against 63 other words.

The distance between two pictures is the L2 distance of their RGB averaged down to 16x16: layout and colour.
It was chosen by what it finds among real drawings: a noto or twemoji drawing has the fluent drawing of its own word
among its 5 nearest of the 64 in 66 % and 70 % of the cases: what the right thing in an old style would reach.
thing.
Adding the judge's features brings that down to 25 % and 17 %: they tell styles apart and know little of things.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Likeness:
    """Ranks of each true picture among all true pictures, seen from its sample: 0 is the nearest. `ranks` is [N]."""

    ranks: Tensor

    def top(self, count: int) -> float:
        """Share of samples whose true picture is among the `count` nearest."""
        return (self.ranks < count).float().mean().item()


def likeness(samples: Tensor, truth: Tensor) -> Likeness:
    """`samples` and `truth` are [N, 3, 64, 64] in -1..1; sample i ought to show truth i."""
    distance = torch.cdist(_thumbnail(samples), _thumbnail(truth))
    own = distance.diagonal().unsqueeze(1)
    return Likeness((distance < own).sum(1))


def _thumbnail(pictures: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(pictures, 16).flatten(1)
