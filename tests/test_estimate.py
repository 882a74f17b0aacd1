"""The memory and the operations of a step, counted without doing it."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tests.tiny import tiny_pipeline_folder
from trainers import config_io, memory
from trainers.bench.loops import engine_step
from trainers.check import _verdict
from trainers.choices import ADAPTERS
from trainers.estimate import _beside, _smaller, estimate, needed
from trainers.families.base import Conditioning
from trainers.families.registry import find_family
from trainers.families.sd3 import SD3
from trainers.memory.aside import room_beside
from trainers.memory.cards import find_card
from trainers.memory.decide import GB, beside, resident, written
from trainers.memory.encoders import weight_bytes
from trainers.memory.hollow import hollow
from trainers.memory.meter import Meter


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tiny_pipeline_folder(folder)
    return folder


def counted(base, **sections):
    config = config_io.parse({"model": {"base": str(base)}, "memory": {"device": "cpu"}, **sections})
    plan, family = memory.plan(config.memory), find_family(config.model)
    return estimate(family, family.load(config.model, plan.dtype), config, plan), config, plan, family


def test_operations_are_those_of_the_real_step(base):
    need, config, plan, family = counted(base, data={"batch_size": 2})
    components = family.load(config.model, plan.dtype)
    step = engine_step(family, components, config, plan, 2)
    step(0)
    with Meter() as meter:
        step(1)
    assert need.tflop * 1e12 == pytest.approx(meter.flops, rel=0.1)
    assert need.pace.tried and need.pace.step > 0


def test_a_larger_batch_needs_more_and_checkpointing_less(base):
    small, *_ = counted(base, data={"batch_size": 1})
    large, *_ = counted(base, data={"batch_size": 8})
    saving, *_ = counted(base, data={"batch_size": 8}, memory={"device": "cpu", "checkpointing": "all"})
    assert large.activations_gb > 4 * small.activations_gb
    assert saving.activations_gb < 0.8 * large.activations_gb
    assert large.adapter_gb == small.adapter_gb > 0


def test_every_way_of_showing_pictures_can_be_timed(base):
    shown = {"flip": True, "caption_dropout": 0.5, "shuffle_tags": True}
    need, *_ = counted(base, data=shown, adapter={"text_encoder": True})
    assert need.pace.tried and need.pace.step > 0


def test_what_does_not_fit_says_so(base):
    need, *_ = counted(base)
    assert need.fits and not replace(need, free_gb=need.peak_gb / 2).fits


def test_output_preservation_is_in_the_operations(base):
    plain, *_ = counted(base)
    often, *_ = counted(base, loss={"preservation": 1, "preservation_every": 1})
    seldom, *_ = counted(base, loss={"preservation": 1, "preservation_every": 10})
    extra = often.tflop / plain.tflop - 1
    assert 1.4 < extra < 1.6  # once more forward and backward, and one forward of the base: about half of these
    assert seldom.tflop / plain.tflop - 1 == pytest.approx(extra / 10)


@pytest.mark.parametrize("kind", [kind for kind in ADAPTERS if kind != "lora"])
def test_every_adapter_type_can_be_counted_and_timed(base, kind):
    need, *_ = counted(base, adapter={"type": kind, "text_encoder": True})
    assert need.adapter_gb > 0 and need.activations_gb > 0 and need.pace.tried and need.pace.step > 0


def test_settings_that_would_fit_are_named_where_these_do_not(base):
    config = config_io.parse({"model": {"base": str(base)}, "data": {"batch_size": 8}, "memory": {"device": "cpu"}})
    plan, family = memory.plan(config.memory), find_family(config.model)
    components = family.load(config.model, plan.dtype)
    left, fitted = needed(family, components, config, plan, plan.device, 1.0)
    least = left.beside + left.weights + left.adapter + 0.5 * fitted.count.peak / GB
    config = config_io.merge(config, {"memory": {"budget": least, "checkpointing": "none"}})
    need = estimate(family, components, config, plan)
    assert not need.fits and need.pace is None
    assert need.instead.startswith("It would fit with memory.checkpointing = auto")


def test_class_pictures_take_of_the_room(base):
    without, *_ = counted(base, loss={"preservation": 1.0})
    classes = {"class_words": ["a cat"], "class_pictures": 500}
    with_them, *_ = counted(base, loss={"preservation": 1.0}, data=classes)
    assert (with_them.encoded_gb - without.encoded_gb) * GB == pytest.approx(500 * 4 * 8 * 8 * 4)


def test_a_rounded_base_is_not_advised_where_its_weights_are_read_again(base):
    config = config_io.parse({"model": {"base": str(base)}, "memory": {"device": "cpu", "stream": "all"}})
    components = find_family(config.model).load(config.model, torch.float32)
    for device, advised in (("cpu", False), ("cuda", True)):
        changes = list(_smaller(config, components, torch.device(device)))
        assert any("quantize" in change.get("memory", {}) for change in changes) == advised


def test_batches_in_parts_take_less_and_as_many_operations(base):
    whole, *_ = counted(base, data={"batch_size": 4})
    halves, *_ = counted(base, data={"batch_size": 4}, memory={"parts": 2})
    assert halves.activations_gb == pytest.approx(whole.activations_gb / 2, rel=0.1)
    assert halves.tflop == pytest.approx(whole.tflop, rel=0.01)


def test_a_quantised_base_takes_less_and_what_leaves_the_adapter_as_it_is_is_named_before_it():
    wish = {"device": "cpu", "budget": 0.001, "stream": "none"}
    config = config_io.parse({"data": {"batch_size": 1}, "memory": wish})
    plan, family = memory.plan(config.memory), find_family(config.model)
    components = family.load(config.model, plan.dtype)
    least = []
    for form in ("none", "int8", "nf4"):
        changed = config_io.merge(config, {"memory": {"quantize": form}})
        left, fitted = needed(family, components, changed, plan, plan.device, 100.0)
        least.append(left.beside + left.weights + left.adapter + fitted.count.peak / GB)
    assert least[0] > least[1] > least[2]
    tight = config_io.merge(config, {"memory": {"budget": (least[0] + least[1]) / 2}})
    need = estimate(family, components, tight, plan)
    assert not need.fits and "memory.stream = auto" in need.instead
    named = [change.get("memory", {}) for change in _smaller(tight, components, torch.device("cpu"))]
    forms = [memory["quantize"] for memory in named if "quantize" in memory]
    assert forms[:2] == ["int8", "nf4"] and "quantize" not in named[0]


def test_a_preview_takes_the_vae_and_what_decoding_allocates_within_the_budget(base):
    need, config, plan, family = counted(base, data={"resolution": 128}, preview={"every": 10, "height": 96})
    components = family.load(config.model, plan.dtype)
    vae, factor = components.vae, components.latent.factor
    weights = sum(weight.numel() * weight.element_size() for weight in vae.parameters())
    with torch.no_grad(), Meter() as meter:
        family.decode_image(vae, torch.zeros(1, 4, 96 // factor, 128 // factor))
    whole = need.previews_gb - (need.peak_gb - need.activations_gb)
    assert whole * GB == pytest.approx(weights + meter.peak + meter.largest, rel=0.02)
    budget = need.peak_gb - need.activations_gb + 0.8 * whole
    tight = config_io.merge(config, {"memory": {"budget": budget, "checkpointing": "none"}})
    small = estimate(family, family.load(config.model, plan.dtype), tight, plan)
    assert small.previews_gb <= budget < need.previews_gb
    without, *_ = counted(base, preview={"every": 0})
    assert without.previews_gb == 0


def test_previews_that_do_not_fit_are_told_with_what_helps(base, monkeypatch):
    monkeypatch.setattr("trainers.estimate.free_gb", lambda device: 1.0)
    need, *_ = counted(base, data={"resolution": 16}, preview={"every": 10, "width": 1024, "height": 1024})
    assert need.steps_fit and need.encoding_fits and not need.fits
    words = _verdict(need, 10, 0, None)
    assert words.startswith(f"It does not fit: up to {need.previews_gb:.2f} GB of memory are needed to draw previews")
    assert words.endswith("and 1.00 GB are free. Lower preview.width and preview.height, or set preview.every = 0.")
    beyond = replace(need, there_gb=99.0, free_gb=need.previews_gb - 0.1, span=(1.0, 1.0))
    takes = f"; drawing previews takes {need.previews_gb:.1f} GB"
    assert f"{takes}, more than memory.budget allows. 10 steps " in _verdict(beyond, 10, 0, None)
    hardly = replace(beyond, peak_gb=need.previews_gb - 0.01, free_gb=need.previews_gb - 0.005)
    assert f"{takes}, more than memory.budget allows. " in _verdict(hardly, 10, 0, None)
    assert f"{takes}. 10 steps " in _verdict(replace(beyond, free_gb=99.0), 10, 0, None)


def test_what_would_fit_has_room_for_its_previews_too(base, monkeypatch):
    large = {"data": {"resolution": 64}, "preview": {"every": 10, "width": 1024, "height": 1024}}
    need, config, plan, family = counted(base, **large)
    tight = need.peak_gb - need.activations_gb + 0.9 * need.activations_gb
    settings = config_io.merge(config, {"memory": {"budget": tight, "checkpointing": "none", "stream": "none"}})

    def advice(free: float) -> str:
        monkeypatch.setattr("trainers.estimate.free_gb", lambda device: free)
        found = estimate(family, family.load(config.model, plan.dtype), settings, plan)
        assert not found.steps_fit
        return found.instead

    assert advice(50.0).startswith("It would fit with memory.checkpointing = auto: ")
    assert "checkpointing" not in advice(0.99 * need.previews_gb)


def test_previews_much_larger_than_the_training_pictures_take_more_and_are_not_tried(base):
    usual, *_ = counted(base, data={"resolution": 16}, preview={"every": 10})
    large, config, plan, family = counted(
        base, data={"resolution": 16}, preview={"every": 10, "width": 512, "height": 512}
    )
    assert usual.pace.tried and not large.pace.tried
    components = family.load(config.model, plan.dtype)
    side, width = 512 // components.latent.factor, components.denoiser.config.cross_attention_dim
    told = Conditioning(torch.zeros(2, 24, width))
    with torch.no_grad(), Meter() as meter:  # one picture alone, with its prompt and without
        family.denoise(components.denoiser, torch.zeros(2, 4, side, side), torch.zeros(2, dtype=torch.long), told)
    assert meter.peak > 1.5 * large.activations_gb * GB
    assert large.previews_gb - (large.peak_gb - large.activations_gb) >= 0.9 * meter.peak / GB


def test_plain_mathematics_counts_in_a_step_and_in_its_previews(base):
    larger = {"data": {"resolution": 64}, "preview": {"every": 10, "width": 256, "height": 256}}
    usual, plain = (counted(base, **larger, memory={"attention": name})[0] for name in ("sdpa", "math"))
    assert plain.activations_gb > 1.02 * usual.activations_gb
    drawn = [need.previews_gb - (need.peak_gb - need.activations_gb) for need in (usual, plain)]
    assert drawn[1] > 1.02 * drawn[0]


def test_a_card_takes_less_time_for_batches_that_are_smaller(base):
    config = config_io.parse({"model": {"base": str(base)}, "memory": {"device": "cpu"}})
    plan, family, card = memory.plan(config.memory), find_family(config.model), find_card("RTX 3060 12GB")
    whole, half = (
        estimate(family, family.load(config.model, plan.dtype), config, plan, card, share=share).span
        for share in (1.0, 0.5)
    )
    assert half == pytest.approx([seconds / 2 for seconds in whole])


def test_tables_that_are_not_trained_take_of_the_memory_too():
    components = hollow(SD3, torch.bfloat16, "sd3.5-medium")
    weights = sum(weight.numel() * weight.element_size() for weight in components.denoiser.parameters())
    positions = 384 * 384 * 1536 * 2  # of Stable Diffusion 3.5 Medium, for pictures of up to 384 x 384 patches
    assert resident(components, config_io.parse({})) == weights + positions


def test_a_checkpoint_is_copied_beside_the_steps_where_that_takes_of_the_same_memory():
    config = config_io.parse({"optimizer": {"type": "adamw", "ema": True}})
    assert written(config, 100, torch.device("cpu")) == 100 * (1 + 2 + 1 + 1)  # masters, moments, averages, the file's
    assert written(config, 100, torch.device("cuda")) == 0


def test_encoded_pictures_and_captions_take_of_the_room(base):
    config = config_io.parse({"model": {"base": str(base)}, "memory": {"device": "cpu"}})
    plan, family = memory.plan(config.memory), find_family(config.model)
    components = family.load(config.model, plan.dtype)
    none, _ = needed(family, components, config, plan, plan.device, 1.0)
    some, _ = needed(family, components, config, plan, plan.device, 1.0, (10, 5))
    latents, text = 10 * 2 * 4 * 8 * 8 * 4, 5 * 24 * 16 * 4  # mean and deviation; 24 tokens of width 16
    assert some.held * GB == pytest.approx(latents + text)
    assert none.activations - some.activations == pytest.approx(latents + text)
    many, _ = needed(family, components, config, plan, plan.device, 1.0, (1_000_000, 5))
    assert many.held * GB == pytest.approx(text)  # so many pictures stay in a file


def test_streamed_weights_come_anew_for_every_part_of_a_batch_on_a_card(base):
    def longest(parts: int) -> float:
        many = {"stream": "all", "parts": parts, "device": "cpu"}
        config = config_io.parse({"model": {"base": str(base)}, "data": {"batch_size": 4}, "memory": many})
        plan, family = memory.plan(config.memory), find_family(config.model)
        components = family.load(config.model, plan.dtype)
        return estimate(family, components, config, plan, find_card("RTX 3060 12GB")).span[1]

    whole, three, four = map(longest, (1, 3, 4))
    assert four > three > whole and four - three == pytest.approx((four - whole) / 3, rel=0.01)


def test_pictures_wait_for_the_steps_that_show_them_where_there_is_room_for_that(base, monkeypatch):
    settings = config_io.parse({"model": {"base": str(base)}, "memory": {"device": "cpu"}})
    plan, family = memory.plan(settings.memory), find_family(settings.model)

    def found(pictures: int) -> bool:
        return estimate(family, family.load(settings.model, plan.dtype), settings, plan, encoded=(pictures, 1)).late

    assert not found(5)  # encoded in no time
    monkeypatch.setattr("trainers.estimate.SOON", 0.0)
    assert found(5) and not found(0)
    monkeypatch.setattr("trainers.estimate.room_beside", lambda *_: None)
    assert not found(5)


def test_blocks_that_make_room_for_pictures_keep_the_peak_within_the_budget(base, monkeypatch):
    budget = beside(torch.device("cpu")) + 36 / 2**14  # so that some blocks are streamed
    config = config_io.parse({"model": {"base": str(base)}, "memory": {"device": "cpu", "budget": budget}})
    plan, family = memory.plan(config.memory), find_family(config.model)
    components = family.load(config.model, plan.dtype)
    left, fitted = needed(family, components, config, plan, plan.device, 100.0)
    free, aside = left.free(fitted), []
    assert fitted.saving.streamed and left.peak(fitted) < budget
    for takes in range(int(free.between) - 5000, int(free.between) + 100_000, 5000):
        monkeypatch.setattr("trainers.estimate.picture_bytes", lambda *_, takes=takes: takes)
        more = _beside(family, components, config, left, fitted)
        found = room_beside(components.denoiser, fitted.saving, free, takes, weight_bytes([components.vae]))
        assert found and 0 <= more <= free.within
        aside += found.aside
    assert aside
    monkeypatch.setattr("trainers.estimate.picture_bytes", lambda *_: 10**9)
    assert _beside(family, components, config, left, fitted) is None


@pytest.mark.skipif(sys.platform != "linux", reason="a process is told its peak elsewhere in another way")
def test_the_engine_and_its_libraries_take_what_is_counted_beside_a_run():
    code = "from trainers import memory, train; import torch; print(memory.peak_gb(torch.device('cpu')))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.7 <= float(found.stdout) / beside(torch.device("cpu")) <= 1
