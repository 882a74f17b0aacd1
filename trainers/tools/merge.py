"""What `darkroom merge` does, by what it is given: adapters alone, adapters after a base, or two bases."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainers.adapters.adapter_file import require_strength
from trainers.errors import UserError
from trainers.families.detect import identify
from trainers.tools.factors import Limit
from trainers.tools.interpolate import interpolate
from trainers.tools.merge_adapters import merge_adapters
from trainers.tools.merge_base import merge_base
from trainers.tools.opened import is_adapter

USAGE = "Name two adapters or more, a base and its adapters, or two bases with --strength."


def merge(
    paths: Sequence[Path],
    weights: Sequence[float],
    strength: float | None,
    out: Path,
    how: str = "concat",
    limit: Limit = Limit(),  # noqa: B008 - frozen
    dtype: str | None = None,
    form: str | None = None,
) -> dict[str, Any]:
    """UserError where these make nothing together, and as the three tools do."""
    if len(paths) < 2:
        raise UserError("There is only one file to merge.", USAGE)
    for value, name in [(strength, "--strength"), *((weight, "One of --weights") for weight in weights)]:
        if value is not None:
            require_strength(value, name)
    bases = [_is_base(path) for path in paths]
    if bases[0] and (how != "concat" or limit != Limit() or dtype or form):
        message = "--how, --rank, --keep, --dtype and --to are for adapters: a base keeps its layout and dtypes."
        raise UserError(message, "Leave them out.")
    if any(bases[1:]):
        if bases != [True, True]:
            raise UserError(f"{paths[bases.index(True, 1)].name} is a base model, and not the first file.", USAGE)
        if strength is None or weights:
            raise UserError("Two base models are merged by one strength.", "Give --strength 0.5, for example.")
        return interpolate(paths[0], paths[1], strength, out)
    adapters = paths[1:] if bases[0] else paths
    if strength is not None:
        hint = "Use --weights with one number for each adapter."
        raise UserError("--strength is for two base models.", hint)
    if weights and len(weights) != len(adapters):
        given = "is 1 weight" if len(weights) == 1 else f"are {len(weights)} weights"
        message = f"There {given} for {len(adapters)} adapter{'s' * (len(adapters) > 1)}."
        raise UserError(message, "Give one for each, as in `--weights 1 0.5`.")
    weights = weights or [1.0] * len(adapters)
    if bases[0]:
        return merge_base(paths[0], adapters, weights, out)
    return merge_adapters(adapters, weights, out, how, limit, dtype, form)


def _is_base(path: Path) -> bool:
    """UserError where it is missing or no model file at all."""
    if is_adapter(path):
        return False
    found = identify(path)
    return found.kind.endswith("base") or found.kind == "pickle" or found.lacks_text
