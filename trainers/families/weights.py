"""Weights on disk, and putting them into a module without holding them twice.

A module is built on the meta device (shapes only), and each tensor is read from the memory-mapped file when it is
placed: where no number format has to change, not even a copy is made.
"""

import logging
import pickle
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from trainers.errors import UserError
from trainers.families.headers import Shapes, check_pickle, read_header
from trainers.families.ldm import Names

log = logging.getLogger(__name__)


class Weights:
    """Named tensors of one or more files, read when asked for. `taken` collects the names given out."""

    def __init__(self, files: Iterable[Path]):
        self.files = tuple(files)
        self.taken: set[str] = set()
        self.metadata: dict[str, str] = {}
        self._read: dict[str, Callable[[str], Tensor]] = {}
        self.shapes: Shapes = {}
        for file in self.files:
            self._open(file)

    @property
    def name(self) -> str:
        return self.files[0].name if len(self.files) == 1 else self.files[0].parent.name

    def __contains__(self, name: str) -> bool:
        return name in self._read

    def __iter__(self) -> Iterable[str]:
        return iter(self._read)

    def take(self, name: str) -> Tensor:
        """The tensor of that name, memory-mapped where the file allows it."""
        self.taken.add(name)
        return self._read[name](name)

    def _open(self, file: Path) -> None:
        if file.suffix.lower() == ".safetensors":
            header, metadata = read_header(file)
            self.metadata |= metadata
            handle = safe_open(file, framework="pt")
            self._read |= dict.fromkeys(header, handle.get_tensor)
            self.shapes |= {name: tuple(entry["shape"]) for name, entry in header.items()}
            return
        tensors = read_pickle(file)
        self._read |= dict.fromkeys(tensors, tensors.__getitem__)
        self.shapes |= {name: tuple(tensor.shape) for name, tensor in tensors.items()}


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
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise UserError(f"{file.name} cannot be read ({_first_line(error)}).", "Download it again.") from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    tensors = (
        {key: value for key, value in found.items() if isinstance(value, Tensor)} if isinstance(found, dict) else {}
    )
    if not tensors:
        raise UserError(f"{file.name} holds no weights.", "Choose a model file.")
    return tensors


def build(make: Callable[[], nn.Module], weights: Weights, names: Names, dtype: torch.dtype, part: str) -> nn.Module:
    """The module `make` describes, frozen, in eval mode, with all its weights from `weights` in `dtype` on the CPU.

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
    filled = {}
    for key, name in chosen.items():
        shape = tuple(wanted[key].shape)
        if not _fits(weights.shapes[name], shape):
            there = weights.shapes[name]
            raise UserError(
                f"{weights.name} has other sizes than a known {part}: {name} is {list(there)}, not {list(shape)}.",
                "A model of unusual size is read from a diffusers folder, which brings its own settings.",
            )
        tensor = weights.take(name)
        filled[key] = tensor.to(dtype if tensor.is_floating_point() else tensor.dtype).reshape(shape)
    module.load_state_dict(filled, assign=True)
    _fill_buffers(module)
    return module.requires_grad_(False).eval()


def _fits(there: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Equal but for trailing ones: LDM's 1x1 convolutions [c, c, 1, 1] are linear layers [c, c] here."""
    shorter, longer = sorted((there, wanted), key=len)
    return longer[: len(shorter)] == shorter and all(side == 1 for side in longer[len(shorter) :])


def _fill_buffers(module: nn.Module) -> None:
    """CLIP's position numbers are computed, not stored: on the meta device they came out empty."""
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:
            owner, _, leaf = name.rpartition(".")
            if leaf != "position_ids":
                raise RuntimeError(f"{type(module).__name__} has a buffer {name} that no file fills")
            positions = torch.arange(buffer.shape[-1]).expand(buffer.shape).clone()
            module.get_submodule(owner).register_buffer(leaf, positions, persistent=False)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
