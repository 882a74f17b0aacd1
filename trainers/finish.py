"""The end of a run: its adapter file, with the facts of the run in it, and the files beside it."""

import time
from collections import Counter, defaultdict
from pathlib import Path

from trainers.adapters.lora import Adapter
from trainers.checkpoint import Position
from trainers.config import TrainConfig
from trainers.data.batches import Batches
from trainers.data.types import Crop, Example
from trainers.export.metadata import RunFacts
from trainers.export.writer import export
from trainers.families.base import Components, FamilySpec


def gather(
    components: Components,
    examples: list[Example],
    crops: list[Crop],
    held_out: int,
    batches: Batches,
    position: Position,
    steps: int,
    micro_steps: int,
    resolution: int,
    prediction: str,
    precision: str,
) -> RunFacts:
    """What the metadata says, from the run itself; `examples` and `crops` are those trained on."""
    captions, repeats = defaultdict(list), {}
    for example in examples:
        folder = example.path.parent.name
        captions[folder].append(example.caption)
        repeats[folder] = example.repeats
    return RunFacts(
        steps=position.step,
        total_steps=steps,
        epochs=-(-micro_steps // batches.per_epoch),
        pictures=len(examples),
        held_out=held_out,
        batches_per_epoch=batches.per_epoch,
        resolution=(resolution, resolution),
        buckets=dict(Counter((crop.bucket.width, crop.bucket.height) for crop in crops)),
        captions=dict(captions),
        folder_repeats=repeats,
        base_name=components.name,
        base_path=components.path,
        prediction=prediction,
        started=position.started,
        finished=time.time(),
        session=position.session,
        device_precision=precision,
    )


def write_adapter(config: TrainConfig, run: Path, adapter: Adapter, spec: FamilySpec, facts: RunFacts) -> Path:
    """output/<name>.safetensors with its sidecars; the newest sample of the first prompt is its cover."""
    covers = sorted((run / "samples").glob("step_*_0.png"))
    path = run / "output" / f"{config.saving.name}.safetensors"
    return export(adapter, config, facts, spec, path, covers[-1] if covers else None)
