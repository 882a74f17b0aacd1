"""What is compared, how it is planned on disk, and how far it is; nothing is drawn here."""

import pytest
from PIL import Image

from app import comparisons, runs, tasks
from app.comparisons import Wish
from app.runs import Run
from app.tasks import TaskStatus
from trainers import comparison, config_io
from trainers.comparison import BASE
from trainers.errors import UserError
from trainers.events import EventLog, Phase, RunState
from trainers.prompts import plain_prompt

WISH = Wish((10, 20), ("zib", "a cat on a zib"), (0.6, 1.0), (1, 2))


@pytest.fixture
def trained(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run with checkpoints of four steps and the trigger word "zib"; no process draws."""
    for step in (10, 20, 30, 100):
        (run.folder / "checkpoints" / f"step_{step:06d}").mkdir(parents=True)
    (run.folder / "checkpoints" / ".partial_step_000110").mkdir()
    config = config_io.load(run.config)
    config_io.save(config_io.merge(config, {"data": {"trigger": "zib", "kind": "object"}}), run.config)
    says(monkeypatch)
    return run


def says(monkeypatch: pytest.MonkeyPatch, word: str = "none", **state: str) -> None:
    monkeypatch.setattr(tasks, "status", lambda folder: TaskStatus(folder, word, RunState(**state)))


def draw(made: comparison.Comparison, count: int | None = None) -> None:
    for cell in made.cells[:count]:
        Image.new("RGB", (8, 8), (len(cell.file), cell.seed, 0)).save(made.folder / cell.file)


def test_whole_checkpoints_are_listed_in_order(trained):
    assert comparisons.checkpoint_steps(trained) == [10, 20, 30, 100]


def test_few_checkpoints_are_all_taken_and_many_evenly_with_the_last():
    assert comparisons.spread([1, 2, 3]) == [1, 2, 3]
    assert comparisons.spread(list(range(10, 210, 10))) == [10, 60, 110, 150, 200]


def test_a_wish_counts_the_base_and_the_rows_without_trigger(trained):
    # per prompt and seed: base, base without trigger, 2 checkpoints x 2 strengths, last without trigger x 2
    assert comparisons.count(trained, WISH) == 2 * 2 * (1 + 1 + 4 + 2)


def test_a_prompt_without_the_trigger_word_has_no_row_without_it(trained):
    made = comparisons.create(trained, Wish((10,), ("a dog",), (1.0,), (1,)))
    assert [(cell.step, cell.plain) for cell in made.cells] == [(BASE, False), (10, False)]


@pytest.mark.parametrize(
    ("prompt", "kind", "words", "plain"),
    [
        ("zib on a table", "object", (), "object on a table"),
        ("zib object, red", "object", (), "object, red"),
        ("a cat, zib", "style", (), "a cat"),
        ("zib", "style", (), "style"),
        ("ZIB as a knight", "person", ("woman",), "woman as a knight"),
        ("a dog", "person", (), ""),
    ],
)
def test_the_class_word_takes_the_triggers_place(prompt, kind, words, plain):
    data = config_io.parse({"data": {"trigger": "zib", "kind": kind, "class_words": list(words)}}).data
    assert plain_prompt(prompt, data) == plain


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (([], "zib", "1", "1"), "at least one checkpoint"),
        (([999], "zib", "1", "1"), "at least one checkpoint"),
        (([10], " \n ", "1", "1"), "at least one prompt"),
        (([10], "zib", "much", "1"), "Strengths are numbers"),
        (([10], "zib", "nan", "1"), "Strengths are numbers"),
        (([10], "zib", "0", "1"), "Strengths are numbers"),
        (([10], "zib", "1", "-3"), "Seeds are whole numbers"),
        (([10], "zib", "1", "1.5"), "Seeds are whole numbers"),
        (([10], "zib", "1", ""), "Seeds are whole numbers"),
        (([10, 20], "zib\ncat", "1 2 3", " ".join(map(str, range(500)))), "That would be 6,000 pictures"),
    ],
)
def test_a_wrong_wish_is_a_sentence(trained, fields, sentence):
    with pytest.raises(UserError, match=sentence):
        comparisons.read_wish(trained, *fields)


def test_a_wish_is_read_from_its_fields(trained):
    wish = comparisons.read_wish(trained, [20, 10], "zib\n\na cat on a  zib\nzib", "1.0; 0.6", "1, 2")
    assert wish == WISH


def test_the_defaults_can_be_read_back(trained):
    usual = comparisons.default_wish(trained)
    assert usual.steps == (10, 20, 30, 100)
    assert usual.prompts == ("zib object", "zib on a wooden table", "zib under water")
    fields = (
        usual.steps,
        "\n".join(usual.prompts),
        " ".join(map(str, usual.strengths)),
        " ".join(map(str, usual.seeds)),
    )
    assert comparisons.read_wish(trained, *fields) == usual


def test_the_fields_begin_with_what_was_compared_last(trained):
    assert comparisons.last_wish(trained) == comparisons.default_wish(trained)
    comparisons.create(trained, WISH)
    assert comparisons.last_wish(trained) == WISH
    (trained.folder / "checkpoints" / "step_000010").rmdir()
    assert comparisons.last_wish(trained).steps == (20,)


def test_a_comparison_is_read_back_as_it_was_made(trained):
    made = comparisons.create(trained, WISH)
    assert comparisons.list_comparisons(trained) == [made]
    assert len({cell.file for cell in made.cells}) == len(made.cells)


def test_the_same_wish_goes_on_with_the_same_comparison(trained):
    made = comparisons.create(trained, WISH)
    draw(made, 3)
    again = comparisons.create(trained, WISH)
    assert again.folder == made.folder
    assert again.missing() == list(made.cells[3:])


def test_pictures_of_earlier_comparisons_are_taken_over(trained):
    draw(comparisons.create(trained, WISH))
    more = comparisons.create(trained, Wish((10, 20, 30), *(WISH.prompts, WISH.strengths, WISH.seeds)))
    assert {cell.step for cell in more.missing()} == {30}  # also its rows without the trigger word
    for cell in more.cells:
        if cell.step == 10:
            assert Image.open(more.folder / cell.file).getpixel((0, 0))[1] == cell.seed


def test_a_damaged_comparison_hides_no_other(trained):
    made = comparisons.create(trained, WISH)
    broken = trained.folder / "comparisons" / "2020-01-01_00-00-00"
    broken.mkdir()
    (broken / comparison.FILE).write_text('{"cells": [{"file": "../../x"}]}', "utf-8")
    assert comparisons.list_comparisons(trained) == [made]


def test_progress_says_what_the_process_and_the_pictures_say(trained, monkeypatch):
    made = comparisons.create(trained, WISH)
    assert comparisons.progress(made).word == "stopped"
    draw(made, 5)
    says(monkeypatch, word="running", phase="Drawing")
    assert (comparisons.progress(made).word, comparisons.progress(made).drawn) == ("running", 5)
    says(monkeypatch, word="failed", message="The base is gone.", hint="Bring it back.")
    found = comparisons.progress(made)
    assert (found.word, found.message, found.hint) == ("failed", "The base is gone.", "Bring it back.")
    says(monkeypatch, word="interrupted")
    assert "without a word" in comparisons.progress(made).message
    draw(made)
    assert comparisons.progress(made).word == "done"


def test_the_time_left_comes_from_the_pace_of_this_sitting(trained, monkeypatch):
    made = comparisons.create(trained, WISH)
    log, now = EventLog(made.folder / "events.jsonl"), [1000.0]
    for module in ("trainers.events", "app.comparisons"):
        monkeypatch.setattr(f"{module}.awake", lambda: now[0])
    for event, later in ((Phase("Drawing", 0, 32), 500), (Phase("Loading the base model"), 20)):
        log(event)
        now[0] += later
    for drawn in range(3):
        log(Phase("Drawing", drawn, 32))
        now[0] += 4
    says(monkeypatch, word="running")
    now[0] -= 4
    assert comparisons.progress(made).seconds_left == pytest.approx(4 * 32)


def test_a_started_comparison_is_told_its_run(trained, place, monkeypatch):
    made, seen = comparisons.create(trained, WISH), []
    monkeypatch.setattr(tasks, "start", lambda *values: seen.append(values))
    comparisons.start(trained, made, place)
    assert seen == [(made.folder, "compare", {"run": str(trained.folder)}, place)]
    says(monkeypatch, word="running")
    comparisons.start(trained, made, place)
    assert len(seen) == 1


def test_the_sheet_has_a_row_for_each_and_leaves_room_for_what_is_missing(trained):
    made = comparisons.create(trained, WISH)
    draw(made, 20)
    sheet = Image.open(comparisons.write_sheet(made.folder))
    assert sheet.height > 5 * 128 and sheet.width > 8 * 128


def test_places_lead_to_runs_and_to_nothing_else(trained, place):
    assert runs.by_key(place, trained.key) == trained
    project = trained.folder.parent.parent.name
    for text in ("", project, f"{project}/", f"{project}/..", "../..", f"{project}/x/../{trained.folder.name}", "/"):
        assert runs.by_key(place, text) is None, text


def test_the_newest_run_with_checkpoints_is_shown(trained, place):
    assert comparisons.shown_run(place, "") == trained
    assert comparisons.shown_run(place, "gone/gone") == trained
