"""Texts that say what is to be done: settings, presets, projects, drafts, notes, and other trainers' files."""

from pathlib import Path

from app import about, drafts, library, picture_list, presets, projects, trash
from app.gui import library_views
from app.settings import load_settings
from tests.mutated.refusals import may_refuse
from tests.mutated.scratch import Scratch
from trainers import config_io
from trainers.importing import report
from trainers.importing.imported import import_files

FAMILIES = (("embedded", ""), ("owner/model", "sdxl"), ("owner/model", "sd3"))


def config(scratch: Scratch, data: bytes) -> None:
    """What is read comes back the same; the library shows the run, whatever its settings say."""
    scratch.run.config.write_bytes(data)
    if found := may_refuse(config_io.load, scratch.run.config):
        config_io.save(found, scratch.folder / "again.toml")
        assert config_io.load(scratch.folder / "again.toml").model_dump_json() == found.model_dump_json()
    _library(scratch)


def preset(scratch: Scratch, data: bytes) -> None:
    """A damaged preset hides no other; one that is listed can be applied."""
    file = scratch.home.root / "presets" / "mine.toml"
    file.write_bytes(data)
    found = presets.all_presets(scratch.home)
    assert set(presets.load_presets()) <= set(found)
    for base, family in FAMILIES if "mine" in found else ():
        may_refuse(presets.apply, found["mine"], 7, base, family)
    drafts.plan(scratch.home, scratch.project, drafts.Draft("embedded", "mine"))


def project(scratch: Scratch, data: bytes) -> None:
    """The page of a project whose file is damaged, and the list of all projects."""
    (scratch.home.projects / "cats" / "project.toml").write_bytes(data)
    found = projects.find(scratch.home, "cats")
    _library(scratch)
    if found:
        may_refuse(drafts.plan, scratch.home, found)
        may_refuse(picture_list.read_folder, found.pictures)
        may_refuse(about.rename_project, scratch.home, found, "Dogs")
        may_refuse(lambda: projects.update(found, trigger="tom"))


def draft(scratch: Scratch, data: bytes) -> None:
    (scratch.home.projects / "cats" / "draft.toml").write_bytes(data)
    drafts.plan(scratch.home, scratch.project)


def about_run(scratch: Scratch, data: bytes) -> None:
    about.about_file(scratch.run).write_bytes(data)
    _library(scratch)


def settings(scratch: Scratch, data: bytes) -> None:
    scratch.home.settings.write_bytes(data)
    found = may_refuse(load_settings, scratch.home)
    if found:
        found.cache_folder(scratch.home)


def thrown(scratch: Scratch, data: bytes) -> None:
    """Whatever the note in the trash says: what comes back stays in the home."""
    (note,) = scratch.home.trash.glob(f"*/{trash.NOTE}")
    note.write_bytes(data)
    for one in trash.list_trash(scratch.home):
        may_refuse(trash.put_back, scratch.home, one.folder.name)


def theirs_json(scratch: Scratch, data: bytes) -> None:
    _import(scratch.folder / "theirs.json", data)


def theirs_toml(scratch: Scratch, data: bytes) -> None:
    _import(scratch.folder / "theirs.toml", data)


def their_prompts(scratch: Scratch, data: bytes) -> None:
    _import(scratch.folder / "theirs.txt", data)


def _import(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    if found := may_refuse(import_files, [file]):
        report.as_text(found)
        report.as_values(found)
        may_refuse(lambda: found.config)
        may_refuse(lambda: found.with_base("embedded").config)


def _library(scratch: Scratch) -> None:
    """The library's cards, and what its search looks at."""
    shelf = library.Shelf(scratch.home)
    entries = shelf.entries()
    assert len(entries) == 1
    library_views.cards(entries, 10, (), len(entries))
    library_views.filters(entries)
    library.find(entries, library.Wish(search="rank 8"))
