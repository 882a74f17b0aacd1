"""A comparison's pictures are those of `darkroom sample`, and each is drawn once."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny import tiny_pipeline_folder
from trainers import compare as comparing
from trainers import comparison, config_io, events
from trainers.compare import compare
from trainers.comparison import BASE, Comparison, cells_of
from trainers.errors import UserError
from trainers.export_run import export_run
from trainers.sample import sample
from trainers.train import Folders, train

STEPS, PROMPTS, STRENGTHS, SEEDS = (2, 4), ("zib", "a red zib, of a cat"), (0.6, 1.0), (7,)


@pytest.fixture(scope="module", params=["lora", "dora with new tokens"])
def run(request, tmp_path_factory) -> Path:
    """A run of four steps with a checkpoint every two, that averages its weights."""
    folder = tmp_path_factory.mktemp("run")
    pictures = folder / "pictures"
    pictures.mkdir()
    for i in range(4):
        Image.new("RGB", (32, 32), (i * 45, 200, 90)).save(pictures / f"{i}.png")
        (pictures / f"{i}.txt").write_text("zib, red", encoding="utf-8")
    adapter = {"rank": 2, "alpha": 1.0, "text_encoder": True}
    if request.param != "lora":
        adapter |= {"type": "dora", "text_encoder": False, "new_tokens": 2}
    config = config_io.parse(
        {
            "model": {"base": str(tiny_pipeline_folder(folder / "base"))},
            "adapter": adapter,
            "data": {"folders": [str(pictures)], "batch_size": 2, "trigger": "zib", "kind": "object"},
            "optimizer": {"ema": True, "rate": 5e-2},
            "schedule": {"steps": 4, "warmup": 0},
            "preview": {"every": 0, "sampling_steps": 2},
            "saving": {"name": "zib-lora", "every": 2, "dtype": "fp32"},
            "memory": {"device": "cpu", "precision": "fp32"},
        }
    )
    config_io.save(config, folder / "config.toml")
    train(config, Folders(folder, folder / "cache"), lambda event: None)
    return folder


@pytest.fixture
def planned(run, tmp_path) -> Comparison:
    config = config_io.load(run / "config.toml")
    made = Comparison(tmp_path, STEPS, PROMPTS, STRENGTHS, SEEDS, cells_of(config, STEPS, PROMPTS, STRENGTHS, SEEDS))
    comparison.save(made)
    return made


def test_every_cell_is_what_sample_draws(run, planned, tmp_path):
    assert compare(run, planned.folder, lambda event: None) == len(planned.cells) == 16
    assert not planned.missing()
    config = config_io.load(run / "config.toml")
    files = {}
    for step in STEPS:
        files[step] = Path(export_run(run, str(step), "kohya", tmp_path / f"of {step}")["adapter"])
    for cell in planned.cells:
        drawn = Image.open(planned.folder / cell.file)
        ours = np.asarray(drawn, int)
        wanted = sample(config, files.get(cell.step), [cell.prompt], cell.seed, cell.strength)[0][0]
        assert np.abs(ours - np.asarray(wanted, int)).max() <= 1, cell  # rounding at the last digit
        if cell.step == BASE:  # the adapter at strength 0 is the base
            wanted = sample(config, files[4], [cell.prompt], cell.seed, 0.0)[0][0]
            assert np.abs(ours - np.asarray(wanted, int)).max() <= 1, cell


def test_checkpoints_and_strengths_differ(run, planned):
    compare(run, planned.folder, lambda event: None)
    seen = {}
    for cell in planned.cells:
        if cell.number == 0 and not cell.plain:
            seen[cell.step, cell.strength] = (planned.folder / cell.file).read_bytes()
    assert len(seen) == len(set(seen.values())) == 5


def test_drawn_cells_are_not_drawn_again(run, planned, monkeypatch):
    compare(run, planned.folder, lambda event: None)
    lost = [planned.cells[0], planned.cells[-1]]
    for cell in lost:
        (planned.folder / cell.file).unlink()
    drawn = []
    monkeypatch.setattr(comparing.Drawing, "__call__", lambda self, cell: drawn.append(cell) or _png())
    said = []
    assert compare(run, planned.folder, said.append) == 2
    assert drawn == lost
    phases = [(e.done, e.total) for e in said if isinstance(e, events.Phase) and e.total]
    assert phases == [(14, 16), (15, 16), (16, 16)]
    monkeypatch.setattr(comparing, "Drawing", lambda *_: pytest.fail("the base was loaded for nothing"))
    assert compare(run, planned.folder, said.append) == 0


def test_a_checkpoint_that_was_removed_is_named(run, planned):
    config = config_io.load(run / "config.toml")
    comparison.save(
        Comparison(planned.folder, (3,), ("zib",), (1.0,), (7,), cells_of(config, (3,), ("zib",), (1,), (7,)))
    )
    with pytest.raises(UserError, match="checkpoint of step 3 is no longer there"):
        compare(run, planned.folder, lambda event: None)


def _png() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (2, 2)).save(data, "PNG")
    return data.getvalue()
