"""One adapted layer's update by adapter type: its tensors, the delta-W they stand for, and what files call them.

Formulas and names are those of LyCORIS and ComfyUI (comfy/weight_adapter). W is the base's weight, [out, in] or
[out, in, kh, kw]; the scale is alpha / rank.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

Shape = tuple[int, ...]


class Update:
    """What the types share. Fields that are tensors are trained; their names are those in checkpoints."""

    label: ClassVar[str]
    alpha: float

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are there, by field name."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in values if isinstance(value, Tensor)}

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def idle(self) -> bool:
        """Whether a factor is zero, so that the update is."""
        return any(not tensor.any() for tensor in self.tensors().values())

    def stored(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Copies in `dtype` on the CPU, named by the endings of kohya and LyCORIS. Cast last.

        alpha is 0-dim, and in fp32 where `dtype` would round it: it scales the whole layer.
        """
        result = {ENDINGS.get(name, name): stored(tensor, dtype) for name, tensor in self.tensors().items()}
        exact, cast = torch.tensor(self.alpha, dtype=torch.float32), torch.tensor(self.alpha, dtype=dtype)
        return result | {"alpha": cast if cast == exact else exact}

    def _shaped(self, flat: Tensor, base: Tensor | None) -> Tensor:
        return flat if base is None else flat.reshape(base.shape)


@dataclass(frozen=True)
class LoraWeights(Update):
    """delta W = alpha / rank * up @ down [Hu et al. 2021].

    down [rank, in] or [rank, in, kh, kw]; up [out, rank] or [out, rank, 1, 1].
    """

    label: ClassVar[str] = "LoRA"
    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def delta(self, base: Tensor | None = None) -> Tensor:
        """delta W in fp32, in the shape of the base weight; that need not be given."""
        down, up = _plain(self.down), _plain(self.up)
        product = up.flatten(1) @ down.flatten(1)
        return self._shaped((product * self.scale).reshape(len(up), *down.shape[1:]), base)

    def fitted(self, shape: Shape) -> Self | None:
        """With matrices of a weight's own dimensions (1x1 convolutions are stored 2-D or 4-D); None if unfit."""
        rank = self.rank
        down, up = (rank, *shape[1:]), (shape[0], rank, *(1 for _ in shape[2:]))
        if self.up.shape[:2] != up[:2] or self.down.shape[1] != shape[1]:
            return None
        if self.down.numel() != math.prod(down) or self.up.numel() != math.prod(up):
            return None
        return replace(self, down=self.down.reshape(down), up=self.up.reshape(up))

    def rescaled(self, alpha: float) -> Self:
        """The same delta W under another alpha; reckoned in fp32, whatever a file held."""
        return replace(self, up=self.up.float() * (self.alpha / alpha), alpha=alpha)


@dataclass(frozen=True)
class DoraWeights(LoraWeights):
    """delta W = m * (W + s up down) / |W + s up down| - W [Liu et al. 2024].

    The norm is over each output row where m is [out, 1] or [out, 1, 1, 1], over each input column where it is [1, in]
    or [1, in, 1, 1].
    """

    label: ClassVar[str] = "DoRA"
    magnitude: Tensor

    @property
    def lora(self) -> LoraWeights:
        """The update before it is normalised."""
        return LoraWeights(self.down, self.up, self.alpha)

    @property
    def by_output(self) -> bool:
        return self.magnitude.shape[0] == len(self.up)

    @property
    def idle(self) -> bool:
        return self.lora.idle

    def delta(self, base: Tensor | None = None) -> Tensor:
        """delta W in fp32, in the shape of the base weight, which must be given."""
        if base is None:
            raise ValueError("a DoRA's delta depends on the base weight")
        weight = _plain(base)
        merged = weight + self.lora.delta(base).to(weight.device)
        axis = 0 if self.by_output else 1
        norm = torch.linalg.vector_norm(merged, dim=[d for d in range(merged.ndim) if d != axis], keepdim=True)
        magnitude = _plain(self.magnitude).to(weight.device).reshape(norm.shape)
        return magnitude * merged / norm - weight

    def fitted(self, shape: Shape) -> Self | None:
        lora = self.lora.fitted(shape)
        axis = 0 if self.by_output else 1
        if lora is None or self.magnitude.numel() != shape[axis]:
            return None
        ones = [1] * len(shape)
        ones[axis] = shape[axis]
        return replace(self, down=lora.down, up=lora.up, magnitude=self.magnitude.reshape(ones))


@dataclass(frozen=True)
class LohaWeights(Update):
    """delta W = alpha / rank * (w1_a w1_b) o (w2_a w2_b), o entry by entry [Hyeon-Woo et al. 2022].

    a [out, rank], b [rank, in * kh * kw]. With Tucker's core t [rank, rank, kh, kw]: a [rank, out], b [rank, in].
    """

    label: ClassVar[str] = "LoHa"
    hada_w1_a: Tensor
    hada_w1_b: Tensor
    hada_w2_a: Tensor
    hada_w2_b: Tensor
    alpha: float
    hada_t1: Tensor | None = None
    hada_t2: Tensor | None = None

    @property
    def rank(self) -> int:
        return self.hada_w1_b.shape[0]

    def delta(self, base: Tensor | None = None) -> Tensor:
        """delta W in fp32; without a base weight a convolution's is [out, in * kh * kw], but 4-D with a core."""
        one = _product(self.hada_w1_a, self.hada_w1_b, self.hada_t1)
        other = _product(self.hada_w2_a, self.hada_w2_b, self.hada_t2)
        return self._shaped(one * other * self.scale, base)

    @property
    def shape(self) -> Shape:
        """Of delta-W, as far as the tensors tell it; empty where they do not go together."""
        one = _product_shape(self.hada_w1_a, self.hada_w1_b, self.hada_t1)
        return one if one == _product_shape(self.hada_w2_a, self.hada_w2_b, self.hada_t2) else ()

    def fitted(self, shape: Shape) -> Self | None:
        return self if self.shape in (tuple(shape), _flat(shape)) else None

    def rescaled(self, alpha: float) -> Self:
        return replace(self, hada_w1_a=self.hada_w1_a.float() * (self.alpha / alpha), alpha=alpha)


@dataclass(frozen=True)
class LokrWeights(Update):
    """delta W = alpha / rank * kron(w1, w2), each whole or a product a b of that rank [Yeh et al. 2024].

    w1 [out 1, in 1]; w2 [out 2, in 2] or [out 2, in 2, kh, kw], as a product [out 2, rank] [rank, in 2 * kh * kw]. With
    Tucker's core t2 [rank, rank, kh, kw]: w2_a [rank, out 2], w2_b [rank, in 2]. Where both are whole there is no rank:
    it counts as 1, and in files the scale is inside w1, since readers take 1 for it.
    """

    label: ClassVar[str] = "LoKr"
    alpha: float
    lokr_w1: Tensor | None = None
    lokr_w1_a: Tensor | None = None
    lokr_w1_b: Tensor | None = None
    lokr_w2: Tensor | None = None
    lokr_w2_a: Tensor | None = None
    lokr_w2_b: Tensor | None = None
    lokr_t2: Tensor | None = None

    @property
    def whole(self) -> bool:
        return self.lokr_w1 is not None and self.lokr_w2 is not None

    @property
    def rank(self) -> int:
        second = self.lokr_w2_b if self.lokr_w2 is None else self.lokr_w1_b
        return 1 if self.whole else second.shape[0]

    @property
    def first_shape(self) -> Shape:
        """[out 1, in 1]."""
        return _product_shape(self.lokr_w1_a, self.lokr_w1_b) if self.lokr_w1 is None else tuple(self.lokr_w1.shape)

    @property
    def shape(self) -> Shape:
        """Of delta-W, as far as the tensors tell it; empty where they do not go together."""
        one = self.first_shape
        product = self.lokr_w2 is None
        two = _product_shape(self.lokr_w2_a, self.lokr_w2_b, self.lokr_t2) if product else tuple(self.lokr_w2.shape)
        return (one[0] * two[0], one[1] * two[1], *two[2:]) if len(one) == 2 and len(two) >= 2 else ()

    def delta(self, base: Tensor | None = None) -> Tensor:
        """delta W in fp32; without a base weight a convolution's may be [out, in * kh * kw]."""
        w1 = _plain(self.lokr_w1) if self.lokr_w1 is not None else _product(self.lokr_w1_a, self.lokr_w1_b)
        if self.lokr_w2 is not None:
            w2 = _plain(self.lokr_w2)
        else:
            w2 = _product(self.lokr_w2_a, self.lokr_w2_b, self.lokr_t2)
        w1 = w1.reshape(*w1.shape, *(1 for _ in w2.shape[2:]))
        return self._shaped(torch.kron(w1, w2.contiguous()) * self.scale, base)

    def stored(self, dtype: torch.dtype) -> dict[str, Tensor]:
        return Update.stored(self.rescaled(1.0) if self.whole else self, dtype)

    def fitted(self, shape: Shape) -> Self | None:
        return self if self.shape in (tuple(shape), _flat(shape)) else None

    def rescaled(self, alpha: float) -> Self:
        first = "lokr_w1" if self.lokr_w1 is not None else "lokr_w1_a"
        return replace(self, alpha=alpha, **{first: getattr(self, first).float() * (self.alpha / alpha)})


Weights = LoraWeights | DoraWeights | LohaWeights | LokrWeights
ENDINGS = {"down": "lora_down.weight", "up": "lora_up.weight", "magnitude": "dora_scale"}  # others are called the same


def weights_of(tensors: Mapping[str, Tensor], alpha: float) -> Weights:
    """The update that a peft layer's tensors, by their names in checkpoints, stand for.

    peft's magnitude, [out] or [1, out, 1, 1], becomes a column, [out, 1] or [out, 1, 1, 1].
    """
    if "magnitude" in tensors:
        up = tensors["up"]
        column = tensors["magnitude"].reshape(len(up), 1, *(1 for _ in up.shape[2:]))
        return DoraWeights(**{**tensors, "magnitude": column}, alpha=alpha)
    if "down" in tensors:
        return LoraWeights(**tensors, alpha=alpha)
    return (LohaWeights if "hada_w1_a" in tensors else LokrWeights)(**tensors, alpha=alpha)


def stored(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy on the CPU in a file's dtype."""
    return weight.detach().to("cpu", torch.float32).to(dtype).contiguous().clone()


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().float()


def _product(a: Tensor, b: Tensor, core: Tensor | None = None) -> Tensor:
    """a b [m, n]; with a core [r, s, kh, kw], a [r, m], b [s, n]: [m, n, kh, kw]."""
    a, b = _plain(a), _plain(b)
    return a @ b if core is None else torch.einsum("r s k l, r m, s n -> m n k l", _plain(core), a, b)


def _product_shape(a: Tensor, b: Tensor, core: Tensor | None = None) -> Shape:
    """The shape of `_product`; empty where the tensors do not go together."""
    if a.ndim != 2 or b.ndim != 2:
        return ()
    if core is None:
        return (a.shape[0], b.shape[1]) if a.shape[1] == b.shape[0] else ()
    return (a.shape[1], b.shape[1], *core.shape[2:]) if core.shape[:2] == (len(a), len(b)) else ()


def _flat(shape: Shape) -> Shape:
    """[out, in * kh * kw]."""
    return shape[0], math.prod(shape[1:])
