"""Layers of an adapter that have no say in the picture."""

import re
from collections.abc import Iterable

from trainers.adapters.adapter import Place
from trainers.families.base import FamilySpec


def unheard(places: Iterable[Place], spec: FamilySpec) -> set[Place]:
    """Those of `places` that training cannot change; the last block in them counts as the base's last."""
    found = [
        (part, int(match[1]), (part, path))
        for part, path in places
        if part in spec.unheard and (match := re.search(spec.unheard[part], path))
    ]
    last = {part: number for part, number, _ in sorted(found)}
    return {place for part, number, place in found if number == last[part]}
