"""Stable Diffusion 3's joint blocks as kohya names them: query, key and value are one layer there, and three here."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from trainers.adapters import names_sd3
from trainers.adapters.adapter import DENOISER, Place
from trainers.adapters.weights import LoraWeights

PREFIX = "lora_unet_"


Group = tuple[Place | None, ...]  # what one original layer stands for, in the order of its rows; None: not there


def groups(places: Iterable[Place]) -> dict[str, Group]:
    """kohya's name of every original layer that covers some of `places`."""
    paths = {path for part, path in places if part == DENOISER and names_sd3.is_known(path)}
    originals = dict.fromkeys(names_sd3.to_original(path) for path in sorted(paths))
    return {
        _name(original): tuple((DENOISER, p) if p in paths else None for p in names_sd3.from_original(original))
        for original in originals
    }


def fuse(modules: Mapping[Place, LoraWeights]) -> dict[str, LoraWeights]:
    """kohya's name -> one update: the downs stacked, the ups block-diagonal, so that the rank is the sum.

    alpha grows with the rank, since readers divide by it. Parts that share one down keep it, and the rank.
    """
    members: dict[str, list[tuple[int, int, str, LoraWeights]]] = {}
    for (_, path), update in modules.items():
        original = names_sd3.to_original(path)
        own = names_sd3.from_original(original)
        members.setdefault(original, []).append((own.index(path), len(own), path, update))
    return {_name(original): _joined(parts) for original, parts in members.items()}


def split(update: LoraWeights, group: Group) -> dict[Place, LoraWeights]:
    """One update of an original layer -> those of its parts: rows cut apart, without ranks that do nothing there."""
    if len(group) == 1:
        return {group[0]: _turned(group[0][1], update)}
    ups = update.up.chunk(len(group))
    return {place: _trimmed(update, up) for place, up in zip(group, ups, strict=True) if place}


def _joined(parts: list[tuple[int, int, str, LoraWeights]]) -> LoraWeights:
    if parts[0][1] == 1:
        return _turned(*parts[0][2:])
    parts = sorted(parts, key=lambda part: part[0])
    first = parts[0][3]
    scale, rows = first.scale, len(first.up)
    if len(parts) == parts[0][1] and all(_share(first, update) for *_, update in parts[1:]):
        return replace(first, up=torch.cat([update.up for *_, update in parts]))
    downs, ups = [], []
    for index, count, _, update in parts:
        column = torch.zeros(count * rows, update.rank, device=update.up.device)
        column[index * rows : (index + 1) * rows] = update.up.float() * (update.scale / scale)
        downs.append(update.down)
        ups.append(column)
    down = torch.cat(downs)
    return LoraWeights(down, torch.cat(ups, dim=1), scale * len(down))


def _share(one: LoraWeights, other: LoraWeights) -> bool:
    """Whether both read their input alike, as the parts of a fused layer do: then they are one layer again."""
    if one.down.is_meta:  # sizes without numbers
        return False
    return one.alpha == other.alpha and torch.equal(one.down, other.down)


def _trimmed(update: LoraWeights, up: Tensor) -> LoraWeights:
    used = up.ne(0).any(dim=0)
    used[0] |= not used.any()  # a rank of at least 1
    return LoraWeights(update.down[used], up[:, used].contiguous(), update.scale * int(used.sum()))


def _turned(path: str, update: LoraWeights) -> LoraWeights:
    """With scale and shift in the other order, where the layer gives just these two: in the last block and after."""
    ends = path.endswith(".norm1_context.linear") or path == "norm_out.linear"
    if not ends or len(update.up) != 2 * update.down.shape[1]:
        return update
    first, second = update.up.chunk(2)
    return replace(update, up=torch.cat([second, first]))


def _name(original: str) -> str:
    return PREFIX + original.replace(".", "_")
