"""A base model on the disk: where each layer's weight is stored, in a checkpoint file or in a diffusers folder."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from trainers.adapters.adapter import Place
from trainers.errors import UserError
from trainers.families.detect import FAMILY_LABELS, identify, refuse
from trainers.families.folders import WEIGHT_PARTS, weight_files
from trainers.families.mmdit import swap_halves
from trainers.tools import places
from trainers.tools.places import Spot
from trainers.tools.stream import TensorFile

TURNS = {"": lambda tensor: tensor, "swap": swap_halves, "transpose": lambda tensor: tensor.T}  # each undoes itself
Key = tuple[str, str]  # (part's folder or "", tensor name)


@dataclass(frozen=True)
class Stored:
    """Its files by the folder of their part ("" for a checkpoint file), and the spot of every layer."""

    path: Path
    family: str
    files: dict[str, tuple[TensorFile, ...]]
    spots: dict[Place, Spot]
    prediction: str = ""  # epsilon or v, where it says so

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def is_folder(self) -> bool:
        return self.path.is_dir()

    @property
    def tensors(self) -> dict[Key, TensorFile]:
        """Every stored tensor -> the file that it is in."""
        return {(part, name): file for part, files in self.files.items() for file in files for name in file.header}

    @property
    def files_metadata(self) -> dict[str, str]:
        return {key: value for files in self.files.values() for file in files for key, value in file.metadata.items()}

    def file_of(self, spot: Spot) -> TensorFile:
        return next(file for file in self.files[spot.part] if spot.name in file.header)

    def shape(self, place: Place) -> tuple[int, ...]:
        """Of the layer's weight, as diffusers has it."""
        spot = self.spots[place]
        rows, *rest = self.file_of(spot).shape(spot.name)
        shape = (rows // spot.blocks, *rest)
        return shape[::-1] if spot.turn == "transpose" else shape

    def weight(self, place: Place) -> Tensor:
        """The layer's weight as diffusers has it, in fp32 (fp64 where it is stored so)."""
        spot = self.spots[place]
        return seen(self.file_of(spot).read(spot.name), spot)


def seen(tensor: Tensor, spot: Spot) -> Tensor:
    """A layer's weight out of the stored tensor."""
    return TURNS[spot.turn](tensor.chunk(spot.blocks)[spot.block])


def put(tensor: Tensor, spot: Spot, value: Tensor) -> None:
    """Write a layer's weight into the stored tensor, in place."""
    tensor.chunk(spot.blocks)[spot.block].copy_(TURNS[spot.turn](value))


def open_base(path: Path) -> Stored:
    """UserError when it is no Stable Diffusion base model of safetensors files, with what it is instead."""
    found = identify(path)
    if found.kind == "pickle":
        hint = "Use its .safetensors version: this tool reads and writes no other files."
        raise UserError(f"{path.name} is a pickled checkpoint.", hint)
    if not found.lacks_text:
        _refuse_other(found.kind, found.label, path)
    if found.family not in WEIGHT_PARTS:
        refuse(found, path.name, "sd15")
    if path.is_dir():
        parts = [part for part in (*WEIGHT_PARTS[found.family], "text_encoder_3") if (path / part).is_dir()]
        files = {part: tuple(_open(weight_files(path / part))) for part in parts}
        return Stored(path, found.family, files, places.in_folder(found.family, _shapes(files)), found.prediction)
    files = {"": (TensorFile(path),)}
    return Stored(path, found.family, files, places.in_file(found.family, _shapes(files)[""]), found.prediction)


def _refuse_other(kind: str, label: str, path: Path) -> None:
    if not kind.endswith("base"):
        article = "an" if label[0] in "AEIOaeio" else "a"
        what = f"is {article} {label}, not a base model" if kind != "unknown" else "holds no base model known here"
        raise UserError(f"{path.name} {what}.", "Name a checkpoint file or a diffusers folder.")


def require_same_family(one: Stored, other: Stored) -> None:
    if one.family != other.family:
        labels = f"{FAMILY_LABELS[one.family]}, {other.name} {FAMILY_LABELS[other.family]}"
        raise UserError(f"{one.name} is {labels}.", "Both must be of one family.")


def _open(paths: Iterable[Path]) -> Iterable[TensorFile]:
    for path in paths:
        if path.suffix != ".safetensors":
            hint = "Use a folder with .safetensors files: this tool reads and writes no others."
            raise UserError(f"{path.parent.name}/{path.name} is a pickled file.", hint)
        yield TensorFile(path)


def _shapes(files: dict[str, tuple[TensorFile, ...]]) -> dict[str, dict[str, tuple[int, ...]]]:
    return {
        part: {name: file.shape(name) for file in own for name in file.header if file.dtype(name) is not None}
        for part, own in files.items()
    }
