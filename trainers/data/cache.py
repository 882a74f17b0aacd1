"""Encoded pictures and captions kept on disk under the hash of everything they depend on.

An edited picture or caption has another key, so it can never meet an old entry, and nothing is ever invalidated. An
entry is one safetensors file in a folder of ours, never beside the pictures.
"""

import errno
import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from trainers.data.types import Crop, Example
from trainers.errors import UserError
from trainers.files import write_whole
from trainers.waiting import real

FORMAT = 1  # raise it when the same inputs are to give other tensors (resampling, colour handling)


def content_key(**parts: object) -> str:
    """sha256 in hex of the parts as canonical JSON: the same parts in any order give the same key."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def latent_key(example: Example, crop: Crop, flip: bool, vae_identity: str) -> str:
    """The key of a picture's latents: its bytes, what is cut out of it, whether mirrored, and the VAE's weights."""
    return content_key(
        kind="latents",
        format=FORMAT,
        picture=example.content_hash,
        crop=asdict(crop),
        flip=bool(flip),
        vae=vae_identity,
    )


def text_key(caption: str, text_identity: str, clip_skip: int) -> str:
    """The key of a caption's embeddings: its final text, the text encoder's weights, and which layer is read."""
    return content_key(kind="text", format=FORMAT, caption=caption, encoder=text_identity, clip_skip=clip_skip)


def identity(module: nn.Module, without: str = "") -> str:
    """sha256 in hex of a module's structure and weights (names, shapes, dtypes, bytes), wherever it was loaded from.

    `without`: the name of one that does not count.
    """
    digest = hashlib.sha256(repr(module).encode())  # activations and epsilons show in no weight
    for name, tensor in sorted(module.state_dict(keep_vars=True).items()):
        if name == without:
            continue
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        if tensor.numel():
            digest.update(real(tensor).detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Cache:
    """Named groups of tensors in `folder`, which is made when first needed. Safe for several runs at once."""

    def __init__(self, folder: Path):
        self.folder = folder

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors kept under `key`, on the CPU; None where there are none or the file is damaged."""
        try:
            return load(self._path(key).read_bytes())
        except (OSError, SafetensorError, ValueError, KeyError):
            return None

    def has(self, key: str) -> bool:
        """Whether something is kept under `key`, whole or not."""
        return self._path(key).exists()

    def put(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keep tensors under `key`: the whole file or none. UserError on a full disk or an unwritable folder."""
        data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._path(key), data)
        except OSError as error:
            raise self._sentence(error, len(data)) from error

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _sentence(self, error: OSError, size: int) -> UserError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = f"{size / 2**20:.1f} MB could not be written to the cache, {self.folder}"
            message = f"The disk is full: {what}{self._free()}."
            return UserError(message, "Make room and start again: what is cached already is kept.")
        message = f"The cache folder {self.folder} cannot be written: {error.strerror or error}."
        return UserError(message, "Choose another home folder, or set memory.cache_latents = false.")

    def _free(self) -> str:
        try:
            return f" ({shutil.disk_usage(self.folder).free / 2**20:.0f} MB free)"
        except OSError:
            return ""
