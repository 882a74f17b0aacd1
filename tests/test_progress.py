"""What takes long is told while it lasts: previews by their sampling steps, validations by their pictures."""

import pytest

from tests.nine_pictures import nine_pictures
from tests.test_train import run
from tests.tiny import tiny_pipeline_folder
from trainers import progress
from trainers.events import MAKING, Phase, Sample, Step, Validation
from trainers.outputs import MEASURING
from trainers.progress import throttled


def test_progress_is_told_at_its_ends_and_not_too_often_between(monkeypatch):
    now, heard = [0.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    tell = throttled(heard.append, every=1.0)
    for done in range(10):
        tell("Drawing", done, 10)
        now[0] += 0.3
    tell("Drawing", 10, 10)
    tell("Measuring", 0, 2)
    assert [(event.name, event.done) for event in heard] == [
        *(("Drawing", done) for done in (0, 4, 8, 10)),
        ("Measuring", 0),
    ]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_run_tells_how_far_previews_and_validations_are(tmp_path, monkeypatch, batch_size):
    (tmp_path / "pictures").mkdir()
    base, pictures = tiny_pipeline_folder(tmp_path / "base"), nine_pictures(tmp_path / "pictures")
    monkeypatch.setattr(progress.time, "monotonic", iter(range(10**9)).__next__)  # nothing is too soon
    how = {"data": {"validation_share": 0.3, "batch_size": batch_size}, "memory": {"checkpointing": "all"}}
    seen = run(tmp_path / "run", base, pictures, 2, preview={"every": 2, "sampling_steps": 3}, **how)
    drawn = [(e.done, e.total) for e in seen if isinstance(e, Phase) and e.name == MAKING]
    once = [(done, 12) for done in range(0, 13, batch_size)]  # four prompts; with checkpointing as many as a batch has
    assert drawn == 2 * once  # the base's, and after the last step
    measured = [(e.done, e.total) for e in seen if isinstance(e, Phase) and e.name == MEASURING]
    assert measured == [(done, 6) for done in range(7)]  # three held out, and as many that were trained on
    kinds = [type(e) for e in seen]
    last = len(kinds) - 1 - kinds[::-1].index(Step)
    names = [e.name if isinstance(e, Phase) else type(e).__name__ for e in seen[last:]]
    assert (
        names.index(MEASURING) < names.index(Validation.__name__) < names.index(MAKING) < names.index(Sample.__name__)
    )
