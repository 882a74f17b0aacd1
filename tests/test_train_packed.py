"""Runs on a quantised base: they learn nearly the same, resume to the bit, and leave a file like any other."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.nine_pictures import nine_pictures
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
    return tiny_folder("sdxl", tmp_path_factory.mktemp("base"), true_width=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return nine_pictures(tmp_path_factory.mktemp("pictures"))


SLOW = [pytest.param("int8", marks=pytest.mark.slow), "nf4"]


def trained(folder: Path, base: Path, pictures: Path, form: str, rate: float) -> tuple[list[events.Event], Path]:
    preview = {"every": 15, "sampling_steps": 1, "prompts": ["zib"]}
    settings = {**PLAIN, "optimizer": {**PLAIN["optimizer"], "rate": rate}, "memory": {"quantize": form}}
    return run(folder, base, pictures, 30, **settings, preview=preview), folder / "output" / "tiny.safetensors"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, base, pictures):
    return {form: trained(tmp_path_factory.mktemp(form), base, pictures, form, 3e-4) for form in ("none", *FORMS)}


def update(file: Path) -> torch.Tensor:
    """All of the adapter's delta-W, one after the other."""
    return torch.cat([layer.delta().flatten() for _, layer in sorted(read_adapter(file).layers.items())])


def losses(seen: list[events.Event]) -> list[float]:
    return [event.loss for event in seen if isinstance(event, events.Step)]


# Cosine of the whole update with that of the plain base after 30 steps; 1.0 and 0.86 were measured. The base's
# weights are random, its layers 16 to 64 wide, and AdamW makes steps of one size of all gradients, also of small ones.
@pytest.mark.parametrize(("form", "least"), [("int8", 0.99), ("nf4", 0.7)])
def test_the_adapter_points_where_that_of_the_plain_base_points(runs, form, least):
    plain, packed = update(runs["none"][1]), update(runs[form][1])
    assert torch.cosine_similarity(plain, packed, dim=0) > least
    assert losses(runs[form][0]) == pytest.approx(losses(runs["none"][0]), rel=0.01)


@pytest.mark.parametrize("form", FORMS)
def test_pictures_are_drawn_and_what_is_stored_how_is_told(runs, form):
    seen, _ = runs[form]
    assert {event.step for event in seen if isinstance(event, events.Sample)} == {0, 15, 30}
    adjusted = [event.why for event in seen if isinstance(event, events.Adjusted)]
    assert any(f"memory.quantize is {form}" in why for why in adjusted)


@pytest.mark.parametrize("form", FORMS)
def test_the_file_is_that_of_any_run(runs, form):
    plain, packed = (load_file(runs[name][1]) for name in ("none", form))
    assert {key: t.shape for key, t in plain.items()} == {key: t.shape for key, t in packed.items()}
    assert [verdict.loads for verdict in verdicts(packed, {})] == [verdict.loads for verdict in verdicts(plain, {})]


@pytest.mark.parametrize("form", SLOW)
def test_the_loss_falls(tmp_path, base, pictures, form):
    seen, _ = trained(tmp_path, base, pictures, form, 3e-2)
    first, last = [event.train_loss for event in seen if isinstance(event, events.Validation)]
    assert last < first


@pytest.mark.parametrize("form", SLOW)
def test_a_run_on_a_quantised_base_resumes_to_the_same_weights(tmp_path, base, pictures, form):
    seen = resumes_to_the_same_weights(tmp_path, base, pictures, **PLAIN, memory={"quantize": form})
    assert isinstance(seen[-1], events.Finished)
