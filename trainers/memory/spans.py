"""What a checkpointed step holds from one block to the next, and how much with weights that come and go.

Where activations take the most, blocks are small, and where blocks are large, activations are: the most of both
together is less than the sum.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from trainers.memory.meter import Meter
from trainers.memory.units import Recomputed, blocks


@dataclass(frozen=True)
class Span:
    """From where a block begins: bytes that are held at most, beside its weights."""

    path: str  # "": before the first one
    again: bool  # in the backward pass
    peak: int


@contextmanager
def spanned(denoiser: nn.Module, meter: Meter) -> Iterator[list[Span]]:
    """Inside, each checkpointed block begins a span as it runs; the list is whole afterwards."""
    spans: list[Span] = []
    current = ("", False)

    @contextmanager
    def begun(path: str, again: bool) -> Iterator[None]:
        nonlocal current
        spans.append(Span(*current, meter.mark()))
        current = (path, again)
        yield

    modules = {path: denoiser.get_submodule(path) for path in blocks(denoiser)}
    modules = {path: module for path, module in modules.items() if isinstance(module, Recomputed)}
    meter.mark()
    for path, module in modules.items():
        module.present = partial(begun, path)
    try:
        yield spans
    finally:
        spans.append(Span(*current, meter.mark()))
        for module in modules.values():
            del module.present


def most(spans: Sequence[Span], sizes: Mapping[str, int], device: torch.device) -> int:
    """Bytes that a step holds at most with the weights of streamed blocks (stream.py), beside those that stay.

    Args:
        sizes: of the weights of each block that is streamed.
    """
    if device.type == "cpu":  # the same piece of memory serves all, and stays
        return max(span.peak for span in spans) + max(sizes.values())
    return max(span.peak + there for span, there in zip(spans, _there(spans, sizes), strict=True))


def _there(spans: Sequence[Span], sizes: Mapping[str, int]) -> list[int]:
    """Of each span: the weights of its block, and of the next one, which come from where the one before begins."""
    nearest, coming = {False: 0, True: 0}, []
    for span in reversed(spans):
        coming.append(nearest[span.again])
        nearest[span.again] = sizes.get(span.path, nearest[span.again])
    begun, there = set(), []
    for span, after in zip(spans, reversed(coming), strict=True):
        if span.path in sizes:
            begun.add(span.again)
        there.append(sizes.get(span.path, 0) + (after if span.again in begun else 0))
    return there
