"""What encoding takes before the loop, counted: part of whether a run fits."""

from dataclasses import replace

import pytest
import torch

from tests.tiny import tiny_pipeline_folder
from trainers import config_io, memory
from trainers.check import _verdict
from trainers.config import TrainConfig
from trainers.estimate import Estimate, estimate
from trainers.families.base import Components, Family
from trainers.families.registry import FAMILIES, find_family
from trainers.memory.cards import find_card
from trainers.memory.decide import GB
from trainers.memory.encoders import caption_bytes, picture_bytes
from trainers.memory.hollow import hollow

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SIDE = 1024


def counted(base, *known: int, **sections) -> Estimate:
    config = config_io.parse({"model": {"base": str(base)}, "memory": {"device": "cpu"}, **sections})
    plan, family = memory.plan(config.memory), find_family(config.model)
    return estimate(family, family.load(config.model, plan.dtype), config, plan, encoded=(4, 4), known=known or (0, 0))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_pipeline_folder(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_a_vae_holds_five_tensors_of_128_channels_of_the_picture_and_its_weights(name):
    family, config = FAMILIES[name], config_io.parse({"data": {"resolution": SIDE}})
    components = hollow(family, torch.bfloat16)
    map_ = 128 * SIDE**2 * 4
    weights = sum(p.numel() * 4 for p in components.vae.parameters())
    need = picture_bytes(family, components, config, CUDA)
    assert need == pytest.approx(weights + 5 * map_, rel=0.02)
    on_cpu = picture_bytes(family, components, config, CPU)
    assert on_cpu - need == pytest.approx(map_, rel=0.01)  # a copy in the order of its convolutions


def test_text_encoders_take_their_weights_in_the_precision_of_the_run():
    components = hollow(FAMILIES["sdxl"], torch.float32)
    weights = sum(p.numel() for encoder in components.text_encoders for p in encoder.parameters())
    for dtype, size in ((torch.bfloat16, 2), (torch.float32, 4)):
        need = caption_bytes(FAMILIES["sdxl"], components, TrainConfig(), dtype)
        assert size * weights < need < 1.2 * size * weights


def test_only_what_is_not_in_the_cache_has_to_fit(base):
    need = counted(base)
    assert need.encoding in ("pictures", "captions") and need.encoding_gb > 0 and need.fits
    small = replace(need, there_gb=need.encoding_gb / 2)
    assert small.steps_fit and not small.fits
    assert counted(base, 4, 4).encoding_gb == 0
    assert counted(base, 4, 0).encoding == "captions"
    assert counted(base, 0, 4).encoding == "pictures"
    assert counted(base, 4, 0, adapter={"text_encoder": True}).encoding == ""  # they run in every step


def test_text_encoders_that_are_trained_are_there_while_pictures_are_encoded(base):
    config = config_io.parse({"model": {"base": str(base)}})
    encoders = find_family(config.model).load(config.model, torch.float32).text_encoders
    gb = sum(p.numel() * 4 for encoder in encoders for p in encoder.parameters()) / GB
    apart = [counted(base, 0, 4, adapter={"text_encoder": trains}) for trains in (True, False)]
    beside = [need.encoding_gb - need.encoded_gb for need in apart]  # captions are kept only while nothing is trained
    assert beside[0] - beside[1] == pytest.approx(gb, rel=0.01)


def test_the_verdict_says_what_encoding_takes_where_that_is_most_or_too_much(base):
    need = replace(counted(base), peak_gb=2.0, free_gb=8.0, encoding="captions", encoding_gb=9.0, there_gb=12.0)
    assert need.fits
    far = replace(need, span=(1.0, 2.0))
    assert _verdict(far, 100, 0, None).startswith(
        "It fits: about 2.0 of 8.0 GB; encoding the captions before takes 9.0 GB. 100 steps take "
    )
    assert "takes 9.0 GB; drawing previews takes 2.5 GB. 1 step takes " in _verdict(
        replace(far, previews_gb=2.5), 1, 0, None
    )
    tight = replace(need, there_gb=6.0, instead="Leave model.t5 empty.")
    assert _verdict(tight, 100, 0, None) == (
        "It does not fit: up to 9.00 GB of memory are needed to encode the captions before the first step, "
        "and 6.00 GB are free. Leave model.t5 empty."
    )
    small = replace(need, peak_gb=2.62, free_gb=2.6, instead="Shrink it.")
    assert _verdict(small, 100, 0, None) == (
        "It does not fit: up to 2.62 GB of memory are needed, and memory.budget allows 2.60 GB. Shrink it."
    )


def test_smaller_pictures_are_advised_where_encoding_does_not_fit(base, monkeypatch):
    def needed(family: Family, components: Components, config: TrainConfig, device: torch.device) -> int:
        return 20 * GB if (config.data.resolution or 0) > 512 else GB

    monkeypatch.setattr("trainers.estimate.picture_bytes", needed)
    config = config_io.parse({"model": {"base": str(base)}, "data": {"resolution": 768}, "memory": {"device": "cpu"}})
    plan, family = memory.plan(config.memory), find_family(config.model)
    components = family.load(config.model, plan.dtype)
    need = estimate(family, components, config, plan, find_card("RTX 3060 12GB"), encoded=(4, 4))
    assert need.encoding == "pictures" and need.steps_fit and not need.encoding_fits
    assert "data.resolution = 512" in need.instead
