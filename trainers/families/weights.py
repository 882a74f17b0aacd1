"""Weights on disk, and putting them into a module without holding them twice.

A module is built on the meta device (shapes only), and each tensor is read from the memory-mapped file when it is
placed: where no number format has to change, not even a copy is made.
"""

import logging
import os
import pickle
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor, nn

from trainers.errors import UserError
from trainers.families.headers import Shapes, check_pickle, read_header, tensors_start
from trainers.families.ldm import Names

log = logging.getLogger(__name__)
Reader = Callable[[torch.dtype | None, bool], Tensor]  # wanted format, mapped? -> the tensor in it or in the stored one
Change = Callable[[Tensor], Tensor]
FORMATS = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


class Weights:
    """Named tensors of one or more files, read when asked for. `taken` collects the stored names given out."""

    def __init__(self, files: Iterable[Path]):
        self.files = tuple(files)
        self.opened = list(files)  # those that were added, too
        self.taken: set[str] = set()
        self.metadata: dict[str, str] = {}
        self._read: dict[str, Reader] = {}
        self._defined: dict[str, tuple[str, Change | None]] = {}
        self.shapes: Shapes = {}
        for file in self.files:
            self._open(file)

    @property
    def name(self) -> str:
        return self.files[0].name if len(self.files) == 1 else self.files[0].parent.name

    def __contains__(self, name: str) -> bool:
        return name in self._read or name in self._defined

    def __iter__(self) -> Iterator[str]:
        """The stored names."""
        return iter(self._read)

    def define(self, name: str, source: str, shape: Iterable[int], change: Change | None = None) -> None:
        """Another name for a stored tensor, or for a part or turn of it."""
        self._defined[name] = (source, change)
        self.shapes[name] = tuple(shape)

    def claim(self, name: str) -> None:
        """Say that this tensor will be taken, which may be much later."""
        source, _ = self._defined.get(name, (name, None))
        self.taken |= {source, *(scale for scale in _scales(source) if scale in self._read)}

    def take(self, name: str, dtype: torch.dtype | None, mapped: bool = True) -> Tensor:
        """The tensor of that name, floating point in `dtype`; memory-mapped where it is stored so and `mapped`.

        dtype None: in the format that it is stored in, or in fp32.
        """
        self.claim(name)
        source, change = self._defined.get(name, (name, None))
        tensor = self._read[source](dtype, mapped)
        scale = next((s for s in _scales(source) if s in self._read), None)
        if scale:  # fp8 checkpoints of ComfyUI: stored = weight / scale
            tensor = tensor.float() * self._read[scale](torch.float32, mapped).float()
        tensor = change(tensor) if change else tensor
        return tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor

    def add(self, file: Path, prefix: str) -> None:
        """The tensors of one more file, under its own names behind `prefix`. The file keeps its metadata."""
        more = Weights([file])
        self.opened.append(file)
        self._read |= {f"{prefix}{name}": reader for name, reader in more._read.items()}
        self.shapes |= {f"{prefix}{name}": shape for name, shape in more.shapes.items()}

    def _open(self, file: Path) -> None:
        if file.suffix.lower() == ".safetensors":
            header, metadata = read_header(file)
            self.metadata |= metadata
            handle = safe_open(file, framework="pt")
            with file.open("rb") as raw:
                known = _state(raw)
            start = tensors_start(file)
            self._read |= {name: _reader(file, known, handle, start, name, entry) for name, entry in header.items()}
            self.shapes |= {name: tuple(entry["shape"]) for name, entry in header.items()}
            return
        tensors = read_pickle(file)
        self._read |= {name: lambda dtype, mapped, tensor=tensor: tensor for name, tensor in tensors.items()}
        self.shapes |= {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _state(file: BinaryIO) -> tuple[int, int]:
    """Its size and when it was last changed."""
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


def _reader(file: Path, known: tuple[int, int], handle: Any, start: int, name: str, entry: dict) -> Reader:
    """Reads one tensor: mapped where its number format is the wanted one, else from the file.

    A mapped page stays resident once it is read, so that a converted model would take its memory twice. `known`: the
    state of the file that the mapped tensors are of. The reader raises UserError where it is another one now.
    """
    stored = FORMATS.get(entry["dtype"])
    begin, end = entry["data_offsets"]

    def read(dtype: torch.dtype | None, mapped: bool) -> Tensor:
        if stored is None or begin == end or (mapped and stored == dtype):
            return handle.get_tensor(name)
        buffer = torch.empty(end - begin, dtype=torch.uint8)
        with file.open("rb") as raw:
            raw.seek(start + begin)
            if _state(raw) != known or raw.readinto(memoryview(buffer.numpy())) < end - begin:
                hint = (
                    "Leave a base model as it is while a run uses it; resume the run with the one that it began with."
                )
                raise UserError(f"{file} was changed while it was read.", hint)
        return buffer.view(stored).reshape(entry["shape"])

    return read


def _scales(name: str) -> tuple[str, ...]:
    stem = name.removesuffix("weight")
    return (f"{stem}scale_weight", f"{stem}weight_scale") if stem != name else ()


def read_pickle(file: Path) -> dict[str, Tensor]:
    """Tensors of a .ckpt, .pt or .bin file, without running any code in it. UserError when that is not possible."""
    check_pickle(file)
    log.warning(
        "%s is a pickled file. It is read without running the code it may carry; safetensors files carry none, "
        "so prefer the .safetensors version where there is one.",
        file.name,
    )
    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file) or None)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file.name} holds more than weights, and reading that could run foreign code. It was not opened.",
            "Use the .safetensors version of this model.",
        ) from error
    except Exception as error:  # any way a file can be damaged
        raise UserError(f"{file.name} cannot be read ({_first_line(error)}).", "Download it again.") from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    tensors = (
        {key: value for key, value in found.items() if isinstance(value, Tensor)} if isinstance(found, dict) else {}
    )
    if not tensors:
        raise UserError(f"{file.name} holds no weights.", "Choose a model file.")
    return tensors


def prepare(make: Callable[[], nn.Module], weights: Weights, names: Names, dtype: torch.dtype, part: str) -> nn.Module:
    """The module `make` describes, frozen, in eval mode, on the meta device; `residence.bring` gives it its weights.

    Args:
        names: the names a tensor of the module may have on disk.
        part: for errors: "UNet", "VAE", "text encoder".

    Raises:
        UserError when a weight is missing or of another shape, or the settings make no module.
    """
    try:
        with torch.device("meta"):
            module = make()
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError, NotImplementedError) as error:
        raise UserError(
            f"The config.json of the {part} beside {weights.name} describes no model ({_first_line(error)}).",
            "Copy or download the model folder again, whole.",
        ) from error
    wanted = module.state_dict()
    chosen = {key: next((name for name in names(key) if name in weights), None) for key in wanted}
    missing = [key for key, name in chosen.items() if name is None]
    if missing:
        raise UserError(
            f"{weights.name} lacks {len(missing)} of the {part}'s {len(wanted)} weights, such as {missing[0]}.",
            "The model is incomplete or of another kind. Choose another, or download it again.",
        )
    for key, name in chosen.items():
        shape = tuple(wanted[key].shape)
        if not _fits(weights.shapes[name], shape):
            there = weights.shapes[name]
            raise UserError(
                f"{weights.name} has other sizes than a known {part}: {name} is {list(there)}, not {list(shape)}.",
                "A model of unusual size is read from a diffusers folder, which brings its own settings.",
            )
        weights.claim(name)
    module.source = Source(weights, chosen, dtype)
    return nn.Module.to(module, dtype).requires_grad_(False).eval()  # diffusers' own `to` warns of nothing


@dataclass(frozen=True)
class Source:
    """Where the weights of a module come from."""

    weights: Weights
    names: dict[str, str]  # of the module's tensors -> in `weights`
    dtype: torch.dtype

    def take(self, key: str, mapped: bool) -> Tensor:
        """One weight by the name that the module has for it, in the file's shape."""
        tensor = self.weights.take(self.names[key], self.dtype, mapped)
        part = tensor.untyped_storage().nbytes() > tensor.nbytes  # which would keep all that was read with it
        return tensor.clone() if part and not mapped else tensor

    def copy(self, key: str, to: Tensor) -> None:
        """Read one weight into memory that is there."""
        to.copy_(self.weights.take(self.names[key], None, mapped=False).reshape(to.shape))

    def fill(self, module: nn.Module, device: torch.device, mapped: bool, without: Collection[str] = ()) -> None:
        """Read every weight and put it in place on `device`, one after the other; `without` those of these names."""
        shapes, left = {name: tensor.shape for name, tensor in module.state_dict().items()}, frozenset(without)
        filled = {key: self.take(key, mapped).reshape(shapes[key]).to(device) for key in self.names if key not in left}
        module.load_state_dict(filled, strict=not left, assign=True)
        _fill_buffers(module, device)
        module.requires_grad_(False)

    def shorten(self, key: str, shape: tuple[int, ...], change: Change) -> None:
        """From now on take only a part of that weight."""
        stored = self.names[key]
        self.names[key] = f"{stored} {shape}"
        self.weights.define(self.names[key], stored, shape, change)

    def __deepcopy__(self, memo: dict) -> "Source":
        return self  # a copied module has the same origin


def _fits(there: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Equal but for trailing ones: LDM's 1x1 convolutions [c, c, 1, 1] are linear layers [c, c] here."""
    shorter, longer = sorted((there, wanted), key=len)
    return longer[: len(shorter)] == shorter and all(side == 1 for side in longer[len(shorter) :])


def _fill_buffers(module: nn.Module, device: torch.device) -> None:
    """CLIP's position numbers are computed, not stored: on the meta device they came out empty."""
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:
            owner, _, leaf = name.rpartition(".")
            if leaf != "position_ids":
                raise RuntimeError(f"{type(module).__name__} has a buffer {name} that no file fills")
            positions = torch.arange(buffer.shape[-1], device=device).expand(buffer.shape).clone()
            module.get_submodule(owner).register_buffer(leaf, positions, persistent=False)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
