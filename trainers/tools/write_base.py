"""A base model written again with some tensors changed: one checkpoint file, or a diffusers folder, as it came."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainers.errors import UserError
from trainers.families.folders import choose_weights
from trainers.tools.stored import Key, Stored
from trainers.tools.stream import Change, TensorFile, require_room, rewrite

MERGED_FROM = "modelspec.merged_from"
CARD = "README.md"  # what it says is of the base
WEIGHT_ENDINGS = (".safetensors", ".bin", ".msgpack", ".h5", ".ckpt", ".pt", ".onnx", ".index.json")


def write(stored: Stored, path: Path, changes: Mapping[Key, Change], merged_from: Sequence[str]) -> None:
    """Write it to `path`, whole or not at all; `merged_from` goes into a checkpoint file's metadata.

    UserError as `stream.rewrite`.
    """
    if stored.is_folder:
        _write_folder(stored, path, changes)
        return
    ((file,),) = stored.files.values()
    entries = {"format": "pt", **file.metadata, MERGED_FROM: ", ".join(merged_from)}
    rewrite(file, path, {name: change for (_, name), change in changes.items()}, entries)


def _write_folder(stored: Stored, path: Path, changes: Mapping[Key, Change]) -> None:
    """Made elsewhere and renamed when it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        require_room(path, sum(file.path.stat().st_size for own in stored.files.values() for file in own))
        partial.mkdir()
        _copy_settings(stored, partial)
        for part, files in stored.files.items():
            own = {name: change for (owner, name), change in changes.items() if owner == part}
            for file in files:
                _write_part(file, partial / part / file.path.name, own)
        os.replace(partial, path)
    except OSError as error:
        message = f"{path.name} could not be written to {path.parent} ({error.strerror or error})."
        raise UserError(message, "Make room on that disk, or name another folder with --out.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_part(file: TensorFile, target: Path, changes: Mapping[str, Change]) -> None:
    own = {name: change for name, change in changes.items() if name in file.header}
    if own:
        rewrite(file, target, own, file.metadata)
    else:
        shutil.copyfile(file.path, target)


def _copy_settings(stored: Stored, target: Path) -> None:
    """All but hidden files, weights and the card: of a part's weights those in other formats are no longer the same."""
    for source in sorted(stored.path.rglob("*")):
        inside = source.relative_to(stored.path)
        if any(name.startswith(".") for name in inside.parts):
            continue
        if source.is_dir():
            (target / inside).mkdir(exist_ok=True)
        elif inside.name != CARD and not _is_other_weight(stored, source):
            shutil.copyfile(source, target / inside)


def _is_other_weight(stored: Stored, file: Path) -> bool:
    """Weights of the model's parts, or a checkpoint beside them; the index of shards that are written stays."""
    part = file.parent.name
    if file.parent != stored.path and part not in stored.files:
        return False  # the safety checker, say
    chosen = choose_weights([entry.name for entry in file.parent.iterdir()])
    return file.name.endswith(WEIGHT_ENDINGS) and file.name != (chosen if chosen.endswith(".json") else "")
