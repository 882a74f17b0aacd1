"""An adapter at a lower rank: each layer's best approximation, by a rank or by the share of its energy that stays."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainers.adapters.weights import DoraWeights, LoraWeights, Weights
from trainers.tools import results
from trainers.tools.factors import Limit, plain, shortened
from trainers.tools.opened import Opened, as_matrix, open_adapter, placed


def resize(path: Path, out: Path, limit: Limit, dtype: str | None = None, form: str | None = None) -> dict[str, Any]:
    """Write the adapter with every layer within `limit`, its scale alpha / rank as it was, and tell of it.

    Of a DoRA the pair is shortened and the magnitudes stay. LoHa and LoKr become plain LoRAs.

    Raises:
        UserError: no adapter that is read, wrong options, or the file cannot be written.
    """
    results.require_limits(limit.rank, limit.keep)
    results.require_output(dtype, form)
    file = results.target(out, [path])
    adapter = open_adapter(path)
    errors, named = results.Errors(), {}
    for name, (short, lost, whole) in _shortened(adapter, limit):
        errors.add(adapter.meant[name].places[0], lost, whole)
        named[name] = short
    modules = placed(adapter, named)
    entries = results.filed(results.kept(adapter.metadata), adapter.base, file.stem)
    if any(not isinstance(adapter.named[name], LoraWeights) for name in named):
        entries |= {"ss_network_module": results.module_of(adapter.base), "ss_network_args": "{}"}
    entries = results.sized(modules, entries) | {"ss_output_name": file.stem, "modelspec.title": file.stem}
    report = results.save(modules, entries, adapter.base, file, dtype or adapter.dtype, form or adapter.form)
    before = [adapter.named[name] for name in named]
    return {
        **results.written(report),
        "rank before": results.counts(update.rank for update in before),
        "rank after": results.counts(update.rank for update in named.values()),
        "error": errors.total,
        "error by block": errors.by_group(),
        "notes": _notes(before),
        "left out": adapter.left_out,
    }


def _shortened(adapter: Opened, limit: Limit) -> Iterator[tuple[str, tuple[Weights, float, float]]]:
    """Layer by layer, under the file's own names: Stable Diffusion 3's fused layers stay one."""
    for name, layer in adapter.meant.items():
        update = adapter.named[name]
        if isinstance(update, DoraWeights):
            pair, lost, whole = shortened(update.lora, limit)
            yield name, (DoraWeights(pair.down, pair.up, pair.alpha, update.magnitude), lost, whole)
        elif isinstance(update, LoraWeights):
            yield name, shortened(update, limit)
        else:
            yield name, plain(as_matrix(update, layer.places[0], adapter.base), limit)


def _notes(before: list[Weights]) -> list[str]:
    labels = {update.label for update in before}
    found = [f"Layers of type {name} became plain LoRAs." for name in sorted(labels - {"LoRA", "DoRA"})]
    return found + (["The magnitudes of the DoRA stay as they were."] if "DoRA" in labels else [])
