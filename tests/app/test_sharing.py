"""Whether two runs compute on the same device: what the engine reported, else what the settings wish."""

import pytest

from app import projects, runs
from app.sharing import share_device
from trainers import config_io
from trainers.events import EventLog, Started


@pytest.fixture
def make(place, pictures):
    """Make a run that wishes a device and reported one, or none yet."""
    project = projects.create(place, "Cats", pictures, "object")

    def call(wish: str, reported: str = "") -> runs.Run:
        run = runs.create(project, config_io.parse({"memory": {"device": wish}}))
        if reported:
            EventLog(run.events)(Started(10, 0, reported, 3, "cat"))
        return run

    return call


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("auto", "cuda"), ("cuda", "cuda:0"), True),
        (("auto", "cuda"), ("cpu", "cpu"), False),
        (("auto", "cuda"), ("cpu", ""), False),
        (("auto", "cpu"), ("auto", ""), True),
        (("cpu", ""), ("cuda", ""), False),
    ],
)
def test_a_device_is_shared(make, one, other, same):
    left, right = make(*one), make(*other)
    assert share_device(left, right) is share_device(right, left) is same
