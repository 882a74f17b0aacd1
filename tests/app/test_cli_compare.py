"""`darkroom compare` plans the pictures, has them drawn, and prints where the sheet is."""

from pathlib import Path

import pytest

from app import comparisons, engine
from app.runs import Run
from trainers import config_io
from trainers.events import Phase


@pytest.fixture
def trained(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    for step in (10, 20):
        (run.folder / "checkpoints" / f"step_{step:06d}").mkdir(parents=True)
    config_io.save(config_io.merge(config_io.load(run.config), {"data": {"trigger": "zib"}}), run.config)

    def drawn(run: Path, folder: Path, emit) -> str:
        emit(Phase("Drawing", 1, 4))
        return str(folder / "sheet.png")

    monkeypatch.setattr(engine, "compare", drawn)
    return run


def test_it_prints_the_sheet_of_what_was_wished(darkroom, trained):
    wish = ("--checkpoint", 20, "--prompt", "a dog", "--strength", 0.5, "--strength", 1, "--seed", 3)
    said = darkroom("compare", trained.folder, *wish)
    made = comparisons.list_comparisons(trained)[0]
    assert (said.code, said.out.strip()) == (0, str(made.folder / "sheet.png"))
    assert (made.steps, made.prompts, made.strengths, made.seeds) == ((20,), ("a dog",), (0.5, 1.0), (3,))
    assert "3 pictures, 3 of them to be drawn." in said.err and "Drawing 1 of 4" in said.err


def test_without_options_it_compares_all_of_a_few(darkroom, trained):
    assert darkroom("compare", trained.folder).code == 0
    assert comparisons.list_comparisons(trained)[0].steps == (10, 20)


def test_a_checkpoint_that_is_not_there_is_a_sentence(darkroom, trained, run):
    said = darkroom("compare", trained.folder, "--checkpoint", 15)
    assert said.code == 1 and "has no checkpoint of step 15. Its checkpoints: 10, 20." in said.err
    assert not comparisons.list_comparisons(trained)


def test_a_run_without_checkpoints_is_a_sentence(darkroom, run):
    said = darkroom("compare", run.folder)
    assert said.code == 1 and "has no checkpoint yet" in said.err
