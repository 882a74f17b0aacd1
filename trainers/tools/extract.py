"""A LoRA out of two checkpoints: the best low-rank approximation of what differs in each layer."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainers.adapters.adapter import DENOISER, Place
from trainers.adapters.weights import LoraWeights
from trainers.errors import UserError
from trainers.export.layers.families import SD3_SIZES
from trainers.export.which_base import Base
from trainers.families.detect import FAMILY_LABELS
from trainers.families.registry import FAMILIES
from trainers.tools import results
from trainers.tools.factors import Limit, plain
from trainers.tools.stored import Stored, open_base, require_same_family

SAME = 1e-6  # relative difference of two weights in one dtype, below which it is rounding of whoever saved them
PREDICTION = "modelspec.prediction_type"
EVERY = 50  # layers between two notes
CONVOLUTIONS = ("resnets", "downsamplers", "upsamplers")  # where only --conv-rank looks, as LoCon does


@dataclass(frozen=True)
class Wanted:
    """How much of a layer is kept; convolutions (and what is beside them in resnets) only if `conv_rank` is given."""

    limit: Limit
    conv_rank: int | None = None

    def of(self, place: Place, shape: tuple[int, ...]) -> Limit | None:
        """None: the layer is not looked at."""
        part, path = place
        if part != DENOISER:
            return self.limit if ".layers." in path else None  # CLIP's; T5 is not extracted
        if any(word in path for word in CONVOLUTIONS):
            wide = len(shape) == 4 and max(shape[2:]) > 1
            return None if self.conv_rank is None else Limit(self.conv_rank, self.limit.keep) if wide else self.limit
        return self.limit if "attentions." in path or path.startswith("transformer_blocks.") else None


def extract(
    tuned: Path,
    base: Path,
    out: Path,
    wanted: Wanted,
    dtype: str = "fp16",
    form: str | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write the adapter that turns `base` into `tuned`, and tell how near it comes.

    `note` hears how far it is. The checkpoints may be files or diffusers folders, one of each too. Layers that are
    equal but for rounding are left out.

    Raises:
        UserError: no base models, of different families or sizes, nothing differs, wrong options, or the file cannot
            be written.
    """
    new, old = open_base(tuned), open_base(base)
    require_same_family(old, new)
    results.require_limits(wanted.limit.rank, wanted.limit.keep)
    results.require_limits(wanted.conv_rank, None, needed=False)
    results.require_output(dtype, form)
    path = results.target(out, [tuned, base])
    shared = _shared(new, old)
    modules: dict[Place, LoraWeights] = {}
    errors, skipped = results.Errors(), Counter()
    for place, delta in _differences(new, old, shared, note):
        limit = wanted.of(place, tuple(delta.shape))
        if limit is None:
            skipped[_why(place)] += 1
            continue
        modules[place], lost, whole = plain(delta, limit)
        errors.add(place, lost, whole)
    if not modules:
        hint = "Only convolutions differ: give --conv-rank." if skipped else "An adapter would change nothing."
        raise UserError(f"{new.name} and {old.name} have the same weights in every layer that is looked at.", hint)
    kind = kind_of(old)
    entries = results.fresh(kind, path.stem, [{PREDICTION: old.prediction}, new.files_metadata, old.files_metadata])
    entries |= {"ss_sd_model_name": old.name, "modelspec.merged_from": f"{new.name} - {old.name}"}
    report = results.save(modules, results.sized(modules, entries), kind, path, dtype, form or _form(kind))
    return {
        **results.written(report),
        "family": FAMILY_LABELS[old.family],
        "rank": results.counts(module.rank for module in modules.values()),
        "error": errors.total,
        "error by block": errors.by_group(),
        "equal layers": len(shared) - len(modules) - sum(skipped.values()),
        "differ, but left out": dict(skipped),
    }


def kind_of(stored: Stored) -> Base:
    """The kind of base, with the size of a Stable Diffusion 3."""
    if stored.family != "sd3":
        return Base(stored.family, FAMILY_LABELS[stored.family])
    blocks = {int(path.split(".")[1]) for _, path in stored.spots if path.startswith("transformer_blocks.")}
    dual = any(".attn2." in path for _, path in stored.spots)
    large = 1 + max(blocks) >= SD3_SIZES["3.5-large"].blocks
    return Base("3.5-large" if large else "3.5-medium" if dual else "3-medium", FAMILY_LABELS["sd3"])


def _shared(new: Stored, old: Stored) -> list[Place]:
    """The layers of both, which must have the same sizes."""
    shared = [place for place in old.spots if place in new.spots]
    unlike = [place for place in shared if old.shape(place) != new.shape(place)]
    unlike = [p for p in unlike if [s for s in old.shape(p) if s > 1] != [s for s in new.shape(p) if s > 1]]
    if unlike or not shared:
        what = f"{len(unlike)} layers of other sizes, such as {unlike[0][1]}" if unlike else "no layer in common"
        raise UserError(f"{new.name} and {old.name} have {what}.", "They must be of the same architecture.")
    return shared


def _differences(
    new: Stored, old: Stored, places: list[Place], note: Callable[[str], None]
) -> Iterator[tuple[Place, Tensor]]:
    """What differs by more than rounding, layer by layer, in fp64."""
    for i, place in enumerate(places):
        if i and i % EVERY == 0:
            note(f"{i} of {len(places)} layers ...")
        before = old.weight(place).double()
        delta = new.weight(place).double().reshape(before.shape) - before
        size = float(torch.linalg.vector_norm(before))
        if float(torch.linalg.vector_norm(delta)) > _rounding(new, old, place) * size:
            yield place, delta


def _rounding(new: Stored, old: Stored, place: Place) -> float:
    """How far apart, relatively, the same weight may be in two files: half a unit of the coarser dtype."""
    dtypes = {one.file_of(spot).dtype(spot.name) for one, spot in ((new, new.spots[place]), (old, old.spots[place]))}
    return SAME if len(dtypes) == 1 else max(torch.finfo(dtype).eps / 2 for dtype in dtypes)


def _why(place: Place) -> str:
    if any(word in place[1] for word in CONVOLUTIONS):
        return "convolutions (--conv-rank takes them)"
    return "layers that no program reads from an adapter"


def _form(kind: Base) -> str:
    return FAMILIES[kind.family].spec.layouts[0]
