"""Frozen linear layers of the denoiser that keep their weight packed: the quantised base of QLoRA.

The weight is unpacked where a product needs it, forward and again backward, and never kept. Convolutions, norms,
embeddings and what comes first and last stay as they are [Dettmers et al. 2023, "QLoRA"].
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.attention import JointTransformerBlock
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainers.events import Adjusted
from trainers.memory.packing import FORMS
from trainers.waiting import real

GB = 2**30
BITS = {"int8": 8, "nf4": 4}
INSIDE = (Transformer2DModel, JointTransformerBlock)


@dataclass(frozen=True)
class Packed:
    """What was packed: the number of layers, and the bytes of their weights before and after."""

    form: str
    layers: int
    before: int
    after: int

    @property
    def told(self) -> Adjusted:
        what = f"{self.layers} linear layers of the base are stored in {BITS[self.form]} bits a number"
        why = f"{self.after / GB:.2f} GB in place of {self.before / GB:.2f}: memory.quantize is {self.form}"
        return Adjusted(what, why)


def pack(denoiser: nn.Module, form: str, device: torch.device | None = None) -> Packed | None:
    """Pack the weights inside the denoiser's transformers, on `device`; None where `form` is none.

    Layer by layer, so that the device never holds the whole unpacked model. An adapter comes on it afterwards. What
    makes the scales and shifts of norms (SD3) takes 8 bits in every form.
    """
    if form == "none":
        return None
    count = before = after = 0
    for path, layer in list(packable(denoiser)):
        packed = PackedLinear(layer, "int8" if ".norm" in path else form, device)
        parent, _, name = path.rpartition(".")
        setattr(denoiser.get_submodule(parent), name, packed)
        count, before, after = count + 1, before + layer.weight.nbytes, after + packed.nbytes
    return Packed(form, count, before, after)


def packable(denoiser: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """(path, layer) of the frozen linear layers inside transformers, in module order."""
    inside = "\0"  # no path begins so
    for path, module in denoiser.named_modules():
        if isinstance(module, INSIDE) and not path.startswith(inside):
            inside = f"{path}."
        elif type(module) is nn.Linear and path.startswith(inside) and not module.weight.requires_grad:
            yield path, module


class PackedLinear(nn.Linear):
    """y = x W' + b with W packed; `weight` is a fresh copy of W in `dtype`, made at each use."""

    def __init__(self, layer: nn.Linear, form: str, device: torch.device | None = None):
        """Bias and all else are the given layer's own, whose weight is frozen."""
        nn.Module.__init__(self)  # nn.Linear's own would make a weight
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.form, self.dtype = FORMS[form], layer.weight.dtype
        with torch.no_grad():
            packed = self.form.pack(layer.weight.to(device))
        self.packed = nn.ParameterList(nn.Parameter(tensor, requires_grad=False) for tensor in packed)
        self.bias = layer.bias
        self.train(layer.training)

    @property
    def weight(self) -> Tensor:
        """[out, in]."""
        return self.unpacked(tuple(real(tensor) for tensor in self.packed))  # peft looks at it while it waits

    @torch.no_grad()
    def unpacked(self, packed: tuple[Tensor, ...]) -> Tensor:
        """[out, in]."""
        return self.form.unpack(packed, torch.Size((self.out_features, self.in_features)), self.dtype)

    @property
    def nbytes(self) -> int:
        """Of the packed weight."""
        return sum(tensor.nbytes for tensor in self.packed)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        return Product.apply(x, self)


class Product(torch.autograd.Function):
    """x W' + b that keeps nothing but W as it is packed: backward unpacks it again."""

    @staticmethod
    def forward(ctx: object, x: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(*layer.packed)  # a streamed layer will have none by then
        return F.linear(x, layer.weight, layer.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.layer.unpacked(ctx.saved_tensors), None
