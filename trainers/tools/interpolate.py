"""Between two checkpoints of one architecture, or beyond: base + strength * (tuned - base), tensor by tensor."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainers.errors import UserError
from trainers.families.detect import FAMILY_LABELS
from trainers.families.ldm import is_extra
from trainers.tools import results, write_base
from trainers.tools.stored import Key, Stored, open_base, require_same_family
from trainers.tools.stream import Change


def interpolate(base: Path, tuned: Path, strength: float, out: Path) -> dict[str, Any]:
    """Write the checkpoint in the layout and the dtypes of `base`: 0 gives its numbers, 1 those of `tuned`.

    Raises:
        UserError: other families, layouts or sizes, or the result cannot be written.
    """
    path = results.target(out, [base, tuned], folder=base.is_dir())
    old, new = open_base(base), open_base(tuned)
    require_same_family(old, new)
    if old.is_folder != new.is_folder:
        message = f"{old.name} and {new.name} are in different layouts, a file and a folder."
        raise UserError(message, "Take both as checkpoint files, or both as diffusers folders.")
    changed: set[Key] = set()
    changes = _changes(old, new, strength, changed)
    write_base.write(old, path, changes, merged_from=[base.stem, tuned.stem])
    return {
        "checkpoint": str(path),
        "family": FAMILY_LABELS[old.family],
        "merged": results.shares([base, tuned], [1 - strength, strength]),
        "tensors changed": len(changed),
        "tensors kept": len(old.tensors) - len(changed),
    }


def _changes(old: Stored, new: Stored, strength: float, changed: set[Key]) -> dict[Key, Change]:
    """For every tensor that both have, how it changes; `changed` gets those whose numbers became others."""
    ours, theirs = old.tensors, new.tensors
    lacking = [key for key in ours.keys() ^ theirs.keys() if not (is_extra(key[1]) or _is_scale(key[1]))]
    shared = [key for key, file in ours.items() if key in theirs and file.dtype(key[1]) and theirs[key].dtype(key[1])]
    unlike = [key for key in shared if ours[key].shape(key[1]) != theirs[key].shape(key[1])]
    if lacking or unlike:
        what = "that only one of them has" if lacking else "of other sizes"
        names = sorted(name for _, name in lacking or unlike)
        message = f"{old.name} and {new.name} have {len(names)} tensors {what}, such as {names[0]}."
        raise UserError(message, "They must be of the same architecture.")
    return {key: _change(theirs[key].read, key, strength, changed) for key in shared if not _is_scale(key[1])}


def _is_scale(name: str) -> bool:
    """Whether it is the scale of an fp8 weight, which is read with it."""
    return name.endswith((".scale_weight", ".weight_scale"))


def _change(read: Callable[[str], Tensor], key: Key, strength: float, changed: set[Key]) -> Change:
    def change(tensor: Tensor) -> Tensor:
        other = read(key[1]).to(tensor.dtype)
        mixed = torch.lerp(tensor, other, strength)  # exact at 0 and at 1
        if not torch.equal(mixed, tensor):
            changed.add(key)
        return mixed

    return change
