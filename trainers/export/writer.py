"""Write an adapter file, read it back, and refuse to call it done until it holds what was trained."""

import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from trainers.adapters.adapter import DENOISER, Adapter, Place, Weights
from trainers.adapters.names import pipeline_part
from trainers.adapters.tokens import tokens_of_state
from trainers.adapters.unheard import unheard
from trainers.adapters.weights import DoraWeights
from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.export import diffusers, kohya
from trainers.export.check_file import check_file, check_peft_folder
from trainers.export.embedding import bundled, file_name, write_embedding
from trainers.export.hashes import adapter_hashes
from trainers.export.metadata import RunFacts, embedding_metadata, metadata
from trainers.export.network import scaled_by_one
from trainers.export.sidecars import covers, write_sidecars
from trainers.families.base import FamilySpec
from trainers.files import write_whole
from trainers.memory import DTYPES

NOTABLE_ROUNDING = 0.01  # of a module's delta-W
DORA_ELSEWHERE = (  # read in ComfyUI's weight_decompose, Forge, InvokeAI, and diffusers' lora_pipeline.py
    "DoRA is not computed alike everywhere: ComfyUI and Forge divide by the size of the base's rows in place of the "
    "changed ones, InvokeAI by that of columns, and diffusers leaves the sizes out of files in kohya's layout (in its "
    "own it has them). Look at pictures from the program that you will use."
)


@dataclass
class ExportReport:
    """What was written; `rounding` is the largest relative change of a module's delta-W by the file's dtype."""

    path: Path  # a folder in peft's layout
    files: list[Path]
    form: str
    dtype: str
    modules: dict[str, int]  # by part
    hash: str  # sshs_model_hash; empty in peft's layout
    rounding: float
    warnings: list[str] = field(default_factory=list)


def export_report(
    adapter: Adapter | Mapping[Place, Weights],
    config: TrainConfig,
    facts: RunFacts,
    spec: FamilySpec,
    path: Path,
    cover: Path | None = None,
    form: str = "kohya",
    keep: bool = False,
    vectors: Mapping[str, Tensor] | None = None,
) -> ExportReport:
    """Write `path` with the facts of its run in it, name.json and, given a cover, name.png beside it; verified.

    New tokens (`vectors`, text_0 -> [n, D]; an Adapter brings its own) go into an embedding file beside it.
    `keep`: a name.json or name.png that is there already stays as it is. That, and one that cannot be written, is a
    warning of the report.

    Raises:
        UserError: the weights are not finite, the adapter or the embedding file cannot be written, or does not read
            back as what was trained; with `keep`, an embedding file with other vectors is there already.
    """
    if isinstance(adapter, Adapter):
        vectors = tokens_of_state(adapter.tokens.named()) if adapter.tokens else None
        modules = adapter.modules()
    else:
        modules = adapter
    entries = metadata(config, facts, spec, path.stem)
    damaged = False
    if cover and cover.exists():
        try:
            if config.saving.cover and config.saving.privacy != "minimal":
                entries |= covers(cover)
        except OSError:  # the adapter is worth more than its picture
            damaged, cover = True, None
    inside, embeddings = {}, []
    if vectors:  # written first: the newest file is the adapter's
        name, told = file_name(config, path.stem), embedding_metadata(config, facts, spec, path.stem)
        embeddings.append(write_embedding(vectors, told, spec, path.with_name(name), keep))
        inside = bundled(vectors, spec, config.data.trigger.strip()) if config.saving.bundle else {}
    report = write(modules, entries, spec, path, config.saving.dtype, form, inside)
    report.files += embeddings
    beside, missing = write_sidecars(path, config, spec.name, cover, keep)
    report.files += beside
    report.warnings += missing
    report.warnings += ["The newest sample cannot be read: the adapter has no cover picture."] if damaged else []
    return report


def write(
    modules: Mapping[Place, Weights],
    entries: dict[str, str],
    spec: FamilySpec,
    path: Path,
    dtype: str,
    form: str = "kohya",
    inside: Mapping[str, Tensor] | None = None,
) -> ExportReport:
    """Write the adapter in a layout (kohya, diffusers, peft) and verify it before it appears under its name.

    `entries` is its metadata without hashes, which are added here; `inside` are tensors that belong to no layer, for
    kohya's layout: the others' readers refuse them. peft's layout is a folder of `path`'s name without
    ending, with one folder per model in it, each with hashes of its own. Raises UserError as `export_report` does.
    """
    if form not in FORMS:
        raise UserError(f'There is no adapter layout "{form}".', f"Choose one of {', '.join(FORMS)}.")
    report = ExportReport(path, [], form, dtype, dict(Counter(part for part, _ in modules)), "", 0.0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        FORMS[form](modules, entries, spec, report, dict(inside or {}))
    except OSError as error:
        message = f"The adapter could not be written to {path.parent} ({error.strerror or error})."
        raise UserError(message, "Make room on that disk, or choose another folder.") from error
    report.warnings = _warnings(modules, spec, report)
    return report


def _kohya(
    modules: Mapping[Place, Weights], entries: dict, spec: FamilySpec, report: ExportReport, inside: dict
) -> None:
    tensors = kohya.tensors(modules, spec, DTYPES[report.dtype]) | inside
    _one_file(tensors, modules, entries, report)


def _diffusers(
    modules: Mapping[Place, Weights], entries: dict, spec: FamilySpec, report: ExportReport, _: dict
) -> None:
    tensors = diffusers.tensors(modules, spec, DTYPES[report.dtype])
    _one_file(tensors, modules, {**scaled_by_one(entries), "format": "pt"}, report)


def _one_file(tensors: dict, modules: Mapping[Place, Weights], entries: dict, report: ExportReport) -> None:
    _refuse_broken(tensors, report.dtype)
    hashes = adapter_hashes(tensors, entries)

    def check(partial: Path) -> None:
        report.rounding = check_file(partial, report.path.name, tensors, modules, report.dtype)

    write_whole(report.path, save(tensors, {**entries, **hashes}), check)
    report.hash, report.files = hashes["sshs_model_hash"], [report.path]


def _peft(modules: Mapping[Place, Weights], entries: dict, spec: FamilySpec, report: ExportReport, _: dict) -> None:
    """One folder per model, made elsewhere and verified before its files get their names."""
    report.path = report.path.with_suffix("")
    partial = report.path.with_name(f".{report.path.name}.partial")
    try:
        for part in dict.fromkeys(part for part, _ in modules):
            own = {place: module for place, module in modules.items() if place[0] == part}
            tensors = diffusers.peft_tensors(modules, part, DTYPES[report.dtype])
            _refuse_broken(tensors, report.dtype)
            folder = partial / (spec.denoiser_name if part == DENOISER else pipeline_part(part))
            folder.mkdir(parents=True, exist_ok=True)
            header = {**entries, **adapter_hashes(tensors, entries), "format": "pt"}
            write_whole(folder / "adapter_model.safetensors", save(tensors, header))
            write_whole(folder / "adapter_config.json", diffusers.peft_config(modules, part).encode())
            report.rounding = max(report.rounding, check_peft_folder(folder, tensors, own, report.dtype))
        for file in sorted(partial.glob("*/*")):
            target = report.path / file.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
            report.files.append(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


FORMS = {"kohya": _kohya, "diffusers": _diffusers, "peft": _peft}


def _refuse_broken(tensors: Mapping[str, Tensor], dtype: str) -> None:
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise UserError(
            f"The adapter holds numbers that {dtype} cannot ({broken[0]}, {len(broken)} in all).",
            "Export an earlier checkpoint, or set saving.dtype = fp32.",
        )


def _warnings(modules: Mapping[Place, Weights], spec: FamilySpec, report: ExportReport) -> list[str]:
    found = []
    silent = unheard(modules, spec)
    idle = [place for place, module in modules.items() if module.idle and place not in silent]
    if all(module.idle for module in modules.values()):
        found.append("The adapter changes nothing yet: all the weights it adds are zero.")
    elif idle:
        found.append(f"{len(idle)} of {len(modules)} layers change nothing, for example {idle[0][1]}.")
    if report.form == "kohya" and any(isinstance(module, DoraWeights) for module in modules.values()):
        found.append(DORA_ELSEWHERE)
    if report.rounding > NOTABLE_ROUNDING:
        share = f"{report.rounding:.0%}"
        found.append(f"Rounding to {report.dtype} changes a layer by {share}: its numbers are too small. Use fp32.")
    return found
