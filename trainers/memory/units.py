"""Parts of a denoiser whose activations can be thrown away and computed again: selective gradient checkpointing.

A unit is a residual block of convolutions, a transformer block, or an attention or MLP inside one. Checkpointing is
torch's non-reentrant one [Chen et al. 2016, "Training deep nets with sublinear memory cost"]: what stands before the
first trained weight needs no gradient, saves nothing and is not computed again.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from diffusers.models.attention import BasicTransformerBlock, FeedForward, JointTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from trainers.devices import copies_aside

BLOCKS = (ResnetBlock2D, BasicTransformerBlock, JointTransformerBlock)
PARTS = (Attention, FeedForward)  # of a transformer block


def units(denoiser: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(path, module) of every unit in the order of the module tree; a part comes after the block it is in."""
    inside = ""
    for path, module in denoiser.named_modules():
        if isinstance(module, BLOCKS):
            inside = f"{path}."
            yield path, module
        elif isinstance(module, PARTS) and inside and path.startswith(inside):
            yield path, module


def blocks(denoiser: nn.Module) -> tuple[str, ...]:
    """The paths of all whole blocks: what is checkpointed when everything is."""
    return tuple(path for path, module in units(denoiser) if isinstance(module, BLOCKS))


def recompute(denoiser: nn.Module, chosen: Collection[str], draws: bool = False, offload: bool = False) -> None:
    """Checkpoint the units at these paths, and no others from now on.

    `draws`: whether random numbers are drawn in them (dropout), so that the second time must draw the same.
    `offload`: whether their inputs wait in host memory.
    """
    chosen = frozenset(chosen)
    for path, module in units(denoiser):
        plain = _plain(type(module))
        module.__class__ = _recomputed(plain) if path in chosen else plain
        if path in chosen:
            module.draws, module.offload = draws, offload


def streamed(denoiser: nn.Module) -> tuple[str, ...]:
    """The paths of the blocks whose weights come and go (stream.py)."""
    return tuple(path for path, module in units(denoiser) if getattr(module, "present", None))


def recomputes(denoiser: nn.Module) -> bool:
    """Whether any of its units is checkpointed."""
    return any(isinstance(module, Recomputed) for module in denoiser.modules())


class Recomputed:
    """Mixed into a unit's class: forward keeps the inputs alone, and backward computes the rest again."""

    draws: bool
    offload: bool
    present: Callable[[bool], AbstractContextManager] | None = None  # of a streamed block: its weights are there inside

    def forward(self, *args: object, **kwargs: object) -> object:
        if not torch.is_grad_enabled():
            return self._forward(False, *args, **kwargs)
        names, count, again = tuple(kwargs), len(args), False

        def forward(*inputs: object) -> object:
            nonlocal again
            second, again = again, True
            return self._forward(second, *inputs[:count], **dict(zip(names, inputs[count:], strict=True)))

        # What torch is given by name it neither saves through hooks nor looks at for the device of random numbers.
        with saved_tensors_hooks(to_host, from_host) if self.offload else nullcontext():
            inputs = (*args, *kwargs.values())
            return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=self.draws)

    def _forward(self, again: bool, *args: object, **kwargs: object) -> object:
        with self.present(again) if self.present else nullcontext():
            return super().forward(*args, **kwargs)


def to_host(tensor: Tensor) -> tuple[torch.device, Tensor | torch.Size, torch.dtype]:
    """A copy in host memory, pinned for a GPU; the copying is in order with the GPU's work, nothing waits for it."""
    if tensor.is_meta:
        return tensor.device, tensor.shape, tensor.dtype
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda")
    return tensor.device, host.copy_(tensor, non_blocking=copies_aside(tensor.device)), tensor.dtype


def from_host(packed: tuple[torch.device, Tensor | torch.Size, torch.dtype]) -> Tensor:
    device, host, dtype = packed
    if isinstance(host, torch.Size):
        return torch.empty(host, dtype=dtype, device=device)
    return host.to(device, non_blocking=copies_aside(device))


@cache
def _recomputed(kind: type) -> type:
    return type(kind.__name__, (Recomputed, kind), {"plain": kind})  # the name is what torch.compile's helpers look for


def _plain(kind: type) -> type:
    return kind.plain if issubclass(kind, Recomputed) else kind
