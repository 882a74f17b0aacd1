"""A safetensors file rewritten tensor by tensor: what does not change keeps its bytes, its dtype and its place.

Little more than one tensor is in memory. The file is written under a temporary name, flushed, read back and renamed.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from trainers.errors import UserError
from trainers.export.hashes import hash_of_file
from trainers.families.headers import read_header, tensors_start
from trainers.families.weights import FORMATS

Change = Callable[[Tensor], Tensor]  # a weight in fp32 (fp64 where it is stored so) -> the new one
BLOCK = 1 << 22
HASHES = {"modelspec.hash_sha256": "0x", "sshs_model_hash": ""}  # entries over the tensors' bytes, and how they begin
FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


class TensorFile:
    """A safetensors file whose tensors are read one at a time. Nothing is mapped: mapped pages would stay resident."""

    def __init__(self, path: Path):
        self.path = path
        self.header, self.metadata = read_header(path)
        self._start = tensors_start(path)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.header[name]["shape"])

    def dtype(self, name: str) -> torch.dtype | None:
        """None for what is no floating-point format that is known here."""
        return FORMATS.get(self.header[name]["dtype"])

    @property
    def order(self) -> list[str]:
        return sorted(self.header, key=lambda name: self.header[name]["data_offsets"])

    def read(self, name: str) -> Tensor:
        """A floating-point tensor in fp32, or in fp64 where it is stored so; with its scale, where fp8 has one."""
        scale = self._scale(name)
        return self._plain(name) if scale is None else self._plain(name) * scale

    def encoded(self, name: str, tensor: Tensor) -> Tensor:
        """A new value of the tensor as it is stored."""
        scale, dtype = self._scale(name), self.dtype(name)
        tensor = tensor if scale is None else tensor / scale
        if dtype not in FLOATS:  # fp8 knows no infinity: what is too large becomes NaN
            tensor = tensor.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max)
        return tensor.to(dtype).contiguous()

    def bytes_of(self, name: str) -> memoryview:
        begin, end = self.header[name]["data_offsets"]
        buffer = bytearray(end - begin)
        with self.path.open("rb", buffering=0) as raw:
            raw.seek(self._start + begin)
            view, done = memoryview(buffer), 0
            while done < len(buffer):
                got = raw.readinto(view[done:])
                if not got:
                    raise UserError(f"{self.path.name} became shorter while it was read.", "Copy it again.")
                done += got
        return memoryview(buffer)

    def copy(self, name: str, write: Callable[[bytes], None]) -> None:
        """The tensor's own bytes, block by block."""
        begin, end = self.header[name]["data_offsets"]
        with self.path.open("rb", buffering=0) as raw:
            raw.seek(self._start + begin)
            while begin < end:
                block = raw.read(min(BLOCK, end - begin))
                if not block:
                    raise UserError(f"{self.path.name} became shorter while it was read.", "Copy it again.")
                write(block)
                begin += len(block)

    def _plain(self, name: str) -> Tensor:
        dtype, shape = self.dtype(name), self.shape(name)
        if 0 in shape:
            return torch.zeros(shape)
        tensor = torch.frombuffer(self.bytes_of(name), dtype=dtype).reshape(shape)
        return tensor.to(torch.float64 if dtype == torch.float64 else torch.float32)

    def _scale(self, name: str) -> Tensor | None:
        """ComfyUI's fp8 checkpoints: stored = weight / scale."""
        stem = name.removesuffix("weight")
        beside = (f"{stem}scale_weight", f"{stem}weight_scale") if stem != name else ()
        found = next((one for one in beside if one in self.header), None)
        return None if found is None else self._plain(found)


def rewrite(source: TensorFile, target: Path, changes: Mapping[str, Change], entries: Mapping[str, str]) -> None:
    """Write `target`: the source's tensors with these changed, and `entries` as its metadata.

    Hashes over the tensors that stand in the entries are made true.

    Raises:
        UserError: the disk is full or refuses, a new number is not finite in its dtype, or the file does not read back.
    """
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        require_room(target, source.path.stat().st_size)
        digest = _write(source, partial, changes, entries)
        read_header(partial)
        if hash_of_file(partial) != digest:
            raise UserError(f"{target.name} does not read back as it was written.", "Try another disk.")
        os.replace(partial, target)
    except OSError as error:
        raise _refused(target, error) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def require_room(target: Path, size: int) -> None:
    """UserError unless the disk has that many bytes free."""
    free = shutil.disk_usage(target.parent).free
    if free < size:
        message = f"The disk has {free / 1e9:.1f} GB free, and {target.name} takes {size / 1e9:.1f} GB."
        raise UserError(message, "Make room, or name a folder on another disk with --out.")


def _refused(target: Path, error: OSError) -> UserError:
    message = f"{target.name} could not be written to {target.parent} ({error.strerror or error})."
    return UserError(message, "Make room on that disk, or name another folder with --out.")


def _write(source: TensorFile, partial: Path, changes: Mapping[str, Change], entries: Mapping[str, str]) -> str:
    """The sha256 of the tensors' bytes."""
    digest = hashlib.sha256()
    with partial.open("wb") as file:
        file.write(_header(source, _hashed(entries, "0" * 64)))

        def write(block: bytes | memoryview) -> None:
            file.write(block)
            digest.update(block)

        for name in source.order:
            if name in changes:
                write(_changed(source, name, changes[name]))
            else:
                source.copy(name, write)
        _finish(file, _header(source, _hashed(entries, digest.hexdigest())))
    return digest.hexdigest()


def _changed(source: TensorFile, name: str, change: Change) -> memoryview:
    new = source.encoded(name, change(source.read(name)))
    if not torch.isfinite(new.float()).all():
        kind = source.header[name]["dtype"]
        raise UserError(f"The new {name} holds numbers that {kind} cannot.", "Use a lower strength.")
    return memoryview(new.reshape(-1).view(torch.uint8).numpy())


def _hashed(entries: Mapping[str, str], digest: str) -> dict[str, str]:
    return {key: f"{HASHES[key]}{digest}" if key in HASHES else value for key, value in entries.items()}


def _header(source: TensorFile, entries: Mapping[str, str]) -> bytes:
    """Padded to 8 bytes, as the safetensors library does; equally long for hashes of equal length."""
    told = {"__metadata__": dict(entries)} if entries else {}
    text = json.dumps({**told, **source.header}, separators=(",", ":"))
    packed = text.encode()
    packed += b" " * (-len(packed) % 8)
    return len(packed).to_bytes(8, "little") + packed


def _finish(file: BinaryIO, header: bytes) -> None:
    file.seek(0)
    file.write(header)
    file.flush()
    os.fsync(file.fileno())
