"""The event log survives crashes, and the state of a run follows from it alone."""

import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest

from trainers import events
from trainers.events import (
    EVENTS,
    Adjusted,
    EventLog,
    Failed,
    Finished,
    Phase,
    RunState,
    Sample,
    Started,
    Step,
    Stopped,
    Validation,
    Warned,
)

STORY = [
    Phase("Caching", 12, 40),
    Started(100, 0, "cpu", 12, "cat"),
    Step(10, 100, 0.5, 1e-4, 0.2, 1.0),
    Adjusted("Attention runs on SDPA", "xformers is missing"),
    Stopped(10),
    Started(100, 10, "cpu", 12, "cat"),
    Step(100, 100, 0.25, 1e-4, 0.1, 1.5),
    Warned("‘Ünïcode’ 漢字\n🎉"),
    Finished(100, "output/cat.safetensors", 30.0),
]


@pytest.fixture
def log(tmp_path) -> EventLog:
    return EventLog(tmp_path / "events.jsonl")


def an_event(name: str) -> events.Event:
    samples = {int: 3, float: 0.5, str: "x", bool: True, int | None: 4}
    return EVENTS[name](**{field.name: samples[field.type] for field in dataclasses.fields(EVENTS[name])})


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_survives_the_log(log, name):
    log(an_event(name))
    assert list(events.read(log.path)) == [an_event(name)]


def test_lines_are_numbered_also_after_a_restart(log):
    log(STORY[0])
    again = EventLog(log.path)
    again(STORY[1])
    lines = [json.loads(line) for line in log.path.read_text("utf-8").splitlines()]
    assert [line["seq"] for line in lines] == [0, 1]
    assert [line["type"] for line in lines] == ["phase", "started"]


def test_half_written_line_waits_for_its_end(log):
    for event in STORY[:2]:
        log(event)
    whole = log.path.read_bytes()
    cut = whole[:-5]
    log.path.write_bytes(cut)
    first, offset = events.read_from(log.path)
    assert [event for _, event in first] == STORY[:1]
    log.path.write_bytes(whole)
    rest, offset = events.read_from(log.path, offset)
    assert [event for _, event in rest] == STORY[1:2] and offset == len(whole)


def test_line_cut_off_by_a_crash_costs_only_itself(log):
    for event in STORY[:2]:
        log(event)
    log.path.write_bytes(log.path.read_bytes()[:-5])
    EventLog(log.path)(STORY[2])
    assert list(events.read(log.path)) == [STORY[0], STORY[2]]


def test_events_and_fields_of_a_newer_version_are_skipped(log):
    log.path.write_text('{"type": "singing"}\n{"type": "stopped", "step": 4, "mood": "good"}\n[]\n', "utf-8")
    assert list(events.read(log.path)) == [Stopped(4)]


def test_log_that_is_not_there_is_empty(tmp_path):
    assert events.read_from(tmp_path / "none.jsonl") == ([], 0)


def test_state_is_the_same_read_at_once_or_bit_by_bit():
    state = RunState()
    for event in STORY:
        state = events.fold([event], state)
    assert state == events.fold(STORY)


def test_state_tells_the_story():
    state = events.fold(STORY)
    assert (state.status, state.step, state.steps, state.loss) == ("finished", 100, 100, 0.25)
    assert state.losses == [(10, 0.5), (100, 0.25)]
    assert state.adapter == "output/cat.safetensors"
    assert state.notes == ["Attention runs on SDPA (xformers is missing)", "‘Ünïcode’ 漢字\n🎉"]


def test_memory_of_the_card_is_that_of_the_last_step():
    state = events.fold([Step(1, 9, 0.5, 1e-4, 0.2, 3.0, 5.0, 24.0), Step(2, 9, 0.5, 1e-4, 0.2, 3.5, 4.5, 24.0)])
    assert (state.memory_gb, state.used_gb, state.total_gb) == (3.5, 4.5, 24.0)


def test_pause_is_told_from_a_stop():
    assert events.fold([Stopped(4)]).status == "stopped"
    assert events.fold([Stopped(4, paused=True)]).status == "paused"


def test_what_is_done_again_after_a_crash_counts_once():
    story = [
        Started(100, 0, "cpu", 12, "cat"),
        Sample(0, "a cat", "samples/0.png", 42),
        Step(10, 100, 0.5, 1e-4, 0.2, 1.0),
        Validation(10, 0.4, 0.3),
        Step(20, 100, 0.4, 1e-4, 0.2, 1.0),
        Validation(20, 0.3, 0.2),
        Sample(20, "a cat", "samples/20.png", 42),
        Started(100, 10, "cpu", 12, "cat"),
        Validation(10, 0.4, 0.3),
        Step(20, 100, 0.4, 1e-4, 0.2, 1.0),
        Validation(20, 0.3, 0.2),
        Sample(20, "a dog", "samples/20.png", 42),
    ]
    state = events.fold(story)
    assert state.losses == [(10, 0.5), (20, 0.4)] and state.validation == [(10, 0.4), (20, 0.3)]
    assert [(one.step, one.prompt) for one in state.samples] == [(0, "a cat"), (20, "a dog")]


def test_failure_is_forgotten_when_the_run_goes_on():
    state = events.fold([Failed("The disk is full.", "Make room."), STORY[5]])
    assert (state.status, state.message, state.hint) == ("running", "", "")


def test_a_line_that_a_full_disk_cuts_off_does_not_swallow_the_next_one(log, monkeypatch):
    log(Phase("Caching"))
    real = Path.open

    def full(path, *given, **named):
        with real(path, "ab") as file:
            file.write(b'{"seq": 1, "type": "st')
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as filling:
        filling.setattr(Path, "open", full)
        with pytest.raises(OSError, match="No space"):
            log(Step(10, 100, 0.5, 1e-4, 0.2, 1.0))
    log(Failed("The disk is full."))
    log(Phase("Again"))
    assert list(events.read(log.path)) == [Phase("Caching"), Failed("The disk is full."), Phase("Again")]


def test_what_matters_has_reached_the_disk_when_it_is_said_and_a_step_may_wait(log, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(os.fstat(handle).st_size))
    sizes = []
    for event in STORY:
        log(event)
        sizes.append(log.path.stat().st_size)
    waits = [isinstance(event, Step | Phase) for event in STORY]
    assert flushed == [size for size, may_wait in zip(sizes, waits, strict=True) if not may_wait]
