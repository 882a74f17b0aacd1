"""The denoiser's repeated blocks run as compiled graphs: regional torch.compile, one graph for all blocks of a kind."""

from collections.abc import Callable, Collection

import torch
from torch import nn

from trainers.memory.units import blocks

BACKEND = "inductor"
Shape = tuple[int, ...]  # of a batch of noisy latents, [B, C, h, w]


class Regions:
    """Compiled stand-ins for the blocks' forward passes, used for passes with gradients in the given shapes only.

    All else runs as before: previews, validation, pictures of a rare size. The modules stay the same modules, so that
    what is saved, merged or checkpointed is called as always. A block that computes its activations again is compiled
    as a whole, with the second computation in its graph.
    """

    exact = False  # compiled sums differ in their last bits
    worth = 0.95  # of the eager time: by less, noise would decide

    def __init__(self, denoiser: nn.Module, shapes: Collection[Shape], mode: str = "default"):
        """`mode`: torch.compile's, "reduce-overhead" for CUDA graphs. Nothing is done before `put`."""
        self.denoiser, self.shapes, self.mode = denoiser, frozenset(shapes), mode
        self.modules = [denoiser.get_submodule(path) for path in blocks(denoiser)]
        self.active, self.calls, self.compiled = False, 0, []
        self._hook = None

    def put(self) -> None:
        """Use them from now on. Graphs are made at their first use, and kept if they are removed and put again."""
        if not self.compiled:
            _raise_limits(2 * len(self.modules) * len(self.shapes))  # 2: what comes in may need a gradient or not
            mode = None if self.mode == "default" else self.mode
            made = [torch.compile(m._call_impl, backend=BACKEND, mode=mode, dynamic=False) for m in self.modules]
            self.compiled = made
        for module, compiled in zip(self.modules, self.compiled, strict=True):
            module._compiled_call_impl = self._either(compiled, module._call_impl)  # as nn.Module.compile sets it
        self._hook = self.denoiser.register_forward_pre_hook(self._begin)

    def remove(self) -> None:
        """Every forward pass runs as before from now on."""
        self.active = False
        if self._hook:
            self._hook.remove()
        for module in self.modules:
            module._compiled_call_impl = None

    def rest(self) -> None:
        """What compiled code keeps for its graphs stays with it."""

    def _begin(self, denoiser: nn.Module, inputs: tuple) -> None:
        """Before a forward pass of the denoiser, whose first input is the noisy latents."""
        self.active = torch.is_grad_enabled() and tuple(inputs[0].shape) in self.shapes
        if self.active and self.mode == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()  # what the pass before this one gave is not needed any more

    def _either(self, compiled: Callable[..., object], usual: Callable[..., object]) -> Callable[..., object]:
        def forward(*args: object, **kwargs: object) -> object:
            self.calls += self.active
            return (compiled if self.active else usual)(*args, **kwargs)

        return forward


def _raise_limits(graphs: int) -> None:
    """Let torch keep so many graphs of one function; past its own limit of 8 it would leave blocks as they are."""
    config = torch._dynamo.config
    for name in ("recompile_limit", "accumulated_recompile_limit"):
        setattr(config, name, max(getattr(config, name), graphs))
