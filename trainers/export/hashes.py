"""The hashes by which image programs and sites know adapters and base models."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from trainers import json_values
from trainers.files import remember, remembered

IS_PAIR = json_values.fits(tuple[str, str])
PIECE = 1 << 25  # bytes that are hashed to know how fast that is
LEGACY_START, LEGACY_SIZE = 0x100000, 0x10000  # what A1111's first model hash looked at


def adapter_hashes(tensors: dict[str, Tensor], entries: dict[str, str]) -> dict[str, str]:
    """sshs_model_hash, sshs_legacy_hash and modelspec.hash_sha256, as kohya and ModelSpec define them.

    The first covers tensor bytes only, so that it tells whether two runs ended in the same weights.
    """
    whole = hashlib.sha256(tensor_bytes(save(tensors))).hexdigest()
    ss_only = {key: value for key, value in entries.items() if key.startswith("ss_")}
    piece = save(tensors, ss_only)[LEGACY_START : LEGACY_START + LEGACY_SIZE]
    legacy = hashlib.sha256(piece).hexdigest()[:8]
    return {"sshs_model_hash": whole, "sshs_legacy_hash": legacy, "modelspec.hash_sha256": f"0x{whole}"}


def hash_of_file(path: Path) -> str:
    """sshs_model_hash of an adapter file: sha256 of all after its header."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def tensor_bytes(file: bytes) -> bytes:
    """All after the header of a safetensors file: what sshs_model_hash covers."""
    return file[8 + int.from_bytes(file[:8], "little") :]


def base_hashes(path: Path | None, cache: Path | None = None) -> tuple[str | None, str | None]:
    """kohya's legacy hash (8 hex) and the full sha256 of a single-file base; None for a folder.

    `cache` is a JSON file that remembers them by path, size and time of change: a base has gigabytes.
    """
    if path is None or not path.is_file():
        return None, None
    key, known = _known(path, cache)
    if not IS_PAIR(known.get(key)):  # none, or damaged
        known[key] = _hash(path)
        if cache:
            remember(cache, known)
    legacy, whole = known[key]
    return legacy, whole


def hashing_seconds(path: Path | None, cache: Path | None, clock: Callable[[], float]) -> float:
    """How long `base_hashes` would take: tried on a piece of the file."""
    if path is None or not path.is_file():
        return 0.0
    key, known = _known(path, cache)
    if IS_PAIR(known.get(key)):
        return 0.0
    with path.open("rb") as file:
        began = clock()
        hashlib.sha256(piece := file.read(PIECE))
        return (clock() - began) * path.stat().st_size / max(1, len(piece))


def _known(path: Path, cache: Path | None) -> tuple[str, dict[str, Any]]:
    """What this file goes by in the cache, and the cache."""
    found = path.stat()
    return f"{path.resolve()}|{found.st_size}|{found.st_mtime_ns}", remembered(cache) if cache else {}


def _hash(path: Path) -> tuple[str, str]:
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            whole.update(block)
        file.seek(LEGACY_START)
        legacy = hashlib.sha256(file.read(LEGACY_SIZE)).hexdigest()[:8]
    return legacy, whole.hexdigest()
