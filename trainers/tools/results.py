"""What the adapter tools have in common: where results go, what their metadata says, and what is told of them."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.adapters.adapter import DENOISER, Place
from trainers.adapters.reading import HEADER_CONFIG
from trainers.adapters.weights import LoraWeights, Weights
from trainers.errors import UserError
from trainers.export import told
from trainers.export.blocks import label
from trainers.export.metadata import own_version
from trainers.export.network import said_arguments
from trainers.export.which_base import Base
from trainers.export.writer import FORMS, ExportReport, write
from trainers.families.base import of_kind
from trainers.families.registry import FAMILIES
from trainers.memory import DTYPES
from trainers.tools.factors import relative

ENDING = ".safetensors"
CHECKPOINTS = (ENDING, ".ckpt", ".pt")
TRIGGER = "modelspec.trigger_phrase"
DYNAMIC = "Dynamic"  # what kohya's scripts write for ranks and alphas that vary
STALE = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256", HEADER_CONFIG, "format")  # of the tensors
FILING = ("ss_base_model_version", "ss_v2", "modelspec.architecture", "modelspec.implementation")


@dataclass
class Group:
    """Squared norms over some layers: of the error that was made, and of what it was made in."""

    layers: int = 0
    lost: float = 0.0
    whole: float = 0.0

    def add(self, lost: float, whole: float) -> None:
        self.layers, self.lost, self.whole = self.layers + 1, self.lost + lost, self.whole + whole


class Errors:
    """Errors by group of layers: down 1, mid, block 12, text encoder 1."""

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {}

    def add(self, place: Place, lost: float, whole: float) -> None:
        self.groups.setdefault(label(place), Group()).add(lost, whole)

    @property
    def total(self) -> str:
        return percent(sum(group.lost for group in self.groups.values()), sum(g.whole for g in self.groups.values()))

    def by_group(self) -> dict[str, str]:
        return {name: percent(group.lost, group.whole) for name, group in self.groups.items()}


def percent(lost: float, whole: float) -> str:
    """A relative error, from squared norms."""
    error = relative(lost, whole)
    return "none" if error < 1e-6 else f"{100 * error:.3g} %"


def target(out: Path, inputs: Iterable[Path], folder: bool = False) -> Path:
    """Where a result goes, with the ending of an adapter or checkpoint file; `folder`: without one.

    UserError when something is there already: no tool writes over a file, its inputs least of all.
    """
    if folder and out.suffix.lower() in CHECKPOINTS:
        message = f"{out.name} would be a folder: the base is one of diffusers, and so is what comes of it."
        raise UserError(message, f"Name it without {out.suffix}.")
    path = out if folder or out.name.endswith(ENDING) else out.with_name(out.name + ENDING)
    for one in inputs:
        if path == one or (path.exists() and one.exists() and path.samefile(one)):
            raise UserError(f"{path.name} is an input, and is not written over.", "Name another file with --out.")
    if path.exists():
        raise UserError(f"{path} is there already.", "Name another with --out, or move it away.")
    if not path.parent.is_dir():
        raise UserError(f"There is no folder {path.parent}.", "Make it, or name another with --out.")
    return path


def require_choice(value: str, choices: Iterable[str], option: str) -> None:
    if value not in choices:
        raise UserError(f'{option} takes no "{value}".', f"Choose one of {', '.join(choices)}.")


def require_output(dtype: str | None, form: str | None) -> None:
    """UserError for a number format or layout that there is not; empty ones are chosen later."""
    if dtype:
        require_choice(dtype, DTYPES, "--dtype")
    if form:
        require_choice(form, FORMS, "--to")


def require_limits(rank: int | None, keep: float | None, needed: bool = True) -> None:
    if needed and rank is None and keep is None:
        raise UserError("Neither a rank nor a share to keep is given.", "Give --rank 16, or --keep 0.95.")
    if rank is not None and rank < 1:
        raise UserError(f"--rank is {rank}, and must be 1 or more.", "Give --rank 16, for example.")
    if keep is not None and not 0 < keep <= 1:
        raise UserError(f"--keep is {keep:g}, and must be above 0 and at most 1.", "Give --keep 0.95, for example.")


def save(
    modules: Mapping[Place, Weights], entries: dict[str, str], base: Base, path: Path, dtype: str, form: str
) -> ExportReport:
    """Write an adapter, verified; its rounding and warnings are in the report."""
    if form == "peft" and path.with_suffix("").exists():
        raise UserError(f"{path.with_suffix('')} is there already.", "Name another with --out, or move it away.")
    return write(modules, entries, FAMILIES[base.family].spec, path, dtype, form)


def written(report: ExportReport) -> dict[str, Any]:
    """What is said of a file that was written."""
    parts = {"denoiser": 0, "text encoder": 0}
    for part, count in report.modules.items():
        parts["denoiser" if part == DENOISER else "text encoder"] += count
    return {
        "adapter": str(report.path),
        "format": f"{report.form}, {report.dtype}",
        "layers": {name: count for name, count in parts.items() if count},
        "warnings": report.warnings,
    }


def shares(paths: Iterable[Path], weights: Iterable[float]) -> list[dict[str, Any]]:
    """What was merged, and how much of it."""
    return [{"file": str(path), "weight": weight} for path, weight in zip(paths, weights, strict=True)]


def counts(values: Iterable[Any]) -> dict[Any, int]:
    """Value -> how often, the commonest first."""
    return dict(Counter(values).most_common())


def kept(metadata: Mapping[str, str]) -> dict[str, str]:
    """The entries that stay true of changed tensors."""
    return {key: value for key, value in metadata.items() if key not in STALE}


def sized(modules: Mapping[Place, Weights], metadata: Mapping[str, str] | None = None) -> dict[str, str]:
    """ss_network_dim and ss_network_alpha, those of 3x3 convolutions apart, as kohya has them."""
    wide = {place: module for place, module in modules.items() if _is_wide(module)}
    rest = {place: module for place, module in modules.items() if place not in wide} or wide
    entries = {"ss_network_dim": _one({m.rank for m in rest.values()})}
    entries["ss_network_alpha"] = _one({float(m.alpha) for m in rest.values()})
    if wide:
        convolutions = {"conv_dim": _one({m.rank for m in wide.values()})}
        convolutions["conv_alpha"] = _one({float(m.alpha) for m in wide.values()})
        entries["ss_network_args"] = json.dumps({**said_arguments(metadata or {}), **convolutions})
    return {**(metadata or {}), **entries}


def fresh(base: Base, name: str, said: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What programs need to file a new adapter; what only metadata can tell comes from those of the inputs."""
    spec, said = FAMILIES[base.family].spec, list(said)
    prediction = _prediction(said)
    resolution = next((one[key] for one in said if (key := "modelspec.resolution") in one), "")
    triggers = dict.fromkeys(word for one in said for word in told.value(one, TRIGGER).split(", ") if word)
    side = spec.native_resolution
    entries = {
        "ss_base_model_version": version(base, prediction),
        "ss_v2": str(base.family == "sd2"),
        "ss_network_module": module_of(base),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": architecture(base, prediction),
        "modelspec.implementation": spec.implementation,
        "modelspec.title": name,
        "modelspec.resolution": resolution or f"{side}x{side}",
        TRIGGER: ", ".join(triggers),
        "lora_darkroom.version": own_version(),
    }
    return {key: value for key, value in entries.items() if value}


def filed(entries: Mapping[str, str], base: Base, name: str, anew: bool = False) -> dict[str, str]:
    """`entries` with what tells the family, without which A1111 hides an adapter; `anew`: in place of what is there."""
    true = {key: value for key, value in fresh(base, name, [entries]).items() if key in FILING}
    if anew:
        return {**entries, **true}
    return {**entries, **{key: value for key, value in true.items() if not told.value(entries, key)}}


def module_of(base: Base) -> str:
    """ss_network_module of a plain LoRA."""
    return "networks.lora_sd3" if FAMILIES[base.family].spec.joint else "networks.lora"


def version(base: Base, prediction: str) -> str:
    """ss_base_model_version."""
    return of_kind(FAMILIES[base.family].spec.base_versions, base.name, prediction or "epsilon")


def architecture(base: Base, prediction: str) -> str:
    """ModelSpec's id of an adapter for the base; "" where nothing tells which of two it is."""
    found = of_kind(FAMILIES[base.family].spec.architectures, base.name, prediction)
    return f"{found}/lora" if found else ""


def _prediction(said: Iterable[Mapping[str, str]]) -> str:
    for one in said:
        text = one.get("modelspec.prediction_type", "")
        architecture, version = one.get("modelspec.architecture", ""), one.get("ss_base_model_version", "")
        if text.startswith("v") or "768-v" in architecture or version.endswith("_v"):
            return "v"
        if text.startswith("eps") or "v2-512" in architecture or version in ("sd_v1", "sd_v2"):
            return "epsilon"
    return ""


def _is_wide(module: Weights) -> bool:
    return isinstance(module, LoraWeights) and module.down.ndim == 4 and max(module.down.shape[2:]) > 1


def _one(values: set) -> str:
    return str(next(iter(values))) if len(values) == 1 else DYNAMIC
