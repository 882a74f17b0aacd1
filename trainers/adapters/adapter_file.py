"""Read an adapter file, and put it on a base model for sampling or as the start of a training."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainers.adapters.adapter import Adapter, Place, put, weights_on
from trainers.adapters.hosting import attach_updates
from trainers.adapters.joint import groups, split
from trainers.adapters.names import lookup
from trainers.adapters.reading import OTHER_TYPES, PEFT, PEFT_CONFIG, read_layers, read_modules, stray_keys
from trainers.adapters.targets import adaptable, parts
from trainers.adapters.weights import LoraWeights, Weights
from trainers.control import STRONGEST
from trainers.errors import UserError
from trainers.families.base import Components
from trainers.families.detect import identify
from trainers.families.folders import read_json

__all__ = [
    "OTHER_TYPES",
    "WEIGHTS",
    "AdapterFile",
    "adapter_files",
    "apply_file",
    "fitting",
    "module_shapes",
    "read_adapter",
    "read_layers",
    "require_strength",
    "reshaped",
    "stray_keys",
    "warm_start",
]

WEIGHTS = "adapter_model.safetensors"  # peft's, beside its config
PIPELINE_PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
INSIDE = re.compile(r"\.(lora_[AB]|base_layer)(\.|$)")  # modules that peft puts into a layer


@dataclass(frozen=True)
class AdapterFile:
    """An adapter file's tensors as they are stored, its header's metadata, and peft's config from beside it."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    peft_config: dict[str, Any]  # empty where there is none
    inside: dict[str, "AdapterFile"] = field(default_factory=dict)  # of peft's folder: one per model

    @cached_property
    def modules(self) -> dict[str, Weights]:
        """Module name as the file spells it, such as lora_unet_mid_block_attentions_0_proj_in -> its update.

        A missing alpha means scale 1.
        """
        if self.inside:
            return {_named(part, n): update for part, own in self.inside.items() for n, update in own.modules.items()}
        return read_modules(self.tensors, self.metadata, self.peft_config)

    @cached_property
    def layers(self) -> dict[str, LoraWeights]:
        """The pairs of matrices alone."""
        if self.inside:
            return {_named(part, n): layer for part, own in self.inside.items() for n, layer in own.layers.items()}
        return read_layers(self.tensors, self.metadata, self.peft_config)

    @property
    def type(self) -> str:
        """LoRA, or one of the other types told from key endings."""
        return next((name for end, name in OTHER_TYPES.items() if any(k.endswith(end) for k in self.tensors)), "LoRA")


def read_adapter(path: Path) -> AdapterFile:
    """Open an adapter file of any layout, or the folder that peft wrote, whose names then begin with the model's.

    UserError when it is damaged or something else (and what it is).
    """
    if not path.is_dir():
        return _read_file(path)
    files = {part: _read_file(file) for part, file in adapter_files(path).items()}
    tensors = {_named(part, key): tensor for part, file in files.items() for key, tensor in file.tensors.items()}
    metadata = {key: value for file in files.values() for key, value in file.metadata.items()}
    return AdapterFile(path, tensors, metadata, {}, files)


def adapter_files(path: Path) -> dict[str, Path]:
    """Folder name -> adapter file; one entry named "" but for peft's folders, of one model or of several.

    UserError where nothing is there, or a folder that peft did not write.
    """
    if not path.is_dir():
        if not path.exists():
            raise UserError(f"There is no file {path}.", "Check the spelling.")
        return {"": path}
    if (path / WEIGHTS).is_file():
        return {path.name: path / WEIGHTS}
    inside = {file.parent.name: file for file in sorted(path.glob(f"*/{WEIGHTS}"))}
    if not inside:
        raise _no_adapter(path)
    first = [name for name in ("unet", "transformer") if name in inside]  # it tells the family
    return {name: inside[name] for name in dict.fromkeys([*first, *inside])}


def require_strength(value: float, name: str) -> None:
    """UserError for what is no number, or stronger than any picture is drawn."""
    if not abs(value) <= STRONGEST:  # NaN is not, either
        message = f"{name} is {value:g}, and must be from {-STRONGEST:g} to {STRONGEST:g}."
        raise UserError(message, "Give 0.8, for example.")


def _no_adapter(folder: Path) -> UserError:
    if (folder / "model_index.json").is_file():
        return UserError(f"{folder} is the folder of a base model, and holds no adapter.", "Name an adapter file.")
    if any(folder.glob("*.safetensors")):
        return UserError(f"{folder} is a folder, not an adapter file.", "Name the .safetensors file in it.")
    return UserError(f"{folder} holds no adapter.", f"Name an adapter file, or the folder that holds {WEIGHTS}.")


def _named(part: str, name: str) -> str:
    """A name in peft's file, as diffusers has it: unet.<path>; as it is where the folder's name tells no model."""
    return f"{part}.{name.removeprefix(f'{PEFT}.')}" if part in PIPELINE_PARTS else name


def _read_file(path: Path) -> AdapterFile:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
    except (OSError, SafetensorError) as error:
        identify(path)  # says what it is instead, where that can be told
        message = f"{path.name} cannot be read as a .safetensors file ({str(error)[:200]})."
        raise UserError(message, "Download or export it again.") from error
    beside = path.parent / PEFT_CONFIG
    in_peft = any(name.startswith(f"{PEFT}.") for name in tensors) and beside.is_file()
    found = AdapterFile(path, tensors, metadata, read_json(beside) if in_peft else {})
    if not found.modules and found.type == "LoRA":
        kind = identify(path)
        what = f"is {_article(kind.label)}, not a LoRA adapter" if kind.kind != "unknown" else "holds no LoRA adapter"
        raise UserError(f"{path.name} {what}.", "Choose an adapter file that Darkroom, kohya, diffusers or peft wrote.")
    return found


def fitting(components: Components, layers: Mapping[str, Weights]) -> tuple[dict[Place, Weights], list[str]]:
    """(the layers that the base has, by place; the names that fit no module of it, or not its shape)."""
    shapes = module_shapes(components)
    found, unknown = {}, []
    for name, updates in resolve(layers, shapes).items():
        shaped = {place: reshaped(update, shapes[place]) for place, update in updates.items()}
        if not shaped or None in shaped.values():
            unknown.append(name)
        else:
            found |= shaped
    order = {place: i for i, place in enumerate(shapes)}
    return dict(sorted(found.items(), key=lambda item: order[item[0]])), sorted(unknown)


def resolve(layers: Mapping[str, Weights], places: Collection[Place]) -> dict[str, dict[Place, Weights]]:
    """A file's layers by name -> what each is of `places`: one module, three of SD 3's fused layers, or none."""
    names, joined = lookup(places), groups(places)
    found: dict[str, dict[Place, Weights]] = {}
    for name, layer in layers.items():
        if name in names:
            found[name] = {names[name]: layer}
        elif name in joined and type(layer) is LoraWeights:
            found[name] = split(layer, joined[name])
        else:
            found[name] = {}
    return found


def module_shapes(components: Components) -> dict[Place, tuple[int, ...]]:
    """Every layer an adapter can sit on -> the shape of its weight, in module order."""
    return {
        (part, path): tuple((module.get_base_layer() if hasattr(module, "base_layer") else module).weight.shape)
        for part, model in parts(components).items()
        for path, module in model.named_modules()
        if adaptable(module) and not INSIDE.search(path)
    }


def reshaped(layer: Weights, shape: tuple[int, ...]) -> Weights | None:
    """The layer with matrices of a weight's own dimensions (1x1 convolutions are stored 2-D or 4-D); None if unfit."""
    return layer.fitted(shape)


def apply_file(components: Components, path: Path, strength: float = 1.0, strict: bool = False) -> Adapter:
    """Attach the file's adapter to the base, at `strength`, in eval mode; it can be switched off and on again.

    Keys that fit nothing are in the adapter's `unknown`.

    Raises:
        UserError: the file is of a type that is not read, or none of its layers fits the base; with `strict`, or any
            does not.
    """
    file = read_adapter(path)
    found, unknown = _usable(components, file)
    if strict and unknown:
        raise _unfit(components, file, unknown)
    adapter = attach_updates(components, found)
    adapter.unknown = (*unknown, *stray_keys(file.tensors, file.modules))
    adapter.set_strength(strength)
    adapter.eval()
    return adapter


@torch.no_grad()
def warm_start(adapter: Adapter, components: Components, path: Path) -> list[str]:
    """Give a fresh adapter the updates of a file of the same type and rank; its own alphas stay.

    Returns what was not taken over: names and keys of the file that change something and that no layer is for.

    Raises:
        UserError: the file is of another type or rank, or fits no layer.
    """
    file = read_adapter(path)
    found, unknown = _usable(components, file)
    taken = {place: update for place, update in found.items() if place in adapter.layers and not update.idle}
    if not taken:
        message = f"{path.name} holds none of the layers that are to be trained."
        raise UserError(message, "Set adapter.targets to those of the file, or leave adapter.init_from empty.")
    for place, update in taken.items():
        layer = adapter.layers[place]
        own = weights_on(layer)
        _check_alike(path, place, own, update)
        put(layer, update.rescaled(own.alpha).tensors())
    missing = sorted(place for place, update in found.items() if place not in adapter.layers and not update.idle)
    return [*unknown, *(f"{part}: {path}" for part, path in missing), *stray_keys(file.tensors, file.modules)]


def _check_alike(path: Path, place: Place, own: Weights, update: Weights) -> None:
    if own.label != update.label:
        message = f"{path.name} is a {update.label} adapter, and a {own.label} is to be trained."
        raise UserError(message, "Set adapter.type to that of the file, or leave adapter.init_from empty.")
    if own.rank != update.rank:
        message = f"{path.name} has rank {update.rank} at {place[1]}, and rank {own.rank} is to be trained there."
        raise UserError(message, "Set adapter.rank (adapter.conv_rank, adapter.text_rank) to that of the file.")
    mine, theirs = ({name: tuple(tensor.shape) for name, tensor in w.tensors().items()} for w in (own, update))
    if mine != theirs:
        what = f"{path.name} divides {place[1]} into matrices of other sizes than are to be trained"
        raise UserError(f"{what}.", "For a LoKr, set adapter.factor and adapter.decompose_both to those of the file.")


def _usable(components: Components, file: AdapterFile) -> tuple[dict[Place, Weights], list[str]]:
    if not file.modules:
        hint = "An image program that knows the type can use it; LoRA, DoRA, LoHa and LoKr files can be used here."
        raise UserError(f"{file.path.name} is {_article(file.type)} adapter, which cannot be used here.", hint)
    found, unknown = fitting(components, file.modules)
    if not found:
        raise _unfit(components, file, unknown)
    return found, unknown


def _unfit(components: Components, file: AdapterFile, unknown: list[str]) -> UserError:
    count = f"{len(unknown)} of {len(file.modules)} layers ({unknown[0]}, ...)"
    message = f"{file.path.name} does not fit {components.name}: it lacks {count} or has them in other sizes."
    return UserError(message, "Choose the base model it was trained on (`darkroom inspect` names it).")


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'AEIOaeio' else 'a'} {words}"
