"""Archives and the trash: what went comes back to the byte, and nothing leaves the folders it belongs to."""

import hashlib
import json
import os
import shutil
import stat
import zipfile

import pytest

from app import archive, jobs, projects, runs, trash
from app.chores import Chores
from tests.app.library_runs import contents, make_run
from tests.app.traced_memory import most_bytes
from trainers.errors import UserError


@pytest.fixture
def project(place, pictures):
    return projects.create(place, "Cats", pictures, "object")


@pytest.fixture
def cat(project):
    return make_run(project, "tabby")


@pytest.fixture
def packed(place, cat, tmp_path):
    """Call it to rewrite the run's archive entry by entry, with more added; the run itself is out of the way then."""
    file = archive.save_zip(place, cat, [])
    trash.throw_run(place, cat, [])

    def rewrite(change=lambda said: said, added=(), without=""):
        made = tmp_path / "made.zip"
        with zipfile.ZipFile(file) as old, zipfile.ZipFile(made, "w") as new:
            for entry in old.infolist():
                data = old.read(entry)
                if entry.filename == archive.CONTENTS:
                    data = json.dumps(change(json.loads(data))).encode()
                if entry.filename != without:
                    new.writestr(entry.filename, data)
            for entry, data in added:
                new.writestr(entry, data)
        return made

    return rewrite


def test_an_archive_restores_every_file_to_the_byte(place, cat):
    before = contents(cat.folder)
    file, thrown = archive.archive(place, cat, list)
    assert file.parent == place.archive and not cat.folder.exists() and thrown.content.is_dir()
    assert archive.list_archives(place) == [file]
    assert archive.restore(place, file) == cat
    assert contents(cat.folder) == before and runs.status(cat).word == "finished"
    assert not list(place.archive.glob(".*"))


def test_a_run_comes_back_to_another_home_with_its_project(place, cat, tmp_path):
    file = archive.save_zip(place, cat, [])
    other = type(place)(tmp_path / "other")
    run = archive.restore(other, file)
    (project,) = projects.list_projects(other)
    assert project.name == "Cats" and project.kind == "object" and run.folder.parent == project.runs
    assert contents(run.folder) == contents(cat.folder)


def test_restoring_never_overwrites_a_run(place, cat):
    file = archive.save_zip(place, cat, [])
    (cat.folder / "note.txt").write_text("mine")
    before = contents(cat.folder)
    with pytest.raises(UserError, match="in the library already"):
        archive.restore(place, file)
    assert contents(cat.folder) == before


def test_progress_counts_every_byte_written_and_read(place, cat):
    seen = []
    archive.save_zip(place, cat, [], lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == 2 * sum(map(len, contents(cat.folder).values()))


@pytest.mark.parametrize("name", ["../../evil", "/evil", "{run}/../evil", "{run}/..\\evil", "C:/evil", "{run}/nul"])
def test_a_file_that_would_land_elsewhere_is_refused(name, place, packed, cat, tmp_path):
    name = name.format(run=cat.folder.name)
    before = contents(tmp_path)
    made = packed(added=[(name, b"x")])
    with pytest.raises(UserError, match="outside its folder"):
        archive.restore(place, made)
    made.unlink()
    assert contents(tmp_path) == before and not cat.folder.exists()


def test_a_link_is_refused(place, packed, cat):
    link = zipfile.ZipInfo(f"{cat.folder.name}/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(UserError, match="link"):
        archive.restore(place, packed(added=[(link, b"/etc/passwd")]))


def test_a_file_that_unpacks_to_far_too_much_is_refused(place, packed, cat, monkeypatch):
    monkeypatch.setattr(archive, "MOST_PACKED", 2)
    bomb = zipfile.ZipInfo(f"{cat.folder.name}/bomb")
    bomb.compress_type = zipfile.ZIP_DEFLATED

    def named(said):
        return said | {"files": said["files"] | {"bomb": [3 * 2**20, "0"]}}

    with pytest.raises(UserError, match="far more than a run"):
        archive.restore(place, packed(named, added=[(bomb, bytes(3 * 2**20))]))


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (zipfile.ZIP_DEFLATED, "no zip that can"),
        (zipfile.ZIP_BZIP2, "an unusual way"),
        (zipfile.ZIP_LZMA, "an unusual way"),
    ],
)
@pytest.mark.parametrize("check", [archive.require_restorable, archive.restore])
def test_a_small_list_of_files_that_unpacks_to_a_large_one_fills_no_memory(check, how, told, place, tmp_path):
    made, size = tmp_path / "made.zip", 30_000_000
    with zipfile.ZipFile(made, "w") as packed:
        packed.writestr(archive.CONTENTS, bytes(size), how)
    data = made.read_bytes()
    made.write_bytes(data.replace(size.to_bytes(4, "little"), (50).to_bytes(4, "little")))

    def refused():
        with pytest.raises(UserError, match=told):
            check(place, made)

    assert most_bytes(refused) < size / 2


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_file_that_is_packed_as_one_large_block_is_refused(how, place, packed, cat):
    block = zipfile.ZipInfo(f"{cat.folder.name}/block")
    block.compress_type = how

    def named(said):
        return said | {"files": said["files"] | {"block": [1, hashlib.sha256(b"x").hexdigest()]}}

    with pytest.raises(UserError, match="packed in an unusual way.*block"):
        archive.restore(place, packed(named, added=[(block, b"x")]))
    assert not cat.folder.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda said: said | {"run": "../x"}, "cannot be made here"),
        (lambda said: said | {"project": "../x"}, "cannot be made here"),
        (lambda said: said | {"project": ""}, "cannot be made here"),
        (lambda said: said | {"files": {}}, "no settings"),
        (lambda said: said | {"files": 3}, "damaged"),
        (lambda said: said | {"files": said["files"] | {"more": [1, "0"]}}, "lacks"),
        (lambda said: [], "damaged"),
    ],
)
def test_a_list_of_files_that_lies_is_refused(change, said, place, packed, cat):
    with pytest.raises(UserError, match=said):
        archive.restore(place, packed(change))
    assert not cat.folder.exists()


@pytest.mark.parametrize("name", ["lock", "process.json", "control/stop", "Process.JSON", "control. /wish"])
def test_what_a_process_left_in_a_run_does_not_come_back_with_it(name, place, packed, cat):
    def named(said):
        return said | {"files": said["files"] | {name: [1, hashlib.sha256(b"x").hexdigest()]}}

    run = archive.restore(place, packed(named, added=[(f"{cat.folder.name}/{name}", b"x")]))
    assert run.config.is_file() and not {path.name for path in run.folder.iterdir()} & {name, name.partition("/")[0]}


@pytest.mark.parametrize("where", ["\\\\evil.example\\share", "//evil.example/share", "/\\evil.example/share"])
def test_a_restored_project_does_not_look_for_its_pictures_on_another_computer(where, place, project, packed):
    made = packed(lambda said: said | {"settings": said["settings"] | {"pictures": where}})
    shutil.rmtree(project.folder)
    run = archive.restore(place, made)
    (restored,) = projects.list_projects(place)
    assert restored.folder == run.folder.parent.parent and restored.owns_pictures


def test_a_changed_file_is_noticed_and_nothing_is_left(place, packed, cat):
    def changed(said):
        size, digest = said["files"]["config.toml"]
        return said | {"files": said["files"] | {"config.toml": [size, digest[::-1]]}}

    with pytest.raises(UserError, match="damaged"):
        archive.restore(place, packed(changed))
    assert not cat.folder.exists() and not list(place.archive.glob(".*"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"text"])
def test_a_file_that_is_no_zip_is_a_sentence(content, place, tmp_path):
    file = tmp_path / "a.zip"
    file.write_bytes(content)
    with pytest.raises(UserError, match="no zip"):
        archive.restore(place, file)
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("a.txt", "hello")
    with pytest.raises(UserError, match="no archive of a run"):
        archive.restore(place, file)


def test_the_original_stays_where_the_zip_does_not_read_back(place, cat, monkeypatch):
    monkeypatch.setattr(archive, "_read", lambda *arguments: (0, "0"))
    with pytest.raises(UserError, match="does not read back"):
        archive.archive(place, cat, list)
    assert cat.config.exists() and not list(place.archive.iterdir())


def test_a_run_in_training_or_waiting_goes_nowhere(place, run, engine_mode):
    for put_away in (archive.save_zip, trash.throw_run):
        with pytest.raises(UserError, match="waits in the queue"):
            put_away(place, run, [run])
    job = jobs.start(run, place, engine_mode("wait"))
    project = projects.list_projects(place)[0]
    for put_away, what in ((archive.save_zip, run), (trash.throw_run, run), (trash.throw_project, project)):
        with pytest.raises(UserError, match="being trained"):
            put_away(place, what, [])
    jobs.stop(run, wait=lambda: job.process.poll())
    job.process.wait(30)


def test_what_is_thrown_away_lies_in_the_trash_and_comes_back(place, cat):
    before = contents(cat.folder)
    trash.throw_run(place, cat, [])
    (thrown,) = trash.list_trash(place)
    assert not cat.folder.exists() and contents(thrown.content) == before
    assert thrown.folder.parent == place.trash and thrown.bytes == sum(map(len, before.values()))
    assert trash.put_back(place, thrown.folder.name) == cat.folder
    assert contents(cat.folder) == before and trash.list_trash(place) == [] and not list(place.trash.iterdir())


def test_a_place_that_is_taken_is_left_alone(place, cat):
    thrown = trash.throw_run(place, cat, [])
    cat.folder.mkdir()
    with pytest.raises(UserError, match="is taken"):
        trash.put_back(place, thrown.folder.name)
    assert thrown.content.is_dir() and not list(cat.folder.iterdir())


def test_a_project_goes_with_its_runs_and_leaves_linked_pictures(place, project, cat, pictures):
    before, theirs = contents(project.folder), contents(pictures)
    thrown = trash.throw_project(place, project, [])
    assert projects.list_projects(place) == [] and contents(pictures) == theirs
    trash.put_back(place, thrown.folder.name)
    assert contents(project.folder) == before


def test_a_run_waits_for_its_project_to_be_put_back(place, project, cat):
    run, whole = trash.throw_run(place, cat, []), trash.throw_project(place, project, [])
    with pytest.raises(UserError, match="Put the project back first"):
        trash.put_back(place, run.folder.name)
    trash.put_back(place, whole.folder.name)
    trash.put_back(place, run.folder.name)
    assert cat.config.exists()


def test_pictures_that_another_project_uses_stay(place, project, pictures):
    inside = project.folder / "pictures"
    os.rename(pictures, inside)
    projects.create(place, "Second", inside, "object")
    with pytest.raises(UserError, match="Second uses the pictures"):
        trash.throw_project(place, project, [])


@pytest.mark.parametrize("came_from", ["../outside", "projects", "projects/a/b/c", "projects/../x", "/etc/x", "x/a"])
def test_a_note_in_the_trash_that_names_another_place_is_no_note(came_from, place, cat):
    thrown = trash.throw_run(place, cat, [])
    note = thrown.folder / trash.NOTE
    note.write_text(note.read_text("utf-8").replace(thrown.came_from, came_from), "utf-8")
    assert trash.list_trash(place) == []
    with pytest.raises(UserError, match="no longer in the trash"):
        trash.put_back(place, thrown.folder.name)


def test_a_chore_says_how_far_it_is_and_what_came_of_it():
    chores, seen = Chores(), []

    def work(report):
        with pytest.raises(UserError, match="goes on"):
            chores.start("Another", work)
        report(3, 3)
        seen.append(chores.now())
        return "Done."

    chores.start("Packing", work).join(10)
    assert (seen[0].title, seen[0].done, seen[0].over) == ("Packing", 3, False)
    assert chores.now().said == "Done." and not chores.now().failed
    chores.dismiss()
    assert chores.now() is None


def test_a_chore_that_fails_says_so():
    chores = Chores()

    def work(report):
        raise UserError("The disk is full.", "Make room.")

    chores.start("Packing", work).join(10)
    assert chores.now().failed and (chores.now().said, chores.now().hint) == ("The disk is full.", "Make room.")
