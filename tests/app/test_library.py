"""The library finds runs by anything they are known by, cheaply, and says what differs between two."""

import os

import pytest

from app import compare, drafts, library, presets, projects, rerun, runs
from app.about import About, annotate, read_about, record_preset, rename_project, rename_run
from app.library import Shelf, Wish
from tests.app.library_runs import make_run
from trainers import config_io, events
from trainers.errors import UserError

LONG = (f"cats/{'a' * 300}", f"{'a' * 300}/x")  # names that no file system takes


@pytest.fixture
def project(place, pictures):
    return projects.create(place, "Cats", pictures, "object")


@pytest.fixture
def shelf(place):
    return Shelf(place)


def names(found):
    return [entry.name for entry in found]


def test_an_entry_tells_a_run_from_its_files(project, shelf):
    run = make_run(project, "tabby", ("adapter.rank=8", "data.trigger=tbby"))
    (entry,) = shelf.entries()
    assert (entry.name, entry.project, entry.kind, entry.trigger) == ("tabby", "Cats", "object", "tbby")
    assert (entry.family, entry.base, entry.adapter) == (library.BUILT_IN, library.BUILT_IN, "lora, rank 8")
    assert (entry.word, entry.step, entry.steps) == ("finished", 20, 20)
    assert entry.cover == run.folder / "samples" / "step_000020_0.png"
    assert entry.files == ((run.folder / "output" / "tabby.safetensors", 10240),)
    assert entry.bytes == sum(file.stat().st_size for file in run.folder.rglob("*") if file.is_file())
    assert library.run_of(shelf.home, entry.key) == run


def test_the_cover_is_the_picture_beside_the_adapter_file_where_there_is_one(project, shelf):
    run = make_run(project, "tabby")
    beside = run.folder / "output" / "tabby.png"
    beside.write_bytes((run.folder / "samples" / "step_000020_0.png").read_bytes())
    assert shelf.entries()[0].cover == beside


@pytest.mark.parametrize("search", ["tabby", "TBBY", "cats rank 8", "painter", "failed", "30 steps", "grey one"])
def test_search_looks_at_everything_that_a_card_shows(search, project, shelf):
    changes = ("adapter.rank=8", "data.trigger=tbby", "model.base=owner/painter")
    run = make_run(project, "tabby", changes, steps=30, end="failed")
    annotate(run, "the grey one")
    make_run(project, "other", ("adapter.rank=18",))
    assert names(library.find(shelf.entries(), Wish(search=search))) == ["tabby"]


def test_filters_and_orders(project, shelf):
    make_run(project, "b", end="failed")
    make_run(project, "A")
    entries = shelf.entries()
    assert names(library.find(entries, Wish(word="failed"))) == ["b"]
    assert names(library.find(entries, Wish(kind="person"))) == []
    assert names(library.find(entries, Wish(family=library.BUILT_IN, order="Name"))) == ["A", "b"]


def test_a_run_is_read_again_only_when_its_files_changed(project, shelf, monkeypatch):
    run = make_run(project, "tabby")
    make_run(project, "other")
    shelf.entries()
    read = []
    original = library.quick_status
    monkeypatch.setattr(library, "quick_status", lambda run: read.append(run) or original(run))
    shelf.entries()
    assert read == []
    rename_run(run, "Tabby, the best")
    assert "Tabby, the best" in names(shelf.entries()) and read == [run]


def test_status_from_the_tail_of_long_events_is_that_of_all_of_them(project, monkeypatch):
    for end in ("finished", "failed", "nothing"):
        run = make_run(project, end, steps=2000, end=end)
        assert run.events.stat().st_size > library.TAIL
        quick, whole = library.quick_status(run), runs.status(run)
        assert (quick.word, quick.state.step, quick.state.steps) == (whole.word, whole.state.step, whole.state.steps)


def test_a_name_and_a_note_stay_with_the_run_and_its_folder_keeps_its_name(project, shelf):
    run = make_run(project, "tabby")
    rename_run(run, '  <b>"Tabby"</b>\n  漢字 ')
    annotate(run, "two\nlines")
    assert read_about(run).name == '<b>"Tabby"</b> 漢字' and read_about(run).note == "two\nlines"
    assert run.config.exists() and shelf.entries()[0].name == '<b>"Tabby"</b> 漢字'
    rename_run(run, "")
    assert shelf.entries()[0].name == "tabby"
    with pytest.raises(UserError, match="at most 120"):
        rename_run(run, "x" * 121)


def test_a_project_gets_another_name_but_not_one_that_is_taken(place, project, pictures, tmp_path):
    rename_project(place, project, "Dogs")
    assert [one.name for one in projects.list_projects(place)] == ["Dogs"]
    os.rename(pictures, tmp_path / "moved")
    projects.create(place, "Cats", tmp_path / "moved", "object")
    with pytest.raises(UserError, match="already a project"):
        rename_project(place, project, "Cats")
    with pytest.raises(UserError, match="needs a name"):
        rename_project(place, project, "  ")


@pytest.mark.parametrize("key", ["", "cats", "../x", "cats/..", "cats/../../x", "/etc/passwd", "cats/nothing", *LONG])
def test_a_key_that_names_no_run_is_refused(key, place, project):
    project.runs.mkdir()
    with pytest.raises(UserError, match="no run"):
        library.run_of(place, key)


def test_two_runs_differ_in_the_settings_that_were_changed(project):
    left, right = make_run(project, "a"), make_run(project, "a", ("adapter.rank=8", "optimizer.rate=2e-4"))
    found = compare.changes(config_io.load(left.config), config_io.load(right.config))
    assert [(one.name, one.left, one.right) for one in found] == [
        ("adapter.rank", 16, 8),
        ("optimizer.rate", 1e-4, 2e-4),
    ]


def test_two_runs_are_compared_by_what_they_measured(project):
    left, right = (compare.outcome(make_run(project, name, loss=loss)) for name, loss in (("a", 0.1), ("b", 0.3)))
    assert (left.loss, left.smoothed, right.smoothed) == (0.1, pytest.approx(0.1), pytest.approx(0.3))
    assert (left.validation, left.seconds_per_step) == (pytest.approx(0.2), 0.5)
    assert compare.shared_prompts(left, right) == ["a photo of it"]
    assert left.samples["a photo of it"].is_file()


def test_a_run_that_measured_nothing_is_compared_too(run):
    found = compare.outcome(run)
    assert found.word == "new" and found.loss is None and found.samples == {}


def test_settings_are_held_against_the_preset_of_the_kind(project):
    run = make_run(project, "a", ("adapter.rank=77",))
    title, found = compare.against_preset(config_io.load(run.config))
    assert title == 'the preset "Object"'
    assert "adapter.rank" in [one.name for one in found] and "saving.name" not in [one.name for one in found]


def test_a_run_is_made_again_with_one_change(place, project):
    run = make_run(project, "a")
    made = rerun.rerun(place, run, "adapter.rank", "8", "Rank: 8 instead of 16")
    found = compare.changes(config_io.load(run.config), config_io.load(made.config))
    assert [(one.name, one.right) for one in found] == [("adapter.rank", 8)]
    assert runs.status(made).word == "new" and "Rank: 8 instead of 16" in read_about(made).note


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("adapter.rank", "-1", "between 1 and 1024"),
        ("adapter.rank", "16", "already"),
        ("adapter.type", "lorra", "lora"),
        ("", "", "No setting"),
    ],
)
def test_a_change_that_is_none_is_refused(name, value, said, project):
    with pytest.raises(UserError, match=said):
        rerun.with_change(make_run(project, "a"), name, value)


def test_a_list_is_changed_as_its_field_shows_it_one_entry_per_line(project):
    after, change = rerun.with_change(make_run(project, "a"), "preview.prompts", 'a, b\nc "d"\n')
    assert after.preview.prompts == change.right == ("a, b", 'c "d"')


def test_the_preset_of_a_run_is_kept_beside_its_settings_and_found(place, project, shelf):
    run, other = make_run(project, "a"), make_run(project, "b")
    settings = run.config.read_bytes()
    record_preset(run, "my-cats", "My “best” cats")
    rename_run(run, "Tabby")
    annotate(run, "whiskers")
    assert run.config.read_bytes() == settings
    assert read_about(run) == About("Tabby", "whiskers", "my-cats", "My “best” cats")
    made = rerun.rerun(place, run, "adapter.rank", "8", "Rank: 8 instead of 16")
    found = library.find(shelf.entries(), library.Wish(search="best cats"))
    assert {one.key for one in found} == {run.key, made.key}
    assert shelf.entry(other).preset == ""


def test_settings_are_held_against_the_preset_they_came_from(project):
    config = config_io.load(make_run(project, "a").config)
    known = presets.load_presets()
    assert compare.against_preset(config, "style", known)[0] == 'the preset "Style"'
    assert compare.against_preset(config, "removed", known)[0] == 'the preset "Object"'


@pytest.mark.parametrize("begin", ["//", "\\\\", "\\/", "\\\\?\\UNC\\", "\\??\\UNC\\"])
def test_a_base_on_another_computer_is_not_looked_at(begin, project, shelf, monkeypatch):
    """On Windows, to look at a file of another machine is to sign in there."""
    run, looked = make_run(project, "a"), []
    run.config.write_text(f"[model]\nbase = '{begin}evil.example/share/a.ckpt'\n", "utf-8")

    def heard(function):
        return lambda path, **named: looked.append(str(path)) or function(path, **named)

    for name in ("stat", "lstat"):
        monkeypatch.setattr(os, name, heard(getattr(os, name)))
    (entry,) = shelf.entries()
    assert entry.base == "a.ckpt" and entry.family == ""
    assert looked and not [path for path in looked if "evil" in path]


def test_events_cut_off_by_a_crash_are_no_obstacle(project, shelf):
    run = make_run(project, "a", end="nothing")
    with run.events.open("ab") as file:
        file.write(b'{"seq": 9, "type": "st')
    run.process.write_text("{}")
    assert shelf.entries()[0].word == "interrupted"
    assert list(events.read(run.events))


def test_what_a_person_asked_to_see_is_no_preview(project):
    run = make_run(project, "a")
    log, before = events.EventLog(run.events), compare.outcome(run).samples
    before["a photo of it"].with_name("asked.png").write_bytes(b"a picture")
    log(events.Sample(20, "a photo of it", "samples/asked.png", seed=9, strength=0.3, asked=True))
    assert compare.outcome(run).samples == before


def test_pictures_that_are_left_out_are_no_difference_to_the_preset(place, project, pictures):
    first = sorted(file.name for file in pictures.iterdir())[0]
    projects.update(project, left_out=(first,))
    run = drafts.make_run(place, projects.list_projects(place)[0])
    assert config_io.load(run.config).data.leave_out == (first,)
    assert compare.against_preset(config_io.load(run.config)) == ('the preset "Object"', [])
