"""How much an adapter changes each module, and whether its numbers are sound, read tensor by tensor from the file."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from trainers.export.contents import WEIGHTS, Contents
from trainers.export.modules import TUCKER, Module

Parts = Mapping[str, Tensor]
ROWS = 128  # of a LoHa's product that are reckoned


@dataclass(frozen=True)
class Weights:
    """Frobenius norms of each module's delta-W; None where only the base could tell it."""

    norms: dict[str, float | None]
    broken: tuple[str, ...]  # keys with NaN or infinity
    zeros: tuple[str, ...]  # modules that change nothing
    unfit: tuple[str, ...] = ()  # modules whose matrices do not fit one another, or lack one


def weigh(path: Path, contents: Contents) -> Weights:
    """Read every module once. A DoRA counts without its magnitudes, for they need the base's weights."""
    norms: dict[str, float | None] = {}
    broken, unfit = [], []
    with safe_open(path / WEIGHTS if path.is_dir() else path, "pt") as file:
        for name, module in contents.modules.items():
            parts = {part: file.get_tensor(key) for part, key in module.keys.items()}
            bad = [module.keys[part] for part, tensor in parts.items() if not _sound(tensor)]
            broken += bad
            try:
                norms[name] = None if bad else norm(module, parts, contents.alphas[name])
            except (KeyError, IndexError, RuntimeError):  # torch says so of sizes that do not go together
                norms[name] = None
                unfit.append(name)
    zeros = [name for name, size in norms.items() if size == 0]
    return Weights(norms, tuple(broken), tuple(zeros), tuple(unfit))


def norm(module: Module, parts: Parts, alpha: float | None) -> float | None:
    """Frobenius norm of delta-W."""
    formula = FORMULAS.get(module.type)
    if formula is None:
        return None
    full = module.type == "LoKr" and {"lokr_w1", "lokr_w2"} <= parts.keys()  # LyCORIS: no scale then
    scale = 1.0 if alpha is None or full or not module.rank else alpha / module.rank
    return abs(scale) * formula({part: tensor.float() for part, tensor in parts.items()})


def _product(parts: Parts) -> float:
    """|up down|^2 = sum (up'up * down down'): two small matrices instead of a large one."""
    return _gram(parts["up"].flatten(1), parts["down"].flatten(1))


def _tucker(parts: Parts) -> float:
    """up [out, r], mid [r, r, kh, kw], down [r, in]."""
    inner = torch.einsum("ijkl,jm->imkl", parts["mid"], parts["down"].flatten(1))
    return _gram(parts["up"].flatten(1), inner.flatten(1))


def _hadamard(parts: Parts) -> float:
    """(w1_a w1_b) * (w2_a w2_b); with t1 and t2 each a Tucker product.

    The product has the size of the base's weight, so it is reckoned from some of its rows: exact to a few percent.
    """
    sides, rows = [], 0
    for i in "12":
        a, b, t = parts[f"hada_w{i}_a"], parts[f"hada_w{i}_b"], parts.get(f"hada_t{i}")
        a = a if t is None else a.transpose(0, 1)  # [out, r]; a Tucker product stores [r, out]
        rows = a.shape[0]
        a = a[:: max(1, math.ceil(rows / ROWS))]
        sides.append(a @ b if t is None else torch.einsum("ijkl,jm,ni->nmkl", t, b, a).flatten(1))
    return float((sides[0] * sides[1]).norm()) * math.sqrt(rows / max(1, len(sides[0])))


def _kronecker(parts: Parts) -> float:
    """|kron(w1, w2)| = |w1| |w2|."""
    return math.prod(_factor(parts, i) for i in "12")


def _factor(parts: Parts, i: str) -> float:
    if f"lokr_w{i}" in parts:
        return float(parts[f"lokr_w{i}"].norm())
    a, b, t = parts[f"lokr_w{i}_a"], parts[f"lokr_w{i}_b"], parts.get(f"lokr_t{i}")
    return (
        float(torch.einsum("ijkl,jm,in->nmkl", t, b, a).norm()) if t is not None else _gram(a.flatten(1), b.flatten(1))
    )


def _difference(parts: Parts) -> float:
    return float(parts["diff"].norm()) if "diff" in parts else 0.0


FORMULAS: dict[str, Callable[[Parts], float]] = {
    "LoRA": _product,
    "DoRA": _product,
    TUCKER: _tucker,
    "LoHa": _hadamard,
    "LoKr": _kronecker,
    "full difference": _difference,
}


def _gram(left: Tensor, right: Tensor) -> float:
    """Norm of left @ right, in fp64 since it is a square root of a sum with cancellation."""
    left, right = left.double(), right.double()
    return math.sqrt(max(0.0, float(((left.T @ left) * (right @ right.T)).sum())))


def _sound(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor.float()).all())
