"""What a model's weights are, told by a hash; the files of a base are hashed once and then known by size and time."""

from pathlib import Path

import torch
from torch import nn

from trainers.data.cache import content_key, identity
from trainers.families.residence import bring, is_away, is_original
from trainers.files import remember, remembered

FILE = "identities.json"  # in the cache
FORMAT = 1  # raise it when the same files are to give a module other weights


def identify(module: nn.Module, folder: Path) -> str:
    """`identity` of the module, without reading its weights where `folder` remembers it.

    A module that is no longer as its files have it, or has none, is hashed as it is.
    """
    if not is_original(module):
        return identity(module)
    found = [(str(file.resolve()), file.stat()) for file in module.source.weights.opened]
    files = [[path, stat.st_size, stat.st_mtime_ns] for path, stat in found]
    key = content_key(kind="identity", format=FORMAT, files=files, dtype=str(module.source.dtype), built=repr(module))
    known = remembered(folder / FILE)
    if not isinstance(known.get(key), str):  # none, or damaged
        if is_away(module):
            bring(module, torch.device("cpu"), mapped=False)
        known[key] = identity(module)
        remember(folder / FILE, known)
    return known[key]
