"""Runs on a quantised base: they learn nearly the same, resume to the bit, and leave a file that every program loads."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.test_train import resumes_to_the_same_weights, run
from tests.tiny_families import tiny_folder
from trainers import events
from trainers.adapters.adapter_file import read_adapter
from trainers.export.verify import verdicts
from trainers.memory.packing import FORMS

PLAIN = {
    "adapter": {"text_encoder": False, "dropout": 0.0, "rank": 4, "alpha": 4.0},
    "data": {"caption_dropout": 0.0, "flip": False, "resolution": 16, "validation_share": 0.2},
    "optimizer": {"ema": False, "rate": 3e-3},
    "loss": {"preservation": 0.0},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_folder("sdxl", tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(6):
        Image.new("RGB", (16, 16), (i * 40, 200 - i * 30, 90)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"zib, tag{i}", encoding="utf-8")
    return folder


def trained(folder: Path, base: Path, pictures: Path, form: str) -> tuple[list[events.Event], Path]:
    preview = {"every": 15, "sampling_steps": 1, "prompts": ["zib"]}
    seen = run(folder, base, pictures, 30, **PLAIN, preview=preview, memory={"quantize": form})
    return seen, folder / "output" / "tiny.safetensors"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, base, pictures):
    return {form: trained(tmp_path_factory.mktemp(form), base, pictures, form) for form in ("none", *FORMS)}


def update(file: Path) -> torch.Tensor:
    """All of the adapter's delta-W, one after the other."""
    return torch.cat([layer.delta().flatten() for _, layer in sorted(read_adapter(file).layers.items())])


@pytest.mark.parametrize(("form", "least"), [("int8", 0.99), ("nf4", 0.9)])
def test_the_adapter_points_where_that_of_the_plain_base_points(runs, form, least):
    plain, packed = update(runs["none"][1]), update(runs[form][1])
    print(form, torch.cosine_similarity(plain, packed, dim=0))
    assert torch.cosine_similarity(plain, packed, dim=0) > least


@pytest.mark.parametrize("form", FORMS)
def test_the_loss_falls_and_pictures_are_drawn(runs, form):
    seen, file = runs[form]
    losses = [event.train_loss for event in seen if isinstance(event, events.Validation)]
    print(form, losses, [e.train_loss for e in runs["none"][0] if isinstance(e, events.Validation)])
    assert losses[-1] < losses[0]
    assert {event.step for event in seen if isinstance(event, events.Sample)} == {0, 15, 30}
    adjusted = [event for event in seen if isinstance(event, events.Adjusted)]
    assert any(f"memory.quantize is {form}" in event.why for event in adjusted)


@pytest.mark.parametrize("form", FORMS)
def test_the_file_is_that_of_any_run(runs, form):
    plain, packed = (load_file(runs[name][1]) for name in ("none", form))
    assert {key: t.shape for key, t in plain.items()} == {key: t.shape for key, t in packed.items()}
    assert [verdict.loads for verdict in verdicts(packed, {})] == [verdict.loads for verdict in verdicts(plain, {})]


@pytest.mark.parametrize("form", FORMS)
def test_a_run_on_a_quantised_base_resumes_to_the_same_weights(tmp_path, base, pictures, form):
    seen = resumes_to_the_same_weights(tmp_path, base, pictures, **PLAIN, memory={"quantize": form})
    assert isinstance(seen[-1], events.Finished)
