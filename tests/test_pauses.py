"""The time that is left counts previews and validations, and a validation has as much room as a step."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.nine_pictures import nine_pictures
from tests.test_train import run
from tests.tiny import tiny_pipeline_folder
from trainers import events, outputs, pauses
from trainers import train as recipe
from trainers.checkpoint import Position, is_rolling, newest_step
from trainers.errors import UserError
from trainers.events import MAKING
from trainers.families.base import LatentSpec
from trainers.latents import LatentStore
from trainers.outputs import MEASURING
from trainers.pauses import Pauses
from trainers.validate import LEVELS, Validator


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_pipeline_folder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return nine_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def slow_previews(monkeypatch):
    """A preview takes 50 seconds, all else none, and every step is told."""
    now, drawn = [0.0], outputs.Outputs.preview

    def slow(self) -> None:
        now[0] += 50.0
        drawn(self)

    monkeypatch.setattr(pauses, "awake", lambda: now[0])
    monkeypatch.setattr(outputs.Outputs, "preview", slow)
    monkeypatch.setattr(recipe, "REPORT", 1)


@pytest.mark.parametrize(
    ("step", "to_come"), [(1, 4), (29, 4), (30, 4), (31, 3), (60, 3), (61, 2), (90, 2), (91, 1), (100, 1)]
)
def test_what_is_due_at_a_step_and_at_the_end_is_to_come(monkeypatch, step, to_come):
    """After 30, 60, 90 and 100 steps."""
    ticks = iter([0.0, 7.0])
    monkeypatch.setattr(pauses, "awake", lambda: next(ticks))
    paused = Pauses(30, Position(), LatentStore(LatentSpec(4, 8, 1.0), torch.device("cpu")))
    assert paused.left(step, 100) == 0  # nothing is known yet
    with paused.timed():
        pass
    assert paused.left(step, 100) == 7 * to_come
    assert Pauses(0, paused.position, paused.latents).left(step, 100) == 0


def test_what_a_pause_encodes_once_is_not_expected_of_the_next_one(monkeypatch):
    ticks, store = iter([0.0, 7.0]), SimpleNamespace(encoding_seconds=1.0)
    monkeypatch.setattr(pauses, "awake", lambda: next(ticks))
    paused = Pauses(10, Position(), store)
    with paused.timed():
        store.encoding_seconds = 5.0
    assert paused.left(10, 30) == (7 - 4) * 3


def test_the_first_previews_tell_how_long_a_pause_with_a_validation_will_take():
    clock = iter([0.0, 6.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pauses, "awake", lambda: next(clock))
        paused = Pauses(10, Position(), SimpleNamespace(encoding_seconds=0.0))
        with paused.timed(0.75):
            pass
    assert paused.position.pause == 8.0


@pytest.mark.usefixtures("slow_previews")
def test_the_time_left_has_held_out_pictures_in_it_before_any_was_measured(tmp_path, base, pictures):
    how = {"preview": {"every": 4, "sampling_steps": 3}, "data": {"validation_share": 0.3}}
    seen = run(tmp_path, base, pictures, 4, **how)
    left = [event.beside_left for event in seen if isinstance(event, events.Step)]
    drawn, measured = 4 * 3, 6 * LEVELS / 2  # four prompts; three pictures held out, and as many that are trained on
    assert left == [pytest.approx(50 * (drawn + measured) / drawn)] * 4


@pytest.mark.usefixtures("slow_previews")
def test_a_resumed_run_knows_how_long_a_preview_takes(tmp_path, base, pictures):
    how = {"preview": {"every": 4, "sampling_steps": 1}, "data": {"validation_share": 0.0}, "saving": {"every": 1}}
    run(tmp_path, base, pictures, 2, **how)
    seen = run(tmp_path, base, pictures, 5, **how)
    left = [event.beside_left for event in seen if isinstance(event, events.Step)]
    assert left == [100.0, 100.0, 50.0]  # previews after 4 and 5 steps


@pytest.mark.usefixtures("slow_previews")
def test_a_run_tells_the_time_of_the_previews_that_are_to_come(tmp_path, base, pictures):
    how = {"preview": {"every": 2, "sampling_steps": 1}, "data": {"validation_share": 0.0}}
    seen = run(tmp_path, base, pictures, 5, **how)
    left = [event.beside_left for event in seen if isinstance(event, events.Step)]
    assert left == [150.0, 150.0, 100.0, 100.0, 50.0]  # previews after 2, 4 and 5 steps


@pytest.mark.parametrize(("checkpointing", "rows"), [("none", 4), ("all", 2)])
def test_a_validation_has_the_same_loss_whatever_is_denoised_together(
    tmp_path, base, pictures, monkeypatch, checkpointing, rows
):
    found, measure = [], Validator.measure

    def measured(self, text, dtype: torch.dtype, told):
        given, losses = self.together, []
        for self.together in (given, 4, 1):
            losses.append(measure(self, text, dtype, told))
        found.append((given, losses))
        return losses[0]

    monkeypatch.setattr(Validator, "measure", measured)
    how = {"data": {"validation_share": 0.3, "batch_size": 1}, "memory": {"checkpointing": checkpointing}}
    run(tmp_path, base, pictures, 2, preview={"every": 2, "sampling_steps": 1}, **how)
    assert found
    for given, (first, *others) in found:
        assert given == rows
        for other in others:
            assert other == pytest.approx(first, rel=1e-5)


@pytest.mark.parametrize("lost", [True, False])
def test_previews_that_a_run_was_ended_in_are_drawn_when_it_goes_on(tmp_path, base, pictures, lost):
    how = {"preview": {"every": 2, "sampling_steps": 1}, "saving": {"every": 1}}
    run(tmp_path, base, pictures, 2, **how)
    there = sorted((tmp_path / "samples").glob("step_000002_*.png"))
    before = [path.read_bytes() for path in there]
    for path in there if lost else ():
        path.unlink()
    seen = run(tmp_path, base, pictures, 4, **how)
    assert [event.step for event in seen if isinstance(event, events.Sample)] == [2] * len(there) * lost + [4] * len(
        there
    )
    assert [path.read_bytes() for path in there] == before


def ending(folder: Path, word: str, name: str, begun: int):
    """Hears a run, and asks for its end in the phase of that name, when it begins for that time."""
    seen = []

    def heard(event: events.Event) -> None:
        seen.extend([event] * (isinstance(event, events.Phase) and (event.name, event.done) == (name, 0)))
        if len(seen) == begun:
            (folder / "control").mkdir(exist_ok=True)
            (folder / "control" / word).touch()

    return heard


@pytest.mark.parametrize(
    ("word", "name", "begun"), [("pause", MEASURING, 1), ("pause", MAKING, 2), ("stop", MAKING, 2)]
)
def test_a_wish_to_end_is_heard_while_previews_are_made(tmp_path, base, pictures, word, name, begun):
    how = {"preview": {"every": 2, "sampling_steps": 3}, "data": {"validation_share": 0.3}}
    ended = tmp_path / "ended"
    seen = run(ended, base, pictures, 4, heard=ending(ended, word, name, begun), **how)
    assert seen[-1] == events.Stopped(2, paused=word == "pause")
    assert newest_step(ended / "checkpoints") == 2
    assert not is_rolling(ended / "checkpoints" / "step_000002")  # it stays: a person chose it
    assert {event.step for event in seen if isinstance(event, events.Sample)} == {0}
    (ended / "control" / word).unlink()
    seen = run(ended, base, pictures, 4, **how)
    assert [event.step for event in seen if isinstance(event, events.Validation)] == [2, 4]
    run(tmp_path / "whole", base, pictures, 4, **how)
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "whole" / "samples").iterdir()}
    assert len(drawn) == 3 * 4
    assert {path.name: path.read_bytes() for path in (ended / "samples").iterdir()} == drawn


def test_a_run_that_cannot_be_saved_when_it_is_ended_in_its_previews_says_so(tmp_path, base, pictures, monkeypatch):
    def full(self, rolling: bool = False) -> None:
        raise UserError("The disk is full.")

    monkeypatch.setattr(outputs.Outputs, "save", full)
    with pytest.raises(UserError, match="The disk is full"):
        run(tmp_path, base, pictures, 4, heard=ending(tmp_path, "pause", MAKING, 2), preview={"every": 2})


def test_a_picture_that_was_asked_for_is_drawn_though_the_run_is_ended_then(tmp_path, base, pictures):
    def heard(event: events.Event) -> None:
        if isinstance(event, events.Checkpoint) and event.step == 1:
            (tmp_path / "control").mkdir(exist_ok=True)
            (tmp_path / "control" / "sample_now").write_text('{"prompt": "a cat"}', encoding="utf-8")
            (tmp_path / "control" / "pause").touch()

    how = {"preview": {"every": 2, "sampling_steps": 1}, "saving": {"every": 1}}
    seen = run(tmp_path, base, pictures, 4, heard=heard, **how)
    assert seen[-1] == events.Stopped(2, paused=True)
    assert [event.step for event in seen if isinstance(event, events.Sample) and event.asked] == [2]


def test_a_run_that_is_ended_in_its_first_previews_begins_again(tmp_path, base, pictures):
    how = {"preview": {"every": 2, "sampling_steps": 1}}
    seen = run(tmp_path, base, pictures, 2, heard=ending(tmp_path, "pause", MAKING, 1), **how)
    assert seen[-1] == events.Stopped(0, paused=True)
    (tmp_path / "control" / "pause").unlink()
    assert isinstance(run(tmp_path, base, pictures, 2, **how)[-1], events.Finished)
    assert len([*(tmp_path / "samples").glob("step_000000_*.png")]) == 4


def test_previews_that_were_cut_short_are_drawn_again(tmp_path, base, pictures):
    how = {"preview": {"every": 2, "sampling_steps": 1}, "saving": {"every": 1}}
    run(tmp_path, base, pictures, 2, **how)
    there = sorted((tmp_path / "samples").glob("step_000002_*.png"))
    there[-1].unlink()
    seen = run(tmp_path, base, pictures, 3, **how)
    assert [event.step for event in seen if isinstance(event, events.Sample)] == [2] * len(there) + [3] * len(there)
    assert there[-1].exists()
