"""Where a run's validation loss turned, from what it measured at its checkpoints."""

import pytest

from app.drift import Drift, find_drift

FALLS = [(100, 0.4), (200, 0.3), (300, 0.2)]
TURNS = [(100, 0.4), (200, 0.2), (300, 0.25), (400, 0.3)]


def test_a_loss_that_rises_again_names_the_checkpoint_where_it_was_lowest():
    assert find_drift(TURNS, [100, 200, 300, 400]) == Drift(200, 0.2, 400, 0.3)


@pytest.mark.parametrize(
    ("validation", "checkpoints"),
    [
        (FALLS, [100, 200, 300]),
        (TURNS, [200]),
        (TURNS, []),
        ([], [100, 200]),
        ([(100, 0.2), (200, 0.2)], [100, 200]),
        ([(100, 0.2), (200, 0.2019)], [100, 200]),  # less than a hundredth
    ],
)
def test_nothing_is_said_where_the_numbers_say_nothing(validation, checkpoints):
    assert find_drift(validation, checkpoints) is None


def test_only_checkpoints_count_since_nothing_else_can_be_chosen():
    assert find_drift(TURNS, [100, 300, 400]) == Drift(300, 0.25, 400, 0.3)
    assert find_drift(TURNS, [100, 300]) is None
