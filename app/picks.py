"""The checkpoint that a person picked of a run, and the adapter file that was made of it: picked.json of the run."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from app.comparisons import checkpoint_steps
from app.runs import Run
from trainers import config_io, json_values
from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.files import write_whole

FILE = "picked.json"
FORMS = ("kohya", "diffusers", "peft")  # layouts of an adapter file
Ask = Callable[..., Any]  # app.worker.Worker.ask


@dataclass(frozen=True)
class Pick:
    """The rest is empty until the file is made. `interfaces`: image program -> verdict, or one sentence for all."""

    step: int
    strength: float
    name: str
    form: str = "kohya"
    adapter: str = ""  # the file; a folder in peft's layout
    files: tuple[str, ...] = ()
    verified: str = ""
    hash: str = ""
    warnings: tuple[str, ...] = ()
    interfaces: dict[str, str] | str = ""

    @property
    def made(self) -> bool:
        """Whether its file was made, and is still there."""
        return bool(self.adapter) and os.path.exists(self.adapter)  # pathlib raises where a name is too long

    def loads_in(self, program: str) -> bool:
        """Whether an image program loads the whole file."""
        said = self.interfaces.get(program, "") if isinstance(self.interfaces, dict) else ""
        return said == "loads" or said.startswith("loads:")

    def said_of(self, program: str) -> str:
        """The verdict on a program in words."""
        said = self.interfaces.get(program, "") if isinstance(self.interfaces, dict) else self.interfaces
        return said or "not known"


def picked(run: Run) -> Pick | None:
    """What was picked last; None where nothing was, or its checkpoint is gone and no file was made of it."""
    try:
        found = json_values.made(Pick, json_values.read(run.folder / FILE))
    except (OSError, ValueError):  # none, or damaged
        return None
    return found if found.made or found.step in checkpoint_steps(run) else None


def pick(run: Run, step: int, strength: float = 1.0) -> Pick:
    """Remember a checkpoint as the best one. UserError where it is not there."""
    if step not in checkpoint_steps(run):
        raise UserError(f"The checkpoint of step {step:,} is no longer there.", "Pick one that is.")
    before = picked(run)
    if before and before.step == step:
        found = replace(before, strength=strength)
        _suggest(run, list(found.files), strength)
    else:
        config = config_io.load(run.config)
        name = before.name if before and not before.made else config.saving.name
        found = Pick(step, strength, name)
    return _remember(run, found)


def export(run: Run, found: Pick, name: str, form: str, ask: Ask, report: Callable[[str], None] | None = None) -> Pick:
    """Make the adapter file of a picked checkpoint, verified, under a name, and remember that.

    UserError where the name is none, or another file has it; or another checkpoint was picked meanwhile.
    """
    made = _exported(run, found, name, form, ask, report)
    now = picked(run)
    if now and now.step != made.step:
        raise UserError(
            f"Step {now.step:,} was picked meanwhile.",
            f"{made.adapter} was made of step {made.step:,}; save once more to make one of step {now.step:,}.",
        )
    if now and now.strength != made.strength:
        made = replace(made, strength=now.strength)
        _suggest(run, list(made.files), made.strength)
    return _remember(run, made)


def for_program(run: Run, found: Pick, program: str, ask: Ask) -> Pick:
    """The pick's file in the layout that an image program loads whole; where none is, the one that there is."""
    first = found if found.form != "peft" else _exported(run, found, found.name, "kohya", ask)
    if first.loads_in(program) or isinstance(first.interfaces, str):
        return first
    for form in ("kohya", "diffusers"):
        if form != first.form:
            with suppress(UserError):  # the layout cannot hold this type
                other = _exported(run, found, found.name, form, ask)
                if other.loads_in(program):
                    return other
    return first


def _exported(
    run: Run, found: Pick, name: str, form: str, ask: Ask, report: Callable[[str], None] | None = None
) -> Pick:
    config = _named(run, " ".join(name.split()))
    name = config.saving.name
    # The vectors of new tokens have the trigger word's name: two checkpoints' cannot lie in one folder.
    to = str(run.folder / "output" / name) if config.adapter.new_tokens else None
    said = ask("export", report, run=str(run.folder), checkpoint=str(found.step), form=form, to=to, called=name)
    facts = ask("inspect", report, file=_weights(said))
    _suggest(run, said["files"], found.strength)
    return replace(
        found,
        name=name,
        form=form,
        adapter=str(said["adapter"]),
        files=tuple(map(str, said["files"])),
        verified=said["verified"],
        hash=said["hash"],
        warnings=tuple(said["warnings"]),
        interfaces=facts.get("interfaces", ""),
    )


def _named(run: Run, name: str) -> TrainConfig:
    if not name:
        raise UserError("The adapter needs a name.")
    try:
        return config_io.merge(config_io.load(run.config), {"saving": {"name": name}})
    except UserError as error:
        raise UserError(error.message.replace("saving.name", "The name"), "Use letters, digits, - and _.") from error


def _weights(said: dict[str, Any]) -> str:
    """The file with the adapter's weights; in peft's layout the first part's."""
    files = [str(file) for file in said["files"]]
    return next((file for file in files if Path(file).name == "adapter_model.safetensors"), str(said["adapter"]))


def _suggest(run: Run, files: list[str], strength: float) -> None:
    """Write the strength into the name.json that was made beside the adapter, where image programs look for it.

    Nowhere but in the run's folder: the list may have come with somebody's archive.
    """
    for file in (Path(file) for file in files if str(file).endswith(".json")):
        with suppress(OSError, ValueError):
            facts = json_values.read(file)
            inside = file.resolve().is_relative_to(run.folder.resolve())
            if inside and isinstance(facts, dict) and "preferred weight" in facts:
                facts["preferred weight"] = strength
                write_whole(file, json.dumps(facts, ensure_ascii=False, indent=2).encode())


def _remember(run: Run, found: Pick) -> Pick:
    write_whole(run.folder / FILE, json.dumps(asdict(found), ensure_ascii=False, indent=1).encode())
    return found
