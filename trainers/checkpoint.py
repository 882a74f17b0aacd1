"""Save and resume: everything a run needs to go on as if it had never stopped.

Noise, order, dropout and timesteps follow from (seed, step), so the position is one number. A checkpoint is a folder
`step_000500` with adapter.safetensors (fp32 masters), ema.safetensors, optimizer.pt and state.json; for the adapter
file of that step it has facts.json and, where the run averages, exported.safetensors; SHA256SUMS tells what they held.
It is written under another name, read back and renamed, so that a half-written one is never taken for whole, and the
ones before it stay until then.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainers import json_values, sums
from trainers.errors import UserError, disk_error
from trainers.failure import is_out_of_memory
from trainers.files import flush_folder, rename

FORMAT = 1
STATE = "state.json"
NAMED = re.compile(r"step_\d{1,18}")
TORCH_WRITES = re.compile("inline_container|PytorchStreamWriter")  # torch.save on a full disk: a RuntimeError


@dataclass
class Position:
    step: int = 0
    seconds: float = 0.0  # spent training, all sittings together
    pause: float = 0.0  # seconds of the last preview and validation
    started: float = 0.0  # unix seconds of the first start
    session: str = ""  # random number of the run, kept over resumes
    threads: int = 0  # of the CPU; another number gives other last bits
    device: str = ""  # its kind: cpu, cuda ...; "" where an earlier version saved it
    precision: str = ""  # of the computation
    begun: dict[str, str] = field(default_factory=dict)  # what it trained on and how (begun.py)
    rolling: bool = False  # saved because of the time that had passed: the next one takes its place


@dataclass
class Saved:
    position: Position
    adapter: dict[str, Tensor]
    ema: dict[str, Tensor] | None
    optimizer: dict
    schedule: dict
    scaler: dict | None
    exported: dict[str, Tensor] | None = None  # what an adapter file of this step holds; None: the masters
    facts: dict[str, Any] | None = None  # what such a file says of the run, as JSON values; see export/facts.py


class Damaged(UserError):
    """A checkpoint whose files are missing or no longer what was written."""


def save(folder: Path, saved: Saved, keep: int) -> Path:
    """Write a checkpoint under `folder`, then remove all but the newest `keep` and of the rolling ones all but this.

    Raises:
        UserError: the disk is full, or has no room for it; then nothing is written.
    """
    averaged = None if saved.exported is None or _equal(saved.exported, saved.adapter) else saved.exported
    needed = sum(tensor.nbytes for tensor in _tensors([saved.adapter, saved.ema, averaged, saved.optimizer]))
    if shutil.disk_usage(_there(folder)).free < needed:
        raise _refused(folder, saved, needed)
    target = folder / f"step_{saved.position.step:06d}"
    partial = folder / f".partial_{target.name}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(saved.adapter, partial / "adapter.safetensors")
        if saved.ema is not None:
            save_file(saved.ema, partial / "ema.safetensors")
        if averaged is not None:
            save_file(averaged, partial / "exported.safetensors")
        if saved.facts is not None:
            (partial / "facts.json").write_text(json.dumps(saved.facts), encoding="utf-8")
        state = {"optimizer": saved.optimizer, "schedule": saved.schedule, "scaler": saved.scaler}
        torch.save(state, partial / "optimizer.pt")
        (partial / STATE).write_text(json.dumps({"format": FORMAT, **asdict(saved.position)}), encoding="utf-8")
        sums.write(partial)
        for file in partial.iterdir():
            _flush(file)
        flush_folder(partial)
        for file in partial.iterdir():
            _forget(file)
        if broken := sums.wrong(partial):
            raise OSError(errno.EIO, f"{broken} is not what was written")
        _remove(target)
        rename(partial, target)
        flush_folder(folder)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch reports a full disk as a RuntimeError
        shutil.rmtree(partial, ignore_errors=True)
        if TORCH_WRITES.search(str(error)) or disk_error(error):
            raise _refused(folder, saved, needed, isinstance(error, OSError) and error.errno == errno.EIO) from error
        raise
    for aside in folder.glob("damaged_step_*"):
        shutil.rmtree(aside, ignore_errors=True)
    others = [one for one in list_checkpoints(folder) if one != target]
    lasting = [one for one in others if not is_rolling(one)]
    room = keep if saved.position.rolling else keep - 1
    for old in set(others).difference(lasting[-room:] if room else []):
        with suppress(OSError):  # another program has it open, on Windows: the next save removes it
            _remove(old)
    return target


def _refused(folder: Path, saved: Saved, needed: int, broken: bool = False) -> UserError:
    """`needed`: bytes of its tensors; `broken`: the disk has an error of its own, else it is full."""
    message = f"The checkpoint of step {saved.position.step} could not be saved"
    on = "the run goes on from its last checkpoint" if list_checkpoints(folder) else "the run begins anew"
    if broken:
        return UserError(f"{message}: the disk of {folder} reports an error.", f"Check it, then resume: {on}.")
    free = shutil.disk_usage(_there(folder)).free / 2**20
    told = f"{message}: it takes {needed / 2**20:.1f} MB, and {free:.1f} MB are free in {folder}."
    return UserError(told, f"Make room and resume: {on}.")


def _there(folder: Path) -> Path:
    """The folder, or the one above that exists."""
    return folder if folder.exists() else folder.parent


def _tensors(content: Any) -> Iterator[Tensor]:
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, dict | list | tuple):
        for part in content.values() if isinstance(content, dict) else content:
            yield from _tensors(part)


def _remove(folder: Path) -> None:
    """Under another name first: a checkpoint is whole or not there, however slowly its files go."""
    if folder.exists():
        leaving = folder.with_name(f".partial_{folder.name}_old")
        shutil.rmtree(leaving, ignore_errors=True)
        rename(folder, leaving)
        shutil.rmtree(leaving, ignore_errors=True)


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def _flush(file: Path) -> None:
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def _forget(file: Path) -> None:
    """Let the system read a file from the disk and not from its memory, where it can be told to."""
    if hasattr(os, "posix_fadvise"):
        with file.open("rb") as handle:
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints that were finished, oldest first; what has happened to them since is for `newest_whole` to see."""
    return sorted([p for p in folder.glob("step_*") if NAMED.fullmatch(p.name) and p.is_dir()], key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step whose checkpoint a folder is."""
    return int(checkpoint.name.split("_")[1])


def newest_step(folder: Path) -> int:
    """The step from which a run goes on; 0 without checkpoints."""
    found = list_checkpoints(folder)
    return step_of(found[-1]) if found else 0


def looked_at(folder: Path) -> tuple[Path | None, list[str], list[Path]]:
    """(the newest checkpoint that is whole, what is wrong with newer ones, those), without a change to any.

    Raises:
        Damaged: there are checkpoints, and none is whole.
    """
    told: list[str] = []
    damaged: list[Path] = []
    for one in reversed(list_checkpoints(folder)):
        broken = sums.wrong(one) or ("" if (one / STATE).exists() else STATE)
        if not broken:
            return one, told, damaged
        told.append(f"The checkpoint {one.name} is damaged ({broken}).")
        damaged.append(one)
    if told:
        message = f"No checkpoint in {folder} is whole. {told[0]}"
        raise Damaged(message, f"Delete the folder {folder.name}, and the run begins anew.")
    return None, [], []


def newest_whole(folder: Path) -> tuple[Path | None, list[Damaged]]:
    """(the checkpoint from which a run goes on, what is to be said of newer ones that are damaged).

    Those are put aside as `damaged_step_000500`, so that they are not taken for the newest again, until `save` has
    written another one.

    Raises:
        Damaged: there are checkpoints, and none is whole.
    """
    newest, told, damaged = looked_at(folder)
    for one in damaged:
        aside = folder / f"damaged_{one.name}"
        shutil.rmtree(aside, ignore_errors=True)
        rename(one, aside)
    return newest, [Damaged(words, f"It is put aside: the run goes on from step {step_of(newest)}.") for words in told]


def is_rolling(checkpoint: Path) -> bool:
    """Whether it was saved because of the time that had passed."""
    return bool(_state(checkpoint).get("rolling"))


def threads_of(checkpoint: Path | None) -> int:
    """With how many threads the run computes; 0 where no checkpoint tells."""
    threads = _state(checkpoint).get("threads") if checkpoint else 0
    return threads if type(threads) is int and threads > 0 else 0


def _state(checkpoint: Path) -> dict[str, Any]:
    """Its state.json; nothing where that is damaged: `load` says so."""
    try:
        state = json_values.read(checkpoint / STATE)
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def load(folder: Path) -> Saved:
    """Read a checkpoint back. Damaged when a file of it is missing or is not what was written."""
    if broken := sums.wrong(folder):
        raise _damaged(folder, broken)
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        written = state.pop("format")
        if written != FORMAT:
            told = f"is in format {str(written)[:20]}, and this version reads format {FORMAT}"
            message = f"The checkpoint {folder} {told}."
            raise UserError(message, "Go on with the version of LoRA Darkroom that the run was begun with.")
        rest = torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu")
        ema = folder / "ema.safetensors"
        return Saved(
            position=Position(**state),
            adapter=load_file(folder / "adapter.safetensors"),
            ema=load_file(ema) if ema.exists() else None,
            **rest,
        )
    except UserError:
        raise
    except Exception as error:  # any way a file can be damaged
        if is_out_of_memory(error) or sums.is_in_the_way(error):
            raise
        raise _damaged(folder, type(error).__name__) from error


def load_exported(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(what `Adapter.state` returned, facts) for an adapter file of that step, without the optimizer's state.

    Damaged when a file of it is missing or damaged; UserError where it has none of this.
    """
    if not folder.is_dir():
        raise UserError(f"The checkpoint {folder} is not there any more.", "Choose another one.")
    if broken := sums.wrong(folder):
        raise _damaged(folder, broken)
    facts = folder / "facts.json"
    if not facts.exists():
        message = f"The checkpoint {folder} was saved by an earlier version, without the facts that a file needs."
        raise UserError(message, "Resume the run: the checkpoints that it saves from then on have them.")
    try:
        averaged = folder / "exported.safetensors"
        tensors = load_file(averaged if averaged.exists() else folder / "adapter.safetensors")
        return tensors, json.loads(facts.read_text(encoding="utf-8"))
    except Exception as error:  # any way a file can be damaged
        if is_out_of_memory(error) or sums.is_in_the_way(error):
            raise
        raise _damaged(folder, type(error).__name__) from error


def _damaged(folder: Path, what: str) -> Damaged:
    hint = "Delete that folder: the run resumes from the checkpoint before it."
    return Damaged(f"The checkpoint {folder} is damaged ({what}).", hint)
