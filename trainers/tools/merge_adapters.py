"""Several adapters of one family as one adapter: the weighted sum of their updates, exact or at a lower rank."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainers.adapters.adapter import Place
from trainers.adapters.weights import LoraWeights
from trainers.errors import UserError
from trainers.export.embedding import NEEDS, needed
from trainers.tools import results
from trainers.tools.factors import Limit, plain, stacked, summed
from trainers.tools.opened import Opened, as_matrix, open_adapter, refuse_dora, require_one_family

HOW = ("concat", "svd")


def merge_adapters(
    paths: Sequence[Path],
    weights: Sequence[float],
    out: Path,
    how: str = "concat",
    limit: Limit = Limit(),  # noqa: B008 - frozen
    dtype: str | None = None,
    form: str | None = None,
) -> dict[str, Any]:
    """Write the sum of weight times delta-W of each adapter, and tell of it.

    `concat` stacks the matrices, so that ranks add up and nothing is lost; `svd` takes the best approximation within
    `limit`. LoHa and LoKr become plain LoRAs first, within `limit` too.

    Raises:
        UserError: adapters of several families or sizes, a DoRA, wrong options, or the file cannot be written.
    """
    results.require_choice(how, HOW, "--how")
    results.require_output(dtype, form)
    results.require_limits(limit.rank, limit.keep, needed=how == "svd")
    path = results.target(out, paths)
    adapters = [open_adapter(one) for one in paths]
    require_one_family(adapters)
    for adapter in adapters:
        refuse_dora(adapter, "it cannot be merged without it")
    errors, turned = results.Errors(), Counter()
    plains = [_plain(adapter, limit, turned) for adapter in adapters]
    modules = {}
    for place in dict.fromkeys(place for own in plains for place in own):
        parts = [(own[place], weight) for own, weight in zip(plains, weights, strict=True) if place in own]
        updates, shares = [update for update, _ in parts], [weight for _, weight in parts]
        _require_one_size(place, updates)
        if how == "concat":
            modules[place] = stacked(updates, shares)
        else:
            modules[place], lost, whole = summed(updates, shares, limit)
            errors.add(place, lost, whole)
    base = adapters[0].base
    entries = results.fresh(base, path.stem, [adapter.metadata for adapter in adapters])
    words = needed(adapter.metadata for adapter in adapters)
    if len(words) > 1:
        message = f"These adapters need embedding files of their own ({', '.join(words)}), and a merged one names one."
        raise UserError(message, "Merge those that share one, or use the adapters side by side.")
    entries |= {NEEDS: words[0]} if words else {}
    entries["modelspec.merged_from"] = ", ".join(one.path.stem for one in adapters)
    formats = {one.dtype for one in adapters}
    dtype = dtype or (formats.pop() if len(formats) == 1 else "fp32")  # no half precision holds the other's numbers
    form = form or adapters[0].spec.layouts[0]
    report = results.save(modules, results.sized(modules, entries), base, path, dtype, form)
    return {
        **results.written(report),
        "family": base.label,
        "merged": results.shares(paths, weights),
        "rank": results.counts(module.rank for module in modules.values()),
        "error of the approximation": errors.total if how == "svd" else "",
        "turned to plain LoRA": dict(turned),
        "needs beside it": words,
        "left out": [f"{one.name}: {key}" for one in adapters for key in one.left_out],
    }


def _plain(adapter: Opened, limit: Limit, turned: Counter[str]) -> dict[Place, LoraWeights]:
    """The updates as LoRAs; `turned` counts those that were of another type."""
    found = {}
    for place, update in adapter.modules.items():
        if type(update) is not LoraWeights:
            turned[update.label] += 1
            update = plain(as_matrix(update, place, adapter.base), limit)[0]
        found[place] = update
    return found


def _require_one_size(place: Place, updates: Sequence[LoraWeights]) -> None:
    sizes = {(len(update.up), update.down[0].numel()) for update in updates}
    if len(sizes) > 1:
        shown = " and ".join(f"{out}x{into}" for out, into in sorted(sizes))
        raise UserError(f"The adapters have {place[1]} in different sizes ({shown}).", "They are for different bases.")
