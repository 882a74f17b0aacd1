"""What a model's weights are, told by a hash; the files of a base are hashed once and then known by size and time."""

from pathlib import Path

import torch
from torch import nn

from trainers.data.cache import content_key, identity
from trainers.families.positions import FULL_NAME
from trainers.families.residence import bring, is_away, is_original
from trainers.files import remember, remembered

FILE = "identities.json"  # in the cache
FORMAT = 1  # raise it when the same files are to give a module other weights


def identify(module: nn.Module, folder: Path) -> str:
    """`identity` of the module, without reading its weights where `folder` remembers it.

    A module that is no longer as its files have it, or has none, is hashed as it is. A table of positions does not
    count: of one and the same base runs keep parts of different sizes.
    """
    if not is_original(module):
        return identity(module, FULL_NAME)
    key, known = _key(module), remembered(folder / FILE)
    if not isinstance(known.get(key), str):  # none, or damaged
        if is_away(module):
            bring(module, torch.device("cpu"), mapped=False)
        known[key] = identity(module, FULL_NAME)
        remember(folder / FILE, known)
    return known[key]


def known_identity(module: nn.Module, folder: Path) -> str:
    """What `identify` would say of a module that is as its files have it, if `folder` remembers it; else ""."""
    found = remembered(folder / FILE).get(_key(module)) if is_original(module) else ""
    return found if isinstance(found, str) else ""


def _key(module: nn.Module) -> str:
    found = [(str(file.resolve()), file.stat()) for file in module.source.weights.opened]
    files = [[path, stat.st_size, stat.st_mtime_ns] for path, stat in found]
    return content_key(kind="identity", format=FORMAT, files=files, dtype=str(module.source.dtype), built=repr(module))
