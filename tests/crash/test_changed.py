"""A run that goes on with other settings or pictures than its checkpoint was saved with says so, or why it cannot."""

import pytest

from tests.crash.test_recovery import all_of
from tests.test_train import run
from trainers import events
from trainers.errors import UserError


@pytest.fixture
def begun(tmp_path, base, pictures):
    run(tmp_path, base, pictures, 5, stop_at=2)
    (tmp_path / "control" / "stop").unlink()
    return tmp_path


def test_settings_that_changed_are_named_once(begun, base, pictures):
    changes = {"loss": {"type": "huber"}, "data": {"batch_size": 1}}
    (told,) = all_of(events.Adjusted, run(begun, base, pictures, 5, **changes))
    assert told.what == "Changed since its last checkpoint: [data], [loss]"
    (begun / "output" / "tiny.safetensors").unlink()
    assert all_of(events.Adjusted, run(begun, base, pictures, 5, **changes)) == []


def test_pictures_and_captions_that_changed_are_named(begun, base, pictures):
    (pictures / "0.txt").write_text("another caption", "utf-8")
    (told,) = all_of(events.Adjusted, run(begun, base, pictures, 5))
    assert told.what == "Changed since its last checkpoint: the pictures or their captions"


def test_an_unchanged_run_says_nothing(begun, base, pictures):
    assert all_of(events.Adjusted, run(begun, base, pictures, 5)) == []


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (
            {"type": "prodigy", "rate": 1.0},
            "The run was begun with optimizer.type = adamw, and its settings name prodigy",
        ),
        ({"type": "lion"}, "and its settings name lion"),
        ({"lora_plus": 16.0}, "The run was begun with other learning rates for parts of the adapter"),
    ],
)
def test_another_optimizer_is_a_sentence(begun, base, pictures, optimizer, words):
    with pytest.raises(UserError, match=words):
        run(begun, base, pictures, 5, optimizer=optimizer)
