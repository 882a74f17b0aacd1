"""What the Monitor page says of a run in each of its states."""

import re
from pathlib import Path

import pytest

from app.gui import monitor_views as views
from app.gui.samples_views import asked_strip, samples_grid
from app.runs import Run, Status
from app.watching import Watched
from trainers.config import DataConfig, SavingConfig, TrainConfig
from trainers.events import RunState, Sample

NASTY = "<img src=x onerror=alert(1)> \"a\" & 'b'"
FOLDER = Path("/home/runs/2026-11-26_14-05-33_cat")


def a_run(word: str, trigger: str = "sks", **values) -> Watched:
    facts = {"step": 420, "steps": 1600, "seconds_per_step": 1.31, "phase": "Training", "memory_gb": 9.74}
    state = RunState(**{**facts, "device": "cuda:0", **values})
    alive = word in ("starting", "running", "stopping", "pausing")
    config = TrainConfig(data=DataConfig(trigger=trigger), saving=SavingConfig(name="cat"))
    status = Status(Run(FOLDER), state, alive, word)
    return Watched(status, config, "Whiskers", word, seconds=560.0, sudden="It ended without a word.")


def labels(html: str) -> list[str]:
    return re.findall(r"<button[^>]*>([^<]+)</button>", html)


def primary(html: str) -> list[str]:
    return re.findall(r'class="dr-button primary"[^>]*>([^<]+)<', html)


def test_head_says_where_the_run_is():
    html = views.head(a_run("running"))
    assert "Step 420 of 1,600, 1.3 s/step, about 26 min left" in html
    assert ">Training<" in html and "9 min of training" in html
    assert "Graphics card" in html and 'role="progressbar"' in html and 'aria-valuenow="26"' in html


def test_memory_is_the_runs_own_and_what_all_programs_use_of_the_card():
    card = {"used_gb": 11.24, "total_gb": 23.99}
    own, everything = "GPU memory of the run: 9.7 GB at most", "All programs: 11.2 of 24.0 GB"
    assert views.memory(a_run("running", **card)) == [own, everything]
    assert views.memory(a_run("finished", **card)) == [own]  # what the card holds now, nobody has measured
    assert views.memory(a_run("running")) == [own]  # events of earlier versions
    assert views.memory(a_run("running", device="cpu", **card)) == ["Memory of the process: 9.7 GB at most"]
    assert views.memory(a_run("starting", memory_gb=0.0)) == []


def test_head_counts_what_is_prepared():
    html = views.head(a_run("starting", step=0, steps=0, phase="Encoding pictures", phase_done=12, phase_total=40))
    assert "Encoding pictures: 12 of 40" in html and 'aria-valuenow="30"' in html


def test_fast_steps_are_not_rounded_to_nothing():
    assert (
        views.pace(0.043) == "0.043 s/step" and views.pace(1.31) == "1.3 s/step" and views.pace(12.04) == "12.0 s/step"
    )


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("new", ["Train"]),
        ("waiting", ["Take out of the queue"]),
        ("starting", ["Pause", "Cancel"]),
        ("running", ["Pause", "Stop and keep"]),
        ("pausing", []),
        ("stopping", []),
        ("paused", ["Resume", "Compare checkpoints"]),
        ("stopped", ["Resume", "Compare checkpoints"]),
        ("interrupted", ["Resume", "Change the settings"]),
        ("failed", ["Change the settings", "Try again"]),
        ("finished", ["Compare checkpoints"]),
    ],
)
def test_each_state_has_its_buttons_and_at_most_one_primary(word, expected):
    html = views.actions(a_run(word))
    assert labels(html) == expected and len(primary(html)) <= 1
    assert word in views.WORDS


def test_a_failure_that_needs_no_other_settings_offers_resume_first():
    assert primary(views.actions(a_run("failed", hint="Make room and resume."))) == ["Resume"]


def test_saving_that_takes_long_can_be_ended():
    run = a_run("stopping")
    assert labels(views.actions(run)) == [] and ">Saving ...<" in views.head(run)
    late = Watched(run.status, run.config, run.project, "stopping", late=True)
    assert labels(views.actions(late)) == ["End it at once"] and "loses the steps" in views.actions(late)


def test_a_failure_reads_like_advice():
    html = views.advice(a_run("failed", message=f"Out of memory {NASTY}.", hint="Lower the batch size."))
    assert "Lower the batch size." in html and 'role="alert"' in html and "<img" not in html
    assert "It ended without a word." in views.advice(a_run("interrupted"))
    assert views.advice(a_run("running")) == ""


def test_the_end_says_the_file_the_trigger_and_the_strength(monkeypatch):
    html = views.ending(a_run("finished", NASTY, adapter="output/cat.safetensors"))
    assert "Saved as cat.safetensors" in html and "1.0; less" in html and "<img" not in html
    assert labels(html) == ["Copy trigger word", "Open folder"]
    without = views.ending(a_run("finished", "", adapter="output/cat.safetensors"))
    assert "Copy trigger" not in without and "the words of captions and folders call it up, or “object”" in without
    assert views.ending(a_run("running", adapter="output/cat.safetensors")) == ""


def test_changes_and_warnings_are_counted_once_each():
    run = a_run("running", adjustments=[("SDPA", "no xformers")] * 2, warnings=[(NASTY, ""), ("Small.", "Use larger.")])
    html = views.notes(run)
    assert "Changed by the engine (1)" in html and "Warnings (2)" in html and "<img" not in html


def test_what_waits_is_named_in_order():
    assert views.queue_line([]) == ""
    assert "Next in the queue: a, b, c and 1 more." in views.queue_line(["a", "b", "c", "d"])


def test_a_run_whose_card_is_full_can_be_asked_to_use_less_memory():
    assert "Use less memory" in views.actions(a_run("running", spilled=True))
    assert "Use less memory" not in views.actions(a_run("paused", spilled=True))


def test_a_queue_that_a_pause_holds_can_go_on():
    run = a_run("paused")
    held = Watched(run.status, run.config, run.project, "paused", queue=("next",), held=True)
    assert labels(views.actions(held)) == ["Resume", "Compare checkpoints", "Train the next run"]
    assert "Next in the queue: next. It waits because a run was paused." in views.head(held)


def test_a_run_is_labelled_by_project_and_time():
    assert views.run_label(Run(FOLDER), "Whiskers") == "Whiskers, 26 Nov 2026, 14:05:33"
    assert views.run_label(Run(Path("/runs/my copy")), "Whiskers") == "Whiskers, my copy"


def test_log_is_shown_as_text():
    assert "&lt;script&gt;" in views.log_view(FOLDER / "log.txt", "<script>")


def test_samples_are_a_grid_with_the_base_first_that_only_grows_at_its_end():
    samples = [Sample(step, prompt, f"samples/{step}_{prompt}.png") for step in (0, 100) for prompt in ("a", "b")]
    html = samples_grid(samples, FOLDER)
    assert re.findall(r'<th scope="col"[^>]*>([^<]+)<', html) == ["Prompt", "Base", "Step 100"]
    assert html.count("<img") == 4
    grown = samples_grid([*samples, Sample(1200, "c", "samples/new.png")], FOLDER)
    assert re.findall(r'<th scope="col"[^>]*>([^<]+)<', grown) == ["Prompt", "Base", "Step 100", "Step 1,200"]
    rows, grown_rows = (re.findall(r"<tr>.*?</tr>", one)[1:] for one in (html, grown))
    for before, after in zip(rows, grown_rows, strict=False):
        assert after.startswith(before.removesuffix("</tr>"))
    assert len(grown_rows) == 3 and samples_grid([], FOLDER) == ""


def test_a_picture_drawn_again_after_a_resume_is_shown_once():
    html = samples_grid([Sample(100, "a", "samples/one.png"), Sample(100, "a", "samples/two.png")], FOLDER)
    assert html.count("<img") == 1 and "two.png" in html


def test_prompts_are_shown_as_text():
    sample = Sample(0, NASTY, "samples/a.png", 7, 0.8, True)
    for html in (samples_grid([sample], FOLDER), asked_strip([sample], [NASTY], FOLDER)):
        assert "<img src=x" not in html and "&lt;img src=x" in html


def test_asked_for_samples_come_newest_first_after_those_in_the_making():
    done = [Sample(10, "old", "a.png", 7, 0.8, True), Sample(20, "new", "b.png", 8, 1.0, True)]
    html = asked_strip(done, ["next", "last"], FOLDER)
    assert [html.index(word) for word in ("last", "next", ">new<", ">old<")] == sorted(
        html.index(word) for word in ("last", "next", ">new<", ">old<")
    )
    assert html.count("drawing ...") == 2 and "Step 20, seed 8, strength 1" in html
    assert asked_strip([], [], FOLDER) == ""
