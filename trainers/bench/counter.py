"""Counts what a training step asks of the machine: operator dispatches, host syncs and floating-point operations."""

import math
from collections import Counter, defaultdict

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import addmm_flop, baddbmm_flop, flop_registry, sdpa_backward_flop_count, sdpa_flop_count

# These only rename memory: no kernel runs.
VIEWS = frozenset(
    "alias as_strided chunk detach diagonal expand permute reshape select slice split split_with_sizes squeeze t "
    "transpose unbind unfold unsqueeze view _unsafe_view _reshape_alias lift_fresh".split()
)
SYNCS = frozenset(["_local_scalar_dense", "nonzero", "is_nonzero", "masked_select"])  # the host waits for a value
PHASES = ("forward", "backward", "optimizer")

aten = torch.ops.aten


def _attention(query, key, value, *_, out_val=None, **__):  # noqa: ANN001, ANN202 - an operator's own arguments
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(grad, query, key, value, *_, out_val=None, **__):  # noqa: ANN001, ANN202
    return sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape)


def _prepacked(x, weight, *_, out_val=None, **__):  # noqa: ANN001, ANN202 - of trainers/prepacked.py
    return 2 * out_val.numel() * math.prod(weight.shape[1:])


def _transposed(x, weight, *_, out_val=None, **__):  # noqa: ANN001, ANN202 - their backward pass
    return 2 * x.numel() * out_val.shape[1] * math.prod(weight.shape[2:])


FLOPS = {  # torch's table does not know the products in place, nor the CPU's attention and its prepacked convolutions
    **flop_registry,
    aten.addmm_: addmm_flop,
    aten.baddbmm_: baddbmm_flop,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    torch.ops.mkldnn._convolution_pointwise: _prepacked,
    torch.ops.mkldnn._convolution_transpose_pointwise: _transposed,
}


class DispatchCounter(TorchDispatchMode):
    """Counts non-view ATen operators, host syncs and FLOPs per phase (set `phase` as the step goes on)."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = PHASES[0]
        self.flops: Counter[str] = Counter()
        self.syncs = 0
        self.names: defaultdict[str, Counter[str]] = defaultdict(Counter)  # phase -> operator -> times

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled code runs under this mode, too, and calls for what it takes from libraries."""
        return True

    @property
    def dispatches(self) -> dict[str, int]:
        return {phase: sum(names.values()) for phase, names in self.names.items()}

    @property
    def by_name(self) -> Counter[str]:
        return sum(self.names.values(), Counter())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        packet, kwargs = func.overloadpacket, kwargs or {}
        if func.namespace not in ("aten", "mkldnn"):  # questions about a tensor
            return func(*args, **kwargs)
        name = packet.__name__
        if name in SYNCS or (name in ("_to_copy", "copy_") and _leaves_the_device(name, args, kwargs)):
            self.syncs += 1
        if name not in VIEWS and not name.startswith("_record_function"):
            self.names[self.phase][name] += 1
        result = func(*args, **kwargs)
        if packet in FLOPS:
            self.flops[self.phase] += FLOPS[packet](*args, **kwargs, out_val=result)
        return result


def _leaves_the_device(name: str, args: tuple, kwargs: dict) -> bool:
    """Whether a copy brings numbers to the CPU, which waits for them."""
    if name == "copy_":
        return args[0].device.type == "cpu" and args[1].device.type not in ("cpu", "meta")
    target = kwargs.get("device")
    return target is not None and torch.device(target).type == "cpu" and args[0].device.type not in ("cpu", "meta")
