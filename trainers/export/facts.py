"""The facts of a run as JSON values, so that a checkpoint can be exported without the base model and the pictures."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from trainers.errors import UserError
from trainers.export.metadata import RunFacts
from trainers.families.base import FamilySpec
from trainers.families.registry import FAMILIES

PATHS = ("base_path", "vae_path", "hash_cache")


def pack(facts: RunFacts, spec: FamilySpec) -> dict[str, Any]:
    """JSON values, with the family's name; `unpack` undoes it."""
    packed = {field.name: getattr(facts, field.name) for field in fields(facts)}
    packed |= {name: None if packed[name] is None else str(packed[name]) for name in PATHS}
    packed["buckets"] = [[width, height, count] for (width, height), count in facts.buckets.items()]
    packed |= {"resolution": list(facts.resolution), "bucket_sides": list(facts.bucket_sides)}
    return {"family": spec.name, **packed}


def unpack(packed: dict[str, Any]) -> tuple[RunFacts, FamilySpec]:
    """What `pack` was given. UserError when the values are not of its making."""
    try:
        values = {field.name: packed[field.name] for field in fields(RunFacts) if field.name in packed}
        values |= {name: Path(packed[name]) if packed.get(name) else None for name in PATHS}
        values["buckets"] = {(width, height): count for width, height, count in packed["buckets"]}
        values |= {name: tuple(packed[name]) for name in ("resolution", "bucket_sides")}
        return RunFacts(**values), FAMILIES[packed["family"]].spec
    except (KeyError, TypeError, ValueError) as error:
        message = f"The facts of the run in its checkpoint are damaged ({type(error).__name__}: {error})."
        raise UserError(message, "Export another checkpoint, or resume the run.") from error
