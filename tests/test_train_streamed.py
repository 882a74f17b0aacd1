"""Runs whose frozen weights come block by block: the very weights of any other run, also after a stop."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.nine_pictures import nine_pictures
from tests.test_train import resumes_to_the_same_weights, run
from tests.tiny_families import tiny_folder
from trainers import events
from trainers.export.verify import verdicts

RUN = {
    "adapter": {"text_encoder": False, "rank": 4, "alpha": 4.0},
    "data": {"flip": False, "resolution": 16, "validation_share": 0.2},
    "optimizer": {"ema": False, "rate": 3e-2, "accumulation": 2},
    "loss": {"preservation": 0.0},
    "preview": {"every": 15, "sampling_steps": 1, "prompts": ["zib"]},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_folder("sdxl", tmp_path_factory.mktemp("base"), true_width=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return nine_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.mark.slow
def test_a_streamed_run_learns_draws_and_saves_what_any_run_does(tmp_path, base, pictures):
    saved = []
    for how in ("none", "all"):
        # bf16: the file is fp32, so that weights are converted and lie alike in memory in both runs
        seen = run(tmp_path / how, base, pictures, 30, **RUN, memory={"stream": how, "precision": "bf16"})
        saved.append(load_file(tmp_path / how / "output" / "tiny.safetensors"))
    assert saved[0].keys() == saved[1].keys() and all(torch.equal(saved[0][key], saved[1][key]) for key in saved[0])
    assert {event.step for event in seen if isinstance(event, events.Sample)} == {0, 15, 30}
    assert any("wait in the base's file" in event.what for event in seen if isinstance(event, events.Adjusted))
    first, last = [event.train_loss for event in seen if isinstance(event, events.Validation)]
    assert last < first
    assert any(verdict.loads for verdict in verdicts(saved[1], {}))


@pytest.mark.slow
def test_a_streamed_run_resumes_to_the_same_weights(tmp_path, base, pictures):
    seen = resumes_to_the_same_weights(tmp_path, base, pictures, **RUN, memory={"stream": "all"})
    assert isinstance(seen[-1], events.Finished)
