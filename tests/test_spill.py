"""Steps that become slow on a full card are told as what they are, once."""

from trainers import events
from trainers.spill import Spill


def test_a_full_card_on_which_steps_become_slow_is_told_once():
    spill = Spill()
    assert spill.look(0.5, 11.9, 12.0) is None and spill.look(1.4, 11.9, 12.0) is None
    told = spill.look(2.0, 11.9, 12.0)
    assert told.message == (
        "A step takes 2.0 s now, 4 times as long as before, and the card's memory is full (11.9 of 12.0 GB): it spills "
        "into the computer's memory."
    )
    assert "memory.budget = 10.9" in told.hint and "less-memory" in told.hint
    assert events.fold([told]).spilled and events.fold([told]).warnings == [(told.message, told.hint)]
    assert not events.fold([told, events.Started(9, 4, "cuda", 9, "cat")]).spilled  # until it begins otherwise
    assert spill.look(9.0, 11.9, 12.0) is None


def test_steps_in_which_passes_were_recorded_are_not_taken_for_slow_ones():
    spill = Spill()
    assert spill.look(0.9, 7.8, 8.0, recorded=2) is None and spill.look(0.1, 7.8, 8.0, recorded=2) is None
    assert spill.look(0.9, 7.8, 8.0, recorded=5) is None
    assert spill.look(0.9, 7.8, 8.0, recorded=5).message.startswith("A step takes 0.9 s now, 9 times")


def test_a_card_with_room_and_a_computer_without_a_card_are_not_warned_of():
    for used, total in ((8.0, 12.0), (0.0, 0.0)):
        spill = Spill()
        assert spill.look(0.5, used, total) is None and spill.look(5.0, used, total) is None
