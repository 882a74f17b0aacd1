"""An adapter file as updates of its base's layers, with no base at hand: whatever its layout, spelling or type."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from trainers.adapters.adapter import DENOISER, Place
from trainers.adapters.adapter_file import WEIGHTS, adapter_files, read_adapter
from trainers.adapters.joint import split
from trainers.adapters.reading import stray_keys
from trainers.adapters.weights import DoraWeights, LohaWeights, LokrWeights, LoraWeights, Weights
from trainers.errors import UserError
from trainers.export.contents import Contents, read_contents
from trainers.export.inspect import layout
from trainers.export.known_names import DIFFUSERS, KOHYA, OLD_DIFFUSERS, ORIGINAL, PEFT, Known, names_of_shapes
from trainers.export.layers.families import SD3_SIZES, family_shapes
from trainers.export.modules import clean
from trainers.export.which_base import Base, base_of, said_base, text_width
from trainers.families.base import FamilySpec
from trainers.families.registry import FAMILIES
from trainers.tools.places import TEXT_FOLDERS

FORM_OF = {DIFFUSERS: "diffusers", OLD_DIFFUSERS: "diffusers", PEFT: "peft"}  # other styles: kohya
T5 = "text_2"
DTYPES = {"F32": "fp32", "F64": "fp32", "BF16": "bf16", "F16": "fp16"}  # widest first; others count as fp16


@dataclass(frozen=True)
class Opened:
    """`named`: the updates as the file has them, by its own names. `meant`: name -> the layers it stands for."""

    path: Path
    contents: tuple[Contents, ...]  # one per file: peft writes several
    base: Base
    named: dict[str, Weights]
    meant: dict[str, Known]
    unread: tuple[str, ...] = field(default=())  # keys that no update was read from

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def metadata(self) -> dict[str, str]:
        return {key: value for one in self.contents for key, value in one.metadata.items()}

    @property
    def spec(self) -> FamilySpec:
        return FAMILIES[self.base.family].spec

    @property
    def form(self) -> str:
        """kohya, diffusers or peft: the layout that is nearest to the file's own."""
        return FORM_OF.get(layout(self.contents[0], self.base), "kohya")

    @property
    def dtype(self) -> str:
        """The widest number format of its matrices, as `saving.dtype` names it."""
        found = {DTYPES.get(one.dtypes[key], "fp16") for one in self.contents for key in _matrices(one)}
        return next(name for name in ("fp32", "bf16", "fp16") if name in found)

    @property
    def left_out(self) -> list[str]:
        """Names and keys that cannot be taken along: they stand for no layer, or for no update that is read."""
        return sorted([*(name for name in self.named if name not in self.meant), *self.unread])

    @property
    def modules(self) -> dict[Place, Weights]:
        return placed(self, self.named)


def open_adapter(path: Path, family: str = "") -> Opened:
    """An adapter file, or the folder (or folder of folders) that peft wrote.

    `family` is believed where the file itself cannot tell it.

    Raises:
        UserError: it is missing, damaged, no adapter, of an unknown family or of a type that is not read.
    """
    files = adapter_files(path)
    contents = {file: read_contents(file) for file in files.values()}
    bases = {file: base_of(one) for file, one in contents.items()}
    base = _base(list(contents.values()), list(bases.values()), family)
    if not base.name:
        raise UserError(f"{path.name} is for {base.label}, which is not known here.", "Known are SD 1, 2, XL and 3.")
    named: dict[str, Weights] = {}
    meant: dict[str, Known] = {}
    unread: list[str] = []
    for folder, file in files.items():
        adapter = read_adapter(file)
        known = _names(base, bases[file], folder)
        head = f"{folder}/" if len(files) > 1 else ""
        named |= {head + name: _widened(update) for name, update in adapter.modules.items()}
        found = {head + name: known[clean(name)] for name in adapter.modules if clean(name) in known}
        meant |= {name: layer for name, layer in found.items() if _is_readable(named[name], layer)}
        unread += [head + key for key in stray_keys(adapter.tensors, adapter.modules)]
    if not named:
        kinds = {module.type for one in contents.values() for module in one.modules.values()}
        hint = "LoRA, DoRA, LoHa and LoKr files can be used here."
        raise UserError(f"{path.name} is of a type that is not read here ({', '.join(sorted(kinds))}).", hint)
    if not meant:
        raise UserError(f"No layer of {path.name} has a name that is known of {base.label}.", "`inspect` says more.")
    return Opened(path, tuple(contents.values()), base, named, meant, tuple(unread))


def _matrices(contents: Contents) -> list[str]:
    return [key for module in contents.modules.values() for part, key in module.keys.items() if part != "alpha"]


def is_adapter(path: Path) -> bool:
    """Whether a folder is one that peft wrote; a file is asked by `identify`."""
    return path.is_dir() and ((path / WEIGHTS).is_file() or any(path.glob(f"*/{WEIGHTS}")))


def placed(opened: Opened, named: Mapping[str, Weights]) -> dict[Place, Weights]:
    """Updates by the file's names -> by layer, in the layers' own dimensions; fused ones cut apart."""
    found: dict[Place, Weights] = {}
    for name, update in named.items():
        if name in opened.meant:
            found |= _parts(opened.meant[name], update, opened.base)
    order = {place: i for i, place in enumerate(family_shapes(opened.base.name))}
    return dict(sorted(found.items(), key=lambda item: (item[0][0] != DENOISER, order.get(item[0], len(order)))))


def kernel(place: Place, base: Base) -> tuple[int, ...]:
    """Height and width of a convolution's kernel; () for a linear layer."""
    return family_shapes(base.name)[place][2:]


def as_matrix(update: LohaWeights | LokrWeights, place: Place, base: Base) -> Tensor:
    """delta-W of a type that needs no base, in the layer's own dimensions."""
    delta = update.delta()
    sides = kernel(place, base)
    return delta if delta.ndim > 2 or not sides else delta.reshape(len(delta), -1, *sides)


def refuse_dora(opened: Opened, what: str) -> None:
    """UserError where an update depends on the base's weights."""
    if any(isinstance(update, DoraWeights) for update in opened.named.values()):
        hint = "Merge it into its base with `darkroom merge BASE ADAPTER`, then `darkroom extract` a plain LoRA."
        raise UserError(f"{opened.name} is a DoRA, whose changes depend on the base: {what}.", hint)


def require_one_family(adapters: Iterable[Opened]) -> None:
    first, *others = adapters
    for other in others:
        if (other.base.family, other.base.own_size) != (first.base.family, first.base.own_size):
            message = f"{first.name} is for {first.base.label}, {other.name} for {other.base.label}."
            raise UserError(message, "Adapters that are merged must be of one family.")


def _base(contents: list[Contents], bases: list[Base], family: str) -> Base:
    first = bases[0]
    tells = any(text_width(one.modules) for one in contents) or first.family == "sd3" or not first.name
    if tells or not family or first.family == family:
        return first
    if family == "sd3":
        said = said_base(contents[0].metadata)
        family = said if said in SD3_SIZES else "3-medium"
    return Base(family, FAMILIES["sd3" if family in SD3_SIZES else family].spec.label, peft_part=first.peft_part)


def _names(base: Base, own: Base, folder: str) -> Mapping[str, Known]:
    """What the names in one file mean; peft's text encoders are told by their folders."""
    part = TEXT_FOLDERS.get(folder, own.peft_part)
    shapes = {place: shape for place, shape in family_shapes(base.name).items() if place[0] == part}
    return {**base.known, **names_of_shapes(shapes)}


def _widened(update: Weights) -> Weights:
    """fp8 in fp16, which holds all its numbers: little can be reckoned in fp8 itself."""
    narrow = {name: tensor.half() for name, tensor in update.tensors().items() if tensor.dtype.itemsize == 1}
    return replace(update, **narrow) if narrow else update


def _is_readable(update: Weights, layer: Known) -> bool:
    """Whether its matrices go together; only a plain LoRA can be cut apart or turned as SD 3 needs it."""
    if layer.places[0][0] == T5:
        return False
    if isinstance(update, LoraWeights) and update.up.shape[1] != update.down.shape[0]:
        return False
    if type(update) is LoraWeights:
        return True
    turned = layer.style in (KOHYA, ORIGINAL) and layer.places[0][1].endswith("norm1_context.linear")
    return len(layer.places) == 1 and not (turned and layer.shape[0] == 2 * layer.shape[1])


def _parts(layer: Known, update: Weights, base: Base) -> dict[Place, Weights]:
    shapes = family_shapes(base.name)
    original = base.name in SD3_SIZES and layer.style in (KOHYA, ORIGINAL)  # named after the fused, turned layers
    parts = split(update, layer.places) if original and type(update) is LoraWeights else {layer.places[0]: update}
    return {place: part.fitted(shapes[place]) or _dimensions(part, shapes[place]) for place, part in parts.items()}


def _dimensions(update: Weights, shape: tuple[int, ...]) -> Weights:
    """Where the base has a size of its own: the matrices as they are, but 2-D for what is linear by its name."""
    if len(shape) == 2 and isinstance(update, LoraWeights) and update.down[0].numel() == update.down.shape[1]:
        return replace(update, down=update.down.flatten(1), up=update.up.flatten(1))
    return update
