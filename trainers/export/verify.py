"""Which image UIs load an adapter file, by their own key rules (`ui_rules`), for every Stable Diffusion family."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import Tensor

from trainers.adapters.adapter import Place
from trainers.adapters.names import OLD_PROCESSOR
from trainers.export import remarks
from trainers.export.contents import Contents, contents_of_tensors
from trainers.export.known_names import DIFFUSERS, KOHYA, OLD_DIFFUSERS, SGM, Known, names_for
from trainers.export.modules import BUNDLE, MAGNITUDES, Module, clean
from trainers.export.ui_rules import UIS, UiRules
from trainers.export.which_base import Base, base_of

__all__ = ["UIS", "UiVerdict", "judge", "verdicts"]

Shapes = Mapping[Place, tuple[int, ...]]
DOTTED = frozenset({DIFFUSERS, OLD_DIFFUSERS})


@dataclass(frozen=True)
class UiVerdict:
    """Whether a UI loads the file, the keys it would not use, and why not in one sentence."""

    ui: str
    loads: Literal["whole", "partly", "no"]
    unmatched: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class _Case:
    """A file before the rules of one UI."""

    rules: UiRules
    contents: Contents
    base: Base
    known: Mapping[str, Known]
    checked: bool  # the layers' shapes are those of the very base

    def known_as(self, module: Module) -> Known | None:
        """What the UI takes the module's name for."""
        layer, reads = self.known.get(module.name), self.rules.reads.get(self.base.family, ())
        if layer is None or layer.style in reads:
            return layer
        # diffusers' old style had other names for attention layers alone.
        alike = layer.style == DIFFUSERS and not layer.places[0][1].endswith(tuple(OLD_PROCESSOR))
        return layer if alike and OLD_DIFFUSERS in reads else None

    @cached_property
    def mixed(self) -> bool:
        """Whether the file names SDXL's blocks in both ways: diffusers then drops the original ones."""
        return {SGM, KOHYA} <= {layer.style for name in self.contents.modules if (layer := self.known.get(name))}


def verdicts(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], shapes: Shapes | None = None
) -> list[UiVerdict]:
    """One verdict per UI; empty for a file of another family, whose rules are not here.

    `shapes` are the layers of its base (`adapter_file.module_shapes`); without them, those of the family's usual size.
    """
    contents = contents_of_tensors(tensors, metadata)
    return judge(contents, base_of(contents), shapes)


def judge(contents: Contents, base: Base, shapes: Shapes | None = None) -> list[UiVerdict]:
    """The same for a file whose matrices are not read."""
    if not base.name:
        return []
    known = names_for(base.name, shapes) if shapes else base.known
    checked = shapes is not None or not base.own_size
    return [_judge(_Case(rules, contents, base, known, checked)) for rules in UIS]


def _judge(case: _Case) -> UiVerdict:
    rules, contents, family = case.rules, case.contents, case.base.family
    everything = tuple(sorted(contents.shapes))
    if family not in rules.reads:
        return UiVerdict(rules.ui, "no", everything, rules.no_family.get(family, rules.refusal))
    kinds = {module.type for module in contents.modules.values()}
    if kinds - rules.types and (rules.refuses_types or not kinds & rules.types):
        return UiVerdict(rules.ui, "no", everything, f"it does not read {' and '.join(sorted(kinds - rules.types))}")
    if case.base.own_size and not rules.any_size:
        return UiVerdict(rules.ui, "no", (), "its base has a size of its own, which this UI is not known to open")
    if strange := _strange(case):
        *first, last = rules.only[family]
        begin = f"{', '.join(first)} or {last}"
        why = f"it stops at a key that does not begin with {begin} ({len(strange):,} here)"
        return UiVerdict(rules.ui, "no", tuple(strange), why)
    if family in rules.only and case.mixed:
        why = "it stops at a file that names some blocks as the original code does, and some as diffusers does"
        return UiVerdict(rules.ui, "no", everything, why)
    read = {name: keys for name, module in contents.modules.items() if (keys := _read(case, module))}
    return _of_read(case, read)


def _of_read(case: _Case, read: Mapping[str, set[str]]) -> UiVerdict:
    rules, contents = case.rules, case.contents
    used = set().union(*read.values())
    used |= {key for key in contents.stray if rules.embeddings and key.startswith(BUNDLE)}
    unmatched = tuple(sorted(contents.shapes.keys() - used))
    refused = [key for key in unmatched if not _dropped(case, key)]
    if not read:
        return UiVerdict(rules.ui, "no", unmatched, _cause(case, unmatched))
    if len(refused) > rules.tolerates:
        return UiVerdict(rules.ui, "no", unmatched, f"it refuses a file with {_cause_of_refusal(case, refused)}")
    places = [layer for name in read if (layer := case.known.get(name))]
    if all(layer.text for layer in places) and any(not is_text(name) for name in contents.modules):
        return UiVerdict(rules.ui, "partly", unmatched, "it uses the text encoder's part only")
    parts = [_cause(case, unmatched)] if unmatched else []
    parts += remarks.remarks(rules, contents, case.base, list(read), case.checked)
    return UiVerdict(rules.ui, "partly" if unmatched else "whole", unmatched, "; ".join(part for part in parts if part))


def _strange(case: _Case) -> list[str]:
    only = case.rules.only.get(case.base.family)
    return sorted(key for key in case.contents.shapes if not key.startswith(only)) if only else []


def _read(case: _Case, module: Module) -> set[str]:
    """The module's keys that the UI uses."""
    rules, layer = case.rules, case.known_as(module)
    if layer is None or module.type not in rules.types or (module.way and module.way not in rules.ways):
        return set()
    if case.checked and not module.fits(layer.shape, rules.exact_shapes):
        return set()
    if layer.style == SGM and rules.exact_shapes and case.mixed:
        return set()
    return {key for part, key in module.keys.items() if _part_is_read(rules, layer, part)}


def _part_is_read(rules: UiRules, layer: Known, part: str) -> bool:
    if part == "magnitude":
        return layer.style in rules.magnitude
    if part == "dora_scale":
        return rules.dora_scale
    return part != "alpha" or rules.dotted_alpha or layer.style not in DOTTED


def _dropped(case: _Case, key: str) -> bool:
    """Whether the UI passes over the key without an error, though it may refuse others."""
    rules = case.rules
    if key.endswith(".dora_scale") and not rules.dora_scale:
        return True
    layer = next((case.known[name] for name in _heads(key) if name in case.known), None)
    dropped = rules.drops.get(case.base.family, frozenset())
    return layer is not None and (layer.style in dropped or (layer.style == SGM and case.mixed))


def _is_attention(case: _Case, key: str) -> bool:
    """Whether the key is of a layer that diffusers named otherwise once."""
    layer = next((case.known[name] for name in _heads(key) if name in case.known), None)
    return layer is not None and layer.style == DIFFUSERS and layer.places[0][1].endswith(tuple(OLD_PROCESSOR))


def _cause_of_refusal(case: _Case, refused: list[str]) -> str:
    """What a strict UI says of the keys that it does not know."""
    rules, layers = case.rules, case.contents.modules
    misfits = [
        m for m in layers.values() if (layer := case.known_as(m)) and not m.fits(layer.shape, rules.exact_shapes)
    ]
    keys = {key for module in misfits for key in module.keys.values()}
    if case.checked and set(refused) <= keys:
        linear = any(len(case.known[module.name].shape) == 2 for module in misfits)
        kind = "4-D matrices where the base has a linear layer" if linear else "2-D matrices where it has a convolution"
        return f"other shapes than the base's layers: {kind} ({misfits[0].name})"
    if not rules.dotted_alpha and any(key.endswith(".alpha") for key in refused) and _is_dotted(refused):
        return "`.alpha` keys in this layout: each key must have `lora` in its name"
    amount = f"more than {rules.tolerates:.0f} keys" if rules.tolerates else "any key"
    return f"{amount} that it does not know ({_kinds(case, refused)})"


def _cause(case: _Case, unmatched: tuple[str, ...]) -> str:
    """Why these keys are not used, in one sentence; "" where their names say it."""
    rules, contents = case.rules, case.contents
    if any(_dropped(case, key) and not key.endswith(".dora_scale") for key in unmatched):
        if case.base.family == "sd3":
            return "it drops these names of Stable Diffusion 3's layers without an error"
        return "it drops the original block names beside diffusers' ones without an error"
    if unmatched and all(key.endswith(".dora_scale") for key in unmatched):
        return "it drops dora_scale, so that the adapter acts as a plain LoRA"
    if unmatched and all(key.endswith(MAGNITUDES) for key in unmatched):
        return "it looks for DoRA's magnitudes under dora_scale, and applies the adapter without them"
    reads = rules.reads[case.base.family]
    if OLD_DIFFUSERS in reads and DIFFUSERS not in reads and all(_is_attention(case, key) for key in unmatched):
        return "it knows the attention layers by other names than these"
    if len(unmatched) < len(contents.shapes):
        return ""
    known = any(case.known_as(module) for module in contents.modules.values())
    return "the matrices have other shapes than the base's layers" if known else rules.refusal


def _kinds(case: _Case, keys: list[str]) -> str:
    """What sort of keys these are, and how many."""
    counts = Counter(_kind(case, key) for key in keys)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())


def _kind(case: _Case, key: str) -> str:
    if key.startswith(BUNDLE):
        return "of a textual inversion"
    if key.endswith(MAGNITUDES):
        return "lora_magnitude_vector"
    head = next((name for name in _heads(key) if name in case.known), "")
    return f"in the style of {case.known[head].style.rstrip('_')}" if head else "unknown"


def _heads(key: str) -> list[str]:
    """Module names that `key` may belong to: its beginnings up to a dot."""
    pieces = key.split(".")
    return [".".join(pieces[:i]) for i in range(len(pieces) - 1, 0, -1)]


def _is_dotted(keys: list[str]) -> bool:
    return any(key.startswith(("unet.", "transformer.", "text_encoder")) for key in keys)


def is_text(name: str) -> bool:
    path = clean(name).removeprefix("base_model.model.")  # peft names the model by its folder: CLIP's paths tell it
    return path.startswith(("lora_te", "text_encoder", "text_model.", "encoder."))
