"""Files that come from elsewhere: adapters, base models, pickles, pictures, captions, zip files."""

import json
import shutil
from pathlib import Path

from app import archive, captions_edit, dropped, engine, library, picture_facts, picture_list
from app.framing import framing_of
from app.gui.inspect_views import inspected
from tests.mutated.refusals import may_refuse
from tests.mutated.scratch import Scratch
from trainers.adapters.adapter_file import read_adapter
from trainers.config import DataConfig
from trainers.data import captions, decoding, examples
from trainers.data.decoding import Unreadable
from trainers.families.detect import identify
from trainers.families.folders import describe
from trainers.families.weights import read_pickle
from trainers.tools.convert import Wish, convert

WEIGHTS, SHARD = "model.safetensors", "model-00001-of-00001.safetensors"


def adapter(scratch: Scratch, data: bytes) -> None:
    """The inspector, as the worker answers it, in words; and what sampling opens."""
    scratch.adapter.write_bytes(data)
    if found := may_refuse(engine.inspect, scratch.adapter):
        inspected("tabby", json.loads(json.dumps(found))).encode()
    if opened := may_refuse(read_adapter, scratch.adapter):
        may_refuse(lambda: (opened.modules, opened.layers, opened.type))
    library.Shelf(scratch.home).entries()


def converted_adapter(scratch: Scratch, data: bytes) -> None:
    scratch.adapter.write_bytes(data)
    may_refuse(convert, scratch.adapter, scratch.folder / "made.safetensors", Wish("", "fp16", True, None))


def peft_config(scratch: Scratch, data: bytes) -> None:
    """Beside a file in peft's layout."""
    folder = scratch.folder / "peft"
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes(data)
    (folder / "adapter_model.safetensors").write_bytes((scratch.folder / "peft.safetensors").read_bytes())
    may_refuse(engine.inspect, folder)
    if opened := may_refuse(read_adapter, folder / "adapter_model.safetensors"):
        may_refuse(lambda: (opened.modules, opened.layers))


def base_file(scratch: Scratch, data: bytes) -> None:
    _base(scratch.folder / "base.safetensors", data)


def base_pickle(scratch: Scratch, data: bytes) -> None:
    file = scratch.folder / "base.ckpt"
    _base(file, data)
    may_refuse(read_pickle, file)


def model_index(scratch: Scratch, data: bytes) -> None:
    """All settings of a model folder that are looked at."""
    folder = scratch.folder / "base"
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text("{}", "utf-8")
        shutil.copyfile(scratch.folder / "peft.safetensors", folder / part / (SHARD if part == "vae" else WEIGHTS))
    for name in ("vae/model.safetensors.index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        (folder / name).write_bytes(data)
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}', "utf-8")
    may_refuse(describe, folder)
    (folder / "model_index.json").write_bytes(data)
    may_refuse(describe, folder)


def _base(file: Path, data: bytes) -> None:
    """As the settings name it, and as a run in the library has it."""
    file.write_bytes(data)
    if found := may_refuse(identify, file):
        found.label.encode("utf-8", "surrogatepass")


def picture(scratch: Scratch, data: bytes) -> None:
    """The trainer's two ways to read it, and the Concept page's."""
    found = may_refuse(decoding.decode, data, by=Unreadable)
    size = may_refuse(decoding.inspect, data, by=Unreadable)
    if found is not None and size is not None:
        assert found.mode == "RGB" and found.size == size
    file = scratch.pictures / "1.png"
    file.write_bytes(data)
    facts = picture_facts.look_at(file)
    json.dumps([facts.size, facts.content, facts.likeness, facts.sharpness, facts.reason])


def caption(scratch: Scratch, data: bytes) -> None:
    """As it is trained, shown, searched and edited."""
    (scratch.pictures / "0.txt").write_bytes(data)
    scan = examples.scan(DataConfig(folders=(str(scratch.pictures),), trigger="tabby"))
    assert len(scan.examples) == 2
    for example in scan.examples:
        assert "\n" not in example.caption and example.caption
        captions.without_trigger(example.caption, "tabby", "cat")
        example.caption.encode()
    measured = picture_facts.Measured(scratch.home, measure=lambda path: picture_facts.Facts((32, 32)))
    picture_list.overview(scratch.project, measured, framing_of(scratch.home, scratch.project))
    measured.wait()
    picture_list.caption_of(scratch.pictures / "0.png").encode()
    captions_edit.write(scratch.project, {scratch.pictures / "0.png": "tabby"}, "A caption")
    captions_edit.undo(scratch.project)
    assert (scratch.pictures / "0.txt").read_bytes() == data


def dropped_zip(scratch: Scratch, data: bytes) -> None:
    """Pictures lie flat in the project's folder; what is left over has a sentence."""
    file = scratch.folder / "dropped.zip"
    file.write_bytes(data)
    added = may_refuse(dropped.add, scratch.project, [file])
    assert all(told.strip() and len(told) < 70_000 for told in (added.skipped if added else ()))
    assert all(path.is_file() and not path.is_symlink() for path in scratch.pictures.iterdir())
    assert not list(scratch.pictures.glob(".incoming*"))


def archived_run(scratch: Scratch, data: bytes) -> None:
    """Restored whole, or not at all."""
    file = scratch.folder / "run.zip"
    file.write_bytes(data)
    may_refuse(archive.require_restorable, scratch.home, file)
    before = {path for path in scratch.home.root.rglob("*")}
    if (run := may_refuse(archive.restore, scratch.home, file)) is None:
        left = {path for path in scratch.home.root.rglob("*")} - before
        assert left <= {scratch.home.archive}, left
    else:
        assert run.folder.is_relative_to(scratch.home.projects)
        assert not any(path.is_symlink() for path in run.folder.rglob("*"))
    archive.list_archives(scratch.home)
    library.Shelf(scratch.home).entries()
