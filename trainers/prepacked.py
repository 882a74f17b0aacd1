"""Frozen convolutions on a CPU whose weights lie ready in the order that oneDNN computes with.

PyTorch brings a convolution's weights into that order at every call, forward and backward. Where a layer has many
weights and few pixels, that takes longer than the arithmetic: 1280 x 1280 channels, 8 x 8 pixels, fp32, one core of an
AMD EPYC (AVX2), torch 2.13: forward 78 ms, and 20 ms with weights that lie ready; backward 67 and 22 ms. Frozen weights
need it once. It takes their memory a second time, and a third time for the backward pass: a transposed convolution,
which took as long as the turned one of those numbers on an Intel Xeon, with AVX-512 and held to AVX2.
"""

import torch
from torch import Tensor, nn

from trainers import computer
from trainers.config import MemoryConfig
from trainers.memory.saving import Saving

LEAST = 500_000  # weights of a layer for which it pays: on smaller ones nothing was gained
PIXELS = 1024  # of a batch, at most: 320 channels gain a quarter of the backward pass at 32 x 32, nothing at 64 x 64
ONES, NONE = [1, 1], [0, 0]
NOTHING_ELSE = ("none", [], "")  # is done with the result


class PrepackedConv2d(nn.Conv2d):
    """A frozen nn.Conv2d of one group without dilation. Its weights stay where they were; the ordered ones are extra.

    Sums are taken in another order: results agree with nn.Conv2d's to rounding (2.5e-6 of the largest was seen).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W'), on a CPU in fp32."""
        if x.shape[0] * x.shape[2] * x.shape[3] > PIXELS or x.dtype != torch.float32 or self.weight.requires_grad:
            return super().forward(x)
        return _Convolve.apply(x, self)

    def _get_name(self) -> str:
        """What a model's `repr` calls it: the model is the same, and is known by that (data/cache.py)."""
        return "Conv2d"

    def left_over(self, shape: torch.Size) -> list[int]:
        """Rows and columns of an input of that shape that its last kernel does not reach."""
        sizes = zip(shape[2:], self.padding, self.kernel_size, self.stride, strict=True)
        return [(size + 2 * padding - kernel) % stride for size, padding, kernel, stride in sizes]

    def ordered(self, backward: bool, shape: torch.Size, rest: list[int] = NONE) -> Tensor:
        """The weights in oneDNN's order for what the pass reads, of that shape.

        They are made at first, and when the weights are others. `rest`: what is left over, in the backward pass.
        """
        now = (self.weight.data_ptr(), self.weight._version)
        kept = self.__dict__.setdefault("_ordered", {})
        if self.__dict__.get("_ordered_of") != now:
            kept.clear()
            self.__dict__["_ordered_of"] = now
        if backward not in kept:
            order = torch.ops.mkldnn._reorder_convolution_weight
            how = (self.padding, self.stride)
            if backward:  # the gradient of the input is the transposed convolution of that of the output
                order = torch.ops.mkldnn._reorder_convolution_transpose_weight
                how = (self.padding, rest, self.stride)
            kept[backward] = order(self.weight.detach(), *how, ONES, 1, list(shape))
        return kept[backward]


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, layer: PrepackedConv2d) -> Tensor:
        ctx.layer, ctx.shape = layer, x.shape
        weight = layer.ordered(False, x.shape)
        how = (layer.padding, layer.stride, ONES, 1, *NOTHING_ELSE)
        return torch.ops.mkldnn._convolution_pointwise(x, weight, layer.bias, *how)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        layer = ctx.layer
        rest = layer.left_over(ctx.shape)
        weight = layer.ordered(True, gradient.shape, rest)
        how = (layer.padding, rest, layer.stride, ONES, 1, *NOTHING_ELSE)
        return torch.ops.mkldnn._convolution_transpose_pointwise(gradient.contiguous(), weight, None, *how), None


def prepack(denoiser: nn.Module, config: MemoryConfig, saving: Saving) -> None:
    """Let the chosen layers of a denoiser on a CPU keep their weights in order; nothing changes where none is."""
    if saving.streamed or not saving.prepacked or next(denoiser.parameters()).device.type != "cpu":
        return
    for layer in chosen(denoiser, config):
        layer.__class__ = PrepackedConv2d


def is_prepacked(denoiser: nn.Module) -> bool:
    return any(isinstance(layer, PrepackedConv2d) for layer in denoiser.modules())


def prepacked_bytes(denoiser: nn.Module, config: MemoryConfig) -> int:
    """What `prepack` will take of a CPU's memory, at most: layers that only meet many pixels take nothing."""
    return sum(map(extra, chosen(denoiser, config)))


def ordered_bytes(model: nn.Module) -> int:
    """What ordered weights take of a model that has run."""
    layers = [layer for layer in model.modules() if isinstance(layer, PrepackedConv2d)]
    return sum(weight.numel() * 4 for layer in layers for weight in layer.__dict__.get("_ordered", {}).values())


def chosen(denoiser: nn.Module, config: MemoryConfig) -> list[nn.Conv2d]:
    """The layers that gain most, those of the most weights first, whose ordered weights fit into the room for them."""
    if not torch.backends.mkldnn.is_available() or config.stream == "all" or config.compile == "all":
        return []
    left, found = room(denoiser, config), []
    for layer in sorted(filter(_suits, denoiser.modules()), key=lambda layer: -layer.weight.numel()):
        left -= extra(layer)
        if left < 0:
            break
        found.append(layer)
    return found


def extra(layer: nn.Conv2d) -> int:
    """Bytes that the ordered weights of a layer take, for both passes."""
    return 2 * layer.weight.numel() * 4


def room(denoiser: nn.Module, config: MemoryConfig) -> float:
    """Bytes that all of them may take: a quarter of all memory, and no more than leaves half of it beside the weights.

    What is free at the moment does not count: a resumed run must sum in the same order.
    """
    whole = config.budget * 2**30 if config.budget else computer.total_bytes()
    weights = sum(parameter.numel() * parameter.element_size() for parameter in denoiser.parameters())
    return min(whole / 4, whole / 2 - 2 * weights)


def _suits(layer: nn.Module) -> bool:
    return (
        type(layer) in (nn.Conv2d, PrepackedConv2d)
        and (layer.groups, layer.dilation, layer.padding_mode) == (1, (1, 1), "zeros")
        and layer.kernel_size != (1, 1)
        and layer.weight.dtype == torch.float32
        and not layer.weight.requires_grad
        and layer.weight.numel() >= LEAST
    )
