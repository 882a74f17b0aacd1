"""Adapted layers that read the same input, computed together: query, key and value of an attention.

They stay separate layers of peft, and the model calls them one after the other. The first call computes all of them and
leaves the others' outputs for the calls that follow with the very same input tensor; any other call is computed alone.
"""

from collections.abc import Iterable

import torch
from diffusers.models.attention_processor import Attention
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from trainers.adapters.adapter import NAME, pair
from trainers.adapters.fused import LoraLinears
from trainers.waiting import waits

# What an attention module calls them: diffusers' for the picture, for the text beside it (SD3), and CLIP's.
NAMES = (("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj"), ("q_proj", "k_proj", "v_proj"))
JOINS = 8  # times that base weights are laid side by side before something else is taken to keep them apart


class Siblings:
    """Linear layers of one shape whose base weights lie side by side in memory."""

    def __init__(self, layers: list[Linear]):
        self.layers = layers
        self.ready: tuple[Tensor, Tensor, list[int]] | None = None  # down [n r, in], up [n, out, r], their versions
        self._left: tuple[Tensor, bool, dict[int, Tensor]] | None = None  # input, gradients on, outputs not yet asked
        self._joins = 0

    def join(self) -> None:
        """Lay the base weights side by side now, and not in the first forward pass; streamed ones come so."""
        weight = self.layers[0].base_layer.weight
        if not waits(weight):
            self._weights(weight.dtype)

    def prepared(self, down: Tensor, up: Tensor) -> None:
        """Take the scaled factors of all, in the compute dtype: down [n r, in], up [n out, r]."""
        self.ready = (down, up.view(len(self.layers), -1, up.shape[1]), self._versions())

    def forget(self) -> None:
        """Of the forward pass before this one."""
        self.ready = self._left = None

    def take(self, layer: Linear, x: Tensor) -> Tensor | None:
        """The layer's output for x [..., in]; None where it has to be computed alone."""
        if torch.compiler.is_compiling():  # what is left for other calls is no part of a graph
            return None
        grad = torch.is_grad_enabled()
        if self._left is not None and self._left[0] is x and self._left[1] == grad:
            output = self._left[2].pop(id(layer), None)
            if not self._left[2]:
                self._left = None
            if output is not None:
                return output
        if self.ready is None:
            return None
        down, up, versions = self.ready
        if x.dtype != down.dtype or x.device != down.device or versions != self._versions():
            return None
        if grad and not down.requires_grad and pair(layer)[0].requires_grad:  # prepared for a pass without gradients
            return None
        weights = self._weights(x.dtype)
        if weights is None:
            return None
        outputs = dict(zip(map(id, self.layers), LoraLinears.apply(x, *weights, down, up), strict=True))
        output = outputs.pop(id(layer))
        self._left = (x, grad, outputs)
        return output

    def _versions(self) -> list[int]:
        return [factor._version for layer in self.layers for factor in pair(layer)]

    def _weights(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None] | None:
        """[n out, in] and [n out] or None: views of the base's own weights; None where they cannot be."""
        bases = [layer.base_layer for layer in self.layers]
        if any(type(base) is not nn.Linear or base.weight.dtype != dtype for base in bases):
            return None
        found = [_side_by_side([base.weight for base in bases])]
        if bases[0].bias is not None:
            found.append(_side_by_side([base.bias for base in bases]))
        if any(view is None for view in found):
            if self._joins == JOINS:
                return None
            self._joins += 1
            _join(bases, "weight")
            if bases[0].bias is not None:
                _join(bases, "bias")
            return self._weights(dtype)
        return found[0], found[1] if len(found) > 1 else None


def find_siblings(model: nn.Module, layers: Iterable[nn.Module]) -> list[Siblings]:
    """Groups of two or more of `layers` in one attention module that read the same input and have the same shape."""
    wanted, groups = {id(layer) for layer in layers}, []
    for parent in model.modules():
        for names in NAMES:
            if isinstance(parent, Attention) and parent.is_cross_attention:
                names = names[1:]  # the query reads the picture, key and value the text
            places = [i for i, name in enumerate(names) if id(getattr(parent, name, None)) in wanted]
            if not places or places != list(range(places[0], places[-1] + 1)):  # what streamed ones lie side by side in
                continue
            members = [getattr(parent, names[i]) for i in places]
            members = [layer for layer in members if type(layer.base_layer) is nn.Linear]  # a packed one stands alone
            if len(members) > 1 and len({_shape(layer) for layer in members}) == 1:
                groups.append(Siblings(members))
    return groups


def _shape(layer: Linear) -> tuple:
    base = layer.base_layer
    return (type(layer), type(base), base.weight.shape, base.weight.dtype, base.bias is None, layer.r[NAME])


def _side_by_side(parameters: list[nn.Parameter]) -> Tensor | None:
    """One view [n rows, ...] over frozen parameters that follow one another in one storage; else None."""
    first, storage = parameters[0], parameters[0].untyped_storage()._cdata
    start, size = first.storage_offset(), first.numel()
    for i, parameter in enumerate(parameters):
        apart = parameter.untyped_storage()._cdata != storage or parameter.storage_offset() != start + i * size
        if apart or parameter.requires_grad or not parameter.is_contiguous():
            return None
    shape = (len(parameters) * first.shape[0], *first.shape[1:])
    return first.detach().as_strided(shape, first.stride())


@torch.no_grad()
def _join(bases: list[nn.Linear], name: str) -> None:
    """Lay parameters of one shape side by side; they stay the same parameters with the same numbers."""
    parameters = [getattr(base, name) for base in bases]
    joined = torch.cat([parameter.detach() for parameter in parameters])
    for base, parameter, piece in zip(bases, parameters, joined.chunk(len(bases)), strict=True):
        if isinstance(parameter, FakeTensor):  # to put data into one of these breaks Python's memory (torch 2.13)
            setattr(base, name, nn.Parameter(piece, requires_grad=False))
        else:
            parameter.data = piece
