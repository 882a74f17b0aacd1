"""Whole runs on a GPU: they learn, draw, save, stop and go on, and come back from memory that runs out."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.nine_pictures import nine_pictures
from tests.test_train import resumes_to_the_same_weights, run
from tests.tiny import tiny_pipeline_folder
from trainers import events
from trainers.config import ModelConfig
from trainers.data.types import Bucket, Crop, Example
from trainers.export.verify import verdicts
from trainers.families.registry import find_family
from trainers.moments import Ready, Wanted, moments
from trainers.trial import Trial

pytestmark = pytest.mark.gpu
GPU = {"device": "cuda", "exact": "all"}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_pipeline_folder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return nine_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_learns_draws_and_leaves_a_file_that_programs_load(tmp_path, base, pictures, precision):
    preview = {"every": 15, "sampling_steps": 2, "prompts": ["zib"]}
    memory = {**GPU, "precision": precision}
    data = {"validation_share": 0.2}
    seen = run(tmp_path, base, pictures, 30, memory=memory, preview=preview, data=data)
    assert isinstance(seen[-1], events.Finished)
    assert next(e for e in seen if isinstance(e, events.Started)).device == "cuda"
    assert {e.step for e in seen if isinstance(e, events.Sample)} == {0, 15, 30}
    assert not [e for e in seen if isinstance(e, events.Warned) and "could not" in e.message]
    first, *_, last = [e.train_loss for e in seen if isinstance(e, events.Validation)]
    assert last < first
    assert any(verdict.loads for verdict in verdicts(load_file(tmp_path / "output" / "tiny.safetensors"), {}))


@pytest.mark.parametrize("how", ["as chosen", "eager", "math", "streamed", "compiled"])
def test_a_run_that_was_paused_ends_in_the_same_weights(tmp_path, base, pictures, how, monkeypatch):
    monkeypatch.setattr(Trial, "_seconds", lambda _, way: 0.1 if way else 1.0)  # whichever card
    memory = {
        "as chosen": {},
        "eager": {"graphs": "none"},
        "math": {"attention": "math"},
        "streamed": {"stream": "all"},
        "compiled": {"compile": "all"},
    }[how]
    adapter = {"dropout": 0.0} if how in ("as chosen", "compiled") else {}  # else neither is used
    seen = resumes_to_the_same_weights(tmp_path, base, pictures, memory={**GPU, **memory}, adapter=adapter)
    told = [e.what for e in seen if isinstance(e, events.Adjusted) and e.what.startswith("A step runs")]
    assert bool(told) == (how in ("as chosen", "compiled"))


def test_a_run_with_8_bit_optimizer_states_that_was_paused_ends_in_the_same_weights(tmp_path, base, pictures):
    pytest.importorskip("bitsandbytes")
    adapter, optimizer = {"rank": 256}, {"type": "adamw8bit"}  # less than 4096 numbers keep states of 32 bits
    seen = resumes_to_the_same_weights(tmp_path, base, pictures, memory=GPU, adapter=adapter, optimizer=optimizer)
    assert not [e for e in seen if isinstance(e, events.Adjusted) and "AdamW8bit" in e.what]  # it is not replaced


@pytest.mark.parametrize("graphs", ["none", "auto"])
def test_when_memory_runs_out_the_run_goes_on_with_fewer_pictures_at_once(tmp_path, pictures, graphs):
    """Real allocations fail: from the first step on, torch may take no more of the card than half of what it did."""
    settings = {
        "adapter": {"text_encoder": False},
        "loss": {"preservation": 0.0},
        "data": {"batch_size": 8, "resolution": 256},
        "memory": {**GPU, "checkpointing": "none", "graphs": graphs},
    }
    torch.cuda.reset_peak_memory_stats()
    run(tmp_path / "all", "embedded", pictures, 2, **settings)
    most = torch.cuda.max_memory_reserved()

    def tighten(event: events.Event) -> None:
        if isinstance(event, events.Phase) and event.name == "Training":
            torch.cuda.empty_cache()
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(0.5 * most / total)

    try:
        seen = run(tmp_path / "half", "embedded", pictures, 2, heard=tighten, **settings)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert isinstance(seen[-1], events.Finished)
    assert any("parts" in e.what and e.why == "The memory ran out." for e in seen if isinstance(e, events.Adjusted))


def test_pictures_that_are_too_many_for_the_memory_are_encoded_in_halves(tmp_path, base):
    """The VAE is refused more than two pictures at once, as a full card would."""
    kind = find_family(ModelConfig(base=str(base)))
    components = kind.load(ModelConfig(base=str(base)), torch.float32)
    pixels = torch.rand(8, 3, 16, 16, device="cuda") * 2 - 1
    components.vae.to("cuda")
    expected = kind.encode_image(components.vae, pixels)[0]
    asked = []

    class Tight:
        def encode_image(self, vae, some):
            asked.append(len(some))
            if len(some) > 2:
                torch.empty(1 << 50, device="cuda")  # really refused
            return kind.encode_image(vae, some)

    crop = Crop(Bucket(16, 16), (16, 16), 0, 0, 0.0)
    example = Example(tmp_path / "1.png", "", (16, 16), "0")
    ready = [Ready(Wanted(i, example, crop, False, str(i)), None, one.cpu()) for i, one in enumerate(pixels)]
    found = moments(ready, Tight(), components, torch.device("cuda"))
    assert asked == [8, 4, 2, 2, 4, 2, 2]
    assert torch.allclose(torch.stack([one["mean"] for one in found]), expected.float().cpu(), atol=1e-3)
