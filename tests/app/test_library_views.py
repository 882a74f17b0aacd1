"""What the Library page says, in words and HTML: numbers as people write them, names of any kind as text."""

import json
from dataclasses import replace

import pytest

from app import compare, projects, runs
from app.adapter_facts import in_words, verdicts
from app.chores import Chore
from app.gui import inspect_views, library_views, queue_views, run_views, storage_views
from app.gui.library_parts import Shown
from app.library import Shelf
from app.projects import Project
from app.trash import Thrown
from tests.app.library_runs import make_run
from trainers.events import RunState

EVIL = "<script>alert('1')</script>\"&"
FACTS = {
    "family": "Stable Diffusion 1.x",
    "type": "LoRA, kohya layout",
    "rank": {16: 3, 8: 1, 4: 1, 2: 1, 1: 1},
    "alpha": {"none: scale 1": 3},
    "words": {"trigger": EVIL},
    "modules": {"denoiser": 7},
    "blocks": {"mid": {"norm": 0.84}},
    "problems": [{"name": "zeros", "says": "It is all zeros.", "concerns": 1}],
    "interfaces": {
        "A1111": "loads",
        "Forge": "loads in part: 2 keys unmatched; it has other names",
        "ComfyUI": "does not load: it reads others",
    },
    "unmatched keys": {"Forge": ["lora_<b>x</b>"]},
}


@pytest.fixture
def entry(place, pictures):
    """Of a run whose every name holds HTML."""
    project = projects.create(place, EVIL, pictures, "object")
    make_run(project, "tabby", ("data.trigger=<i>t</i>",))
    return replace(Shelf(place).entries()[0], name=EVIL, note=EVIL)


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (1, "1 byte"), (820_000, "820 KB"), (3_240_000, "3.2 MB"), (45e6, "45 MB"), (1.44e9, "1.4 GB")],
)
def test_sizes(count, said):
    assert library_views.size(count) == said


def test_names_of_any_kind_are_text_wherever_they_stand(entry, place):
    outcome = compare.outcome(entry.run)
    outcome = replace(outcome, samples={EVIL: next(iter(outcome.samples.values()))})
    change = compare.Change("saving.comment", "Comment", EVIL, EVIL)
    waiting = queue_views.Waiting(entry.run, EVIL, EVIL)
    status = runs.Status(entry.run, RunState(status="running", phase=EVIL), True, "running")
    project = Project(entry.run.folder.parent.parent, EVIL, EVIL, EVIL)
    thrown = Thrown(place.trash / "x", EVIL, EVIL, "projects/x", EVIL, 3)
    for html in (
        library_views.cards([entry], 9, (), 1),
        library_views.chosen_bar([EVIL, EVIL]),
        library_views.moved_to_trash(EVIL, EVIL),
        run_views.title(entry) + run_views.about(entry) + run_views.details(entry),
        run_views.differences([change], EVIL, EVIL),
        run_views.change_shown(change),
        run_views.comparison((entry, entry), [change], (outcome, outcome)),
        queue_views.running((waiting, status), 1, False),
        queue_views.waiting_runs([waiting], [(waiting, EVIL)]),
        storage_views.projects([storage_views.Kept(project, 1, False)]),
        storage_views.trash([thrown], place.trash),
        storage_views.chore(Chore(EVIL, 1, 2)) + storage_views.chore(Chore(EVIL, said=EVIL, hint=EVIL)),
        inspect_views.inspected(EVIL, FACTS),
    ):
        assert "<script" not in html and "<b>x" not in html and "<i>t" not in html
        assert "&lt;" in html


def test_cards_are_shown_in_pages_and_say_how_many_fit(entry):
    many = [entry] * 60
    html = library_views.cards(many, library_views.PAGE, (), 70)
    assert (
        html.count("<article") == library_views.PAGE
        and "60 of 70 runs" in html
        and f"Show {library_views.PAGE} more" in html
    )
    assert "Show" not in library_views.cards(many, 60, (), 60)


def test_empty_states_say_what_will_appear(place):
    assert "Every training shows here" in library_views.cards([], 24, (), 0)
    assert "Nothing fits" in library_views.cards([], 24, (), 3)
    assert "wait here" in queue_views.running(None, 0, False)
    assert "until you put them back" in storage_views.trash([], place.trash)


def test_a_queue_that_a_pause_holds_can_go_on():
    html = queue_views.running(None, 2, True)
    assert "paused a run" in html and 'data-act="go_on"' in html


def test_two_runs_at_most_are_chosen():
    shown = Shown().choose("a").choose("b").choose("c")
    assert shown.chosen == ("b", "c") and shown.choose("b").chosen == ("c",)


def test_the_run_in_training_says_where_it_is(run):
    state = RunState(status="running", step=420, steps=1600, seconds_per_step=1.3)
    words = queue_views.progress_words(runs.Status(run, state, True, "running"))
    assert words == "Step 420 of 1,600, 1.3 s/step, about 26 min left"
    early = RunState(phase="Encoding pictures", phase_done=12, phase_total=1040)
    assert queue_views.progress_words(runs.Status(run, early, True, "starting")) == "Encoding pictures 12 of 1,040"


def test_the_first_waiting_run_cannot_go_up_nor_the_last_one_down(run):
    waiting = [queue_views.Waiting(run, name, "p") for name in ("a", "b")]
    html = queue_views.waiting_runs(waiting, [])
    off = [part.partition(">")[0] for part in html.split("<button ")[1:] if part.startswith("disabled")]
    assert [one.split('aria-label="')[1].split('"')[0] for one in off] == ["Train a next", "Move a up", "Move b down"]


def test_card_and_details_name_the_preset(entry):
    run = replace(entry, kind="object", preset="My <b>own</b>")
    for html in (library_views.cards([run], 9, (), 1), run_views.details(run)):
        assert "My &lt;b&gt;own&lt;/b&gt;" in html
    assert library_views.subject(run) == "Object · Preset My <b>own</b>"
    assert library_views.subject(replace(run, preset="Object")) == "Preset Object"
    assert library_views.subject(replace(run, preset="")) == "Object"
    assert "Preset" not in run_views.details(entry)


def test_the_details_of_a_run_say_how_far_it_is_while_it_trains(entry):
    run = replace(entry, step=420, steps=1600)
    assert "Step 420 of 1,600" in run_views.details(replace(run, word="running"))
    assert "Step 420 of 1,600" not in library_views.cards([replace(run, word="running")], 9, (), 1)
    assert "1,600 steps" in run_views.details(replace(run, word="finished", step=1600))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("adapter.alpha", None, "empty"),
        ("optimizer.rate", 1e-4, "0.0001"),
        ("data.flip", True, "on"),
        ("preview.every", 1500, "1,500 steps"),
        ("preview.prompts", ("a", "b"), "a, b"),
        ("data.class_words", tuple("abcdef"), "a, b, c, d and 2 more"),
    ],
)
def test_values_of_settings_in_words(name, value, said):
    assert run_views.value_words(name, value) == said


def test_verdicts_name_the_keys_that_a_program_does_not_use():
    found = {one.program: one for one in verdicts(FACTS)}
    assert [one.loads for one in found.values()] == ["whole", "partly", "no"]
    assert found["Forge"].unmatched == ("lora_<b>x</b>",) and found["A1111"].unmatched == ()
    assert [one.loads for one in verdicts({"interfaces": "not known for this family"})] == [""]


def test_facts_read_the_same_when_they_have_been_through_json():
    through = in_words(json.loads(json.dumps(FACTS)))
    assert through == in_words(FACTS)
    assert through["rank"] == "1 to 16, 5 different, mostly 16 (3 of them)"


def test_an_inspected_file_shows_problems_and_verdicts():
    html = inspect_views.inspected("a.safetensors", FACTS)
    assert "It is all zeros." in html and "Loads in part" in html and "It has other names" not in html.split("Forge")[0]
    assert "loads whole in A1111" in html
    assert "no program" in inspect_views.inspected("a", {"interfaces": {"A1111": "does not load: no"}})


@pytest.mark.parametrize(("seconds", "said"), [(125.0, "125.0 s/step"), (1.26, "1.3 s/step"), (0.042, "0.042 s/step")])
def test_the_pace_of_a_run_is_told_in_plain_figures(entry, seconds, said):
    state = RunState(status="running", step=3, steps=10, seconds_per_step=seconds)
    assert said in queue_views.progress_words(runs.Status(entry.run, state, True, "running"))
