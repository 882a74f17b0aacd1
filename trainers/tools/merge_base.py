"""Adapters into a base model: a checkpoint in the layout that came in, with the updates added to its weights."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from trainers.adapters.adapter import Place
from trainers.adapters.weights import Weights
from trainers.errors import UserError
from trainers.export.embedding import needed, usage
from trainers.families.detect import FAMILY_LABELS
from trainers.tools import results, write_base
from trainers.tools.opened import Opened, open_adapter
from trainers.tools.places import Spot
from trainers.tools.stored import Key, Stored, open_base, put, seen
from trainers.tools.stream import Change

Parts = list[tuple[float, Weights]]  # strength and update of each adapter


def merge_base(base: Path, paths: Sequence[Path], weights: Sequence[float], out: Path) -> dict[str, Any]:
    """Write the base with every adapter merged at its weight, and tell of it.

    Each tensor keeps its dtype, and those that no adapter changes their bytes.

    Raises:
        UserError: another family, matrices of other sizes than the base's, or the result cannot be written.
    """
    path = results.target(out, [base, *paths], folder=base.is_dir())
    stored = open_base(base)
    adapters = [open_adapter(one, stored.family) for one in paths]
    updates: dict[Place, Parts] = {}
    lacking: list[str] = []
    for adapter, weight in zip(adapters, weights, strict=True):
        found, missing = _fitted(stored, adapter)
        lacking += [f"{adapter.name}: {path}" for path in missing]
        lacking += [f"{adapter.name}: {key}" for key in adapter.left_out]
        for place, update in found.items():
            updates.setdefault(place, []).append((weight, update))
    changes = _changes(stored, updates)
    write_base.write(stored, path, changes, merged_from=[base.stem, *(one.path.stem for one in adapters)])
    return {
        "checkpoint": str(path),
        "family": FAMILY_LABELS[stored.family],
        "merged": results.shares(paths, weights),
        "layers changed": len(updates),
        "tensors changed": len(changes),
        "tensors kept": len(stored.tensors) - len(changes),
        "still needs": [f"{name}: {usage(name)}" for name in needed(adapter.metadata for adapter in adapters)],
        "left out": lacking,
    }


def _fitted(stored: Stored, adapter: Opened) -> tuple[dict[Place, Weights], list[str]]:
    """(the updates in the shapes of the base's weights, paths of layers that the base lacks)."""
    if adapter.base.family != stored.family:
        labels = f"{adapter.base.label}, and {stored.name} is {FAMILY_LABELS[stored.family]}"
        raise UserError(f"{adapter.name} is for {labels}.", "Choose a base of the adapter's family.")
    modules = adapter.modules
    there = {place: update.fitted(stored.shape(place)) for place, update in modules.items() if place in stored.spots}
    unfit = [place[1] for place, update in there.items() if update is None]
    if unfit or not there:
        what = f"{len(unfit)} layers in other sizes, such as {unfit[0]}" if unfit else "none of its layers"
        message = f"{adapter.name} does not fit {stored.name}, which has {what}."
        raise UserError(message, "Choose the base that it was trained on (`darkroom inspect` names it).")
    return there, [place[1] for place in modules if place not in stored.spots]


def _changes(stored: Stored, updates: Mapping[Place, Parts]) -> dict[Key, Change]:
    """For every stored tensor with an update in it, how it changes."""
    layers: dict[Key, list[tuple[Spot, Parts]]] = {}
    for place, parts in updates.items():
        spot = stored.spots[place]
        layers.setdefault((spot.part, spot.name), []).append((spot, parts))
    return {key: _change(found) for key, found in layers.items()}


def _change(layers: Sequence[tuple[Spot, Parts]]) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        new = tensor.clone()
        for spot, parts in layers:
            base = seen(tensor, spot)
            deltas = [strength * update.delta(base) for strength, update in parts]  # each from the base itself
            put(new, spot, base + sum(deltas))
        return new

    return change
