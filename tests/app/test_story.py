"""A run's story is read once and then only what is new; nothing of it is lost or told twice."""

import json

import pytest

from app.story import last_lines, read_story
from trainers import events
from trainers.events import Adjusted, EventLog, Phase, Started, Step, Stopped, Warned


@pytest.fixture
def log(tmp_path) -> EventLog:
    return EventLog(tmp_path / "events.jsonl")


def write(log: EventLog, *moments: tuple[float, events.Event]) -> None:
    """Events with the times at which they came."""
    with log.path.open("a", encoding="utf-8") as file:
        for moment, event in moments:
            file.write(json.dumps({"time": moment, "type": event.type, **vars(event)}) + "\n")


def test_nothing_new_gives_the_same_story(log):
    log(Started(100, 0, "cpu", 3, "cat"))
    first = read_story(log.path)
    assert read_story(log.path) is first
    log(Step(10, 100, 0.5, 1e-4, 1.0, 0.1))
    second = read_story(log.path)
    assert second.state.step == 10 and second.state == events.fold(events.read(log.path))
    assert first.state.step == 0 and first.state.losses == []  # who holds the old one is not disturbed


def test_only_what_is_new_is_parsed(log, monkeypatch):
    log(Started(100, 0, "cpu", 3, "cat"))
    read_story(log.path)
    read = []
    original = events.read_from
    monkeypatch.setattr(events, "read_from", lambda path, offset: read.append(offset) or original(path, offset))
    begin = log.path.stat().st_size
    log(Step(10, 100, 0.5, 1e-4, 1.0, 0.1))
    read_story(log.path)
    assert read == [begin]


def test_a_file_that_was_replaced_is_read_anew(log, tmp_path):
    for step in (10, 20):
        log(Step(step, 100, 0.5, 1e-4, 1.0, 0.1))
    assert read_story(log.path).state.step == 20
    other = EventLog(tmp_path / "other.jsonl")
    other(Step(5, 100, 0.5, 1e-4, 1.0, 0.1))
    other.path.replace(log.path)
    assert read_story(log.path).state.losses == [(5, 0.5)]
    log.path.unlink()
    assert read_story(log.path).state.status == "new"


def test_pauses_and_crashes_do_not_count_as_time_spent(log):
    begin, started = Phase("Reading the pictures"), Started(100, 0, "cpu", 3, "cat")
    write(log, (100, begin), (110, started), (130, Stopped(10)))
    write(log, (1000, begin), (1005, started))
    assert read_story(log.path).seconds == 35
    write(log, (1010, Step(20, 100, 0.5, 1e-4, 1.0, 0.1)))
    assert read_story(log.path).seconds == 40
    write(log, (9000, begin), (9001, started))  # the sitting before ended without a word
    assert read_story(log.path).seconds == 41


def test_losses_after_the_checkpoint_that_a_run_goes_on_from_are_forgotten(log):
    steps = [Step(step, 100, 0.5, 1e-4, 1.0, 0.1) for step in (10, 20, 30)]
    state = events.fold([Started(100, 0, "cpu", 3, "cat"), *steps, Started(100, 20, "cuda", 3, "cat")])
    assert [step for step, _ in state.losses] == [10, 20] and state.device == "cuda"


def test_changes_of_the_engine_and_warnings_are_kept_apart():
    state = events.fold([Adjusted("SDPA", "no xformers"), Warned("Small pictures.", "Use larger ones.")])
    assert state.adjustments == [("SDPA", "no xformers")] and state.warnings == [
        ("Small pictures.", "Use larger ones.")
    ]
    assert state.notes == ["SDPA (no xformers)", "Small pictures. Use larger ones."]


def test_the_end_of_a_log_is_whole_lines(tmp_path):
    log = tmp_path / "log.txt"
    assert last_lines(log) == ""
    log.write_bytes(b"one\n\xff two\nthree\n")
    assert last_lines(log, 2) == "\ufffd two\nthree"
    log.write_text("".join(f"line {i:06d}\n" for i in range(50_000)))
    lines = last_lines(log).splitlines()
    assert len(lines) == 200 and lines[-1] == "line 049999" and all(len(line) == 11 for line in lines)
