"""Runs as a library holds them, written without any training."""

import json
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from app import runs
from app.projects import Project
from app.runs import Run
from trainers import config_io, events


def make_run(
    project: Project,
    name: str,
    changes: tuple[str, ...] = (),
    steps: int = 20,
    loss: float = 0.1,
    end: str = "finished",
) -> Run:
    """A run with events of every tenth step, one sample of two prompts, a checkpoint and an adapter file."""
    start = config_io.parse({"data": {"folders": [project.pictures], "kind": project.kind}, "saving": {"name": name}})
    run = runs.create(project, config_io.override(start, changes))
    told: list[events.Event] = [events.Started(steps, 0, "cpu", 3, name)]
    told += [events.Step(step, steps, loss, 1e-4, 0.5, 1.0) for step in range(10, steps + 1, 10)]
    for number, prompt in enumerate(("a photo of it", f"{name} alone")):
        file = run.folder / "samples" / f"step_{steps:06d}_{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (number * 90, 40, 60)).save(file)
        told.append(events.Sample(steps, prompt, f"samples/{file.name}"))
    for file in ("checkpoints/step_000020/adapter.safetensors", f"output/{name}.safetensors"):
        (run.folder / file).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / file).write_bytes(bytes(range(256)) * 40)
    told += [events.Validation(steps, loss + 0.1, loss), events.Checkpoint(20, "checkpoints/step_000020")]
    ends = {
        "finished": events.Finished(steps, f"output/{name}.safetensors", 9.0),
        "failed": events.Failed("No memory."),
    }
    told += [ends[end]] if end in ends else []
    lines = [{"seq": i, "time": 1.0 + i, "type": event.type, **asdict(event)} for i, event in enumerate(told)]
    run.events.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    return run


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its path inside."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
