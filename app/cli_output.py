"""What commands print: sentences, lists, and the same as JSON."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.hardware import Finding
from app.progress import duration
from app.queue import Queue
from app.runs import Status


def say(text: str) -> None:
    """A result, on standard output."""
    print(text, flush=True)


def note(text: str) -> None:
    """Something to know while waiting, on standard error."""
    print(text, file=sys.stderr, flush=True)


def complain(message: str, hint: str = "") -> None:
    note(f"{message} {hint}".rstrip())


def quoted(path: Path) -> str:
    """A path as a command takes it, with spaces too."""
    return subprocess.list2cmdline([str(path)]) if os.name == "nt" else shlex.quote(str(path))


def show(values: dict[str, Any], as_json: bool) -> None:
    """Any nested values, one per line and indented, or as JSON."""
    if as_json:
        say(json.dumps(values, ensure_ascii=False, indent=2, default=str))
    else:
        say("\n".join(lines(values)))


def lines(value: Any, indent: int = 0) -> list[str]:
    """Nested dicts and lists as indented lines; empty ones are left out."""
    pad = "  " * indent
    if isinstance(value, dict):
        found = []
        for key, inner in value.items():
            name = str(key).replace("_", " ")
            if isinstance(inner, (dict, list, tuple)):
                found += [f"{pad}{name}:", *lines(inner, indent + 1)] if inner else []
            elif inner is not None and inner != "":
                found.append(f"{pad}{name}: {_plain(inner)}")
        return found
    found = []
    for inner in value:
        if isinstance(inner, dict):
            found.append(f"{pad}- " + ", ".join(f"{key.replace('_', ' ')}: {_plain(v)}" for key, v in inner.items()))
        else:
            found.append(f"{pad}- {_plain(inner)}")
    return found


def run_list(found: list[Status], queue: Queue, as_json: bool) -> None:
    """All runs, and at which place of the queue they wait (1 is the next)."""
    places = {run: place for place, run in enumerate(queue.waiting(), start=1)}
    if as_json:
        listed = [{**_as_dict(status), "queue_place": places.get(status.run)} for status in found]
        say(json.dumps(listed, ensure_ascii=False, indent=2))
        return
    if not found:
        say("There is no run yet. Make one with `darkroom new`, or try `darkroom demo`.")
    for status in found:
        place = places.get(status.run)
        say(f"{status.run.folder.name}: {_summary(status)}" + (f", number {place} of the queue" if place else ""))
    for run, problem in queue.problems():
        say(f"{run.folder.name} left the queue: {problem}")


def run_details(status: Status, as_json: bool) -> None:
    if as_json:
        say(json.dumps(_as_dict(status), ensure_ascii=False, indent=2))
        return
    state = status.state
    values = {
        "run": status.run.folder,
        "state": _summary(status),
        "phase": f"{state.phase} {state.phase_done} of {state.phase_total}" if state.phase_total else state.phase,
        "held-out loss": state.validation[-1][1] if state.validation else None,
        "adapter": status.adapter,
        "newest_checkpoint": state.checkpoints[-1].path if state.checkpoints else None,
        "newest_preview": state.samples[-1].path if state.samples else None,
        "problem": f"{state.message} {state.hint}".strip() if status.word == "failed" else "",
        "notes": list(dict.fromkeys(state.notes)),
    }
    say("\n".join(lines(values)))


def doctor(found: dict[str, Any], use: dict[str, str], findings: list[Finding], as_json: bool) -> None:
    if as_json:
        whole = {**found, "will_use": use, "findings": [asdict(finding) for finding in findings]}
        say(json.dumps(whole, ensure_ascii=False, indent=2))
        return
    torch, cpu = found["torch"], found["cpu"]
    build = torch.get("cuda_build") or torch.get("rocm_build")
    gpus = [f"{gpu['name']}, {gpu['memory'] / 2**30:.1f} GB" for gpu in torch.get("gpus") or []]
    values = {
        "this machine": {
            "system": found["system"],
            "python": found["python"],
            "processor": f"{cpu['name']}, {cpu['cores']} cores",
            "memory": f"{found['memory_gb']} GB, {found['memory_free_gb']} GB free",
            "graphics": ", ".join(gpus) or "no GPU that PyTorch can use",
            "disk": f"{found['disk_free_gb']} GB free at {found['home']}",
            "PyTorch": f"{torch.get('version', 'does not start')} ({build or 'CPU only'})",
        },
        "versions": {name: version or "not installed" for name, version in found["libraries"].items()},
        "will be used": use,
        "what is wrong": [f"{one.message} {one.hint}" for one in findings] or ["nothing"],
    }
    say("\n".join(lines(values)))


def _summary(status: Status) -> str:
    """ "running, step 420 of 1,600, loss 0.1234, about 26 min left"."""
    state, parts = status.state, [status.word]
    if state.steps:
        parts.append(f"step {state.step:,} of {state.steps:,}")
    if state.loss is not None:
        parts.append(f"loss {state.loss:.4f}")
    if status.seconds_left:
        parts.append(f"about {duration(status.seconds_left)} left")
    return ", ".join(parts)


def _as_dict(status: Status) -> dict[str, Any]:
    state = asdict(status.state)
    state["status"] = status.word
    adapter = str(status.adapter) if status.adapter else ""
    return {
        "run": str(status.run.folder),
        **state,
        "alive": status.alive,
        "seconds_left": status.seconds_left,
        "adapter": adapter,
    }


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return str(value)
