"""The end of a run: its adapter file, with the facts of the run in it, and the files beside it."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from trainers.adapters.adapter import Adapter
from trainers.checkpoint import Position
from trainers.config import TrainConfig
from trainers.data.batches import Batches
from trainers.data.buckets import sides
from trainers.data.types import Crop, Example
from trainers.events import Adjusted, Event, Warned
from trainers.export.embedding import file_name, usage
from trainers.export.metadata import RunFacts
from trainers.export.writer import export_report
from trainers.families.base import Components, FamilySpec

SERVES = "{} is for diffusers and ComfyUI, {} for Forge, kohya's programs and ComfyUI: no one file serves all."
HASHES = "hashes.json"  # in the cache: a base of gigabytes is hashed once


def gather(
    config: TrainConfig,
    components: Components,
    trained: list[tuple[Example, Crop]],
    held_out: int,
    batches: Batches,
    position: Position,
    steps: int,
    resolution: int,
    prediction: str,
    precision: str,
    optimizer: str,
    cache: Path,
) -> RunFacts:
    """What the metadata says at `position`, from the run itself; `trained` are the pictures that are not held out."""
    captions, repeats = defaultdict(list), {}
    for example, _ in trained:
        folder = example.path.parent.name
        captions[folder].append(example.caption)
        repeats[folder] = example.repeats
    buckets: Counter[tuple[int, int]] = Counter()
    for example, crop in trained:
        buckets[crop.bucket.width, crop.bucket.height] += example.repeats
    errors = [abs(c.bucket.width / c.bucket.height - e.size[0] / e.size[1]) for e, c in trained]
    return RunFacts(
        steps=position.step,
        total_steps=steps,
        epochs=_epochs(position.step, config, batches),
        total_epochs=_epochs(steps, config, batches),
        pictures=sum(example.repeats for example, _ in trained),
        held_out=held_out,
        batches_per_epoch=batches.per_epoch,
        resolution=(resolution, resolution),
        buckets=dict(buckets),
        bucket_sides=sides(config.data, resolution, *components.bounds)[1:],
        aspect_error=fmean(errors) if errors else None,
        captions=dict(captions),
        folder_repeats=repeats,
        base_name=components.name,
        base_path=components.path,
        vae_path=Path(config.model.vae).expanduser() if config.model.vae else None,
        variant=components.variant,
        hash_cache=cache / HASHES,
        prediction=prediction,
        zero_terminal_snr=bool(components.scheduler.get("rescale_betas_zero_snr")),
        started=position.started,
        finished=time.time(),
        session=position.session,
        device_precision=precision,
        optimizer=optimizer,
    )


def write_adapter(
    config: TrainConfig,
    run: Path,
    adapter: Adapter,
    spec: FamilySpec,
    facts: RunFacts,
    emit: Callable[[Event], None],
) -> Path:
    """output/<name>.safetensors with its sidecars; what is doubtful about it becomes warnings of the run.

    Where no one file serves every program, there is one per layout, <name>-diffusers.safetensors and so on; the first
    is returned.
    """
    forms, folder = forms_of(config, spec), run / "output"
    reports = []
    for form in forms:
        path = folder / f"{config.saving.name}{ending(form, forms)}"
        reports.append(export_report(adapter, config, facts, spec, path, cover(run, facts.steps), form))
    for warning in dict.fromkeys(warning for report in reports for warning in report.warnings):
        emit(Warned(warning))
    if adapter.tokens:
        name = file_name(config, reports[0].path.stem)
        what = f"The trigger word {adapter.tokens.word} has a file of its own, {name}"
        emit(Adjusted(what, f"The adapter needs it: {usage(name)}"))
    if len(forms) > 1:
        emit(Adjusted("The adapter is written in two files", SERVES.format(*(report.path.name for report in reports))))
    return reports[0].path


def forms_of(config: TrainConfig, spec: FamilySpec) -> tuple[str, ...]:
    """The layouts that a run writes: those of the family, which plain LoRAs have alone."""
    return spec.layouts if config.adapter.type in ("lora", "locon") else ("kohya",)


def ending(form: str, forms: tuple[str, ...]) -> str:
    """What follows the adapter's name in a layout: the layout itself, but for kohya's where that is the only one."""
    named = form != "kohya" or len(forms) > 1
    return (f"-{form}" if named else "") + ("" if form == "peft" else ".safetensors")  # peft's is a folder


def cover(run: Path, step: int) -> Path | None:
    """The newest sample of the first prompt up to `step`; none from before the first step, which shows the base."""
    made = {int(file.name.split("_")[1]): file for file in (run / "samples").glob("step_*_0.png")}
    fitting = [number for number in made if 0 < number <= step]
    return made[max(fitting)] if fitting else None


def _epochs(steps: int, config: TrainConfig, batches: Batches) -> int:
    """Epochs begun by then."""
    return -(-steps * config.optimizer.accumulation // batches.per_epoch)
