"""The whole recipe on a tiny model: files, events, and resuming to the very same weights."""

import json
import shutil
import threading
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from tests.tiny import tiny_pipeline_folder
from trainers import checkpoint, config_io, events, prepacked
from trainers.adapters.adapter_file import read_adapter
from trainers.adapters.lora import attach
from trainers.choices import ADAPTERS
from trainers.config import ModelConfig
from trainers.control import Control, Wish
from trainers.data.types import Example
from trainers.errors import UserError
from trainers.families.base import Conditioning
from trainers.families.registry import find_family
from trainers.memory import decide
from trainers.memory.saving import PLAIN, Saving
from trainers.step import TrainingStep
from trainers.stores import TextStore, cut_captions
from trainers.train import Folders, train

EVERYTHING = {
    "adapter": {"rank": 2, "alpha": 1.0, "text_encoder": True, "text_stop": 0.75, "dropout": 0.1},
    "data": {"batch_size": 2, "shuffle_tags": True, "caption_dropout": 0.3, "flip": True, "trigger": "zib"},
    "optimizer": {"ema": True, "rate": 1e-2},
    "preview": {"every": 0, "sampling_steps": 2},
    "noise": {"offset": 0.05},
    "loss": {"preservation": 1.0, "preservation_every": 2},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny_pipeline_folder(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(9):
        Image.new("RGB", (64, 64 if i % 2 else 48), (i * 25, 200 - i * 20, 90)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"zib, tag{i}, red, round", encoding="utf-8")
    return folder


def run(
    folder: Path, base: Path, pictures: Path, steps: int, stop_at: int | None = None, heard=None, **changes
) -> list[events.Event]:
    settings = {section: {**values} for section, values in EVERYTHING.items()}
    for section, values in changes.items():
        settings[section] = {**settings.get(section, {}), **values}
    settings["model"] = {"base": str(base)}
    settings["data"] |= {"folders": [str(pictures)]}
    settings["schedule"] = {"steps": steps}
    settings["saving"] = {"every": 0 if stop_at is None else stop_at, "name": "tiny", **changes.get("saving", {})}
    seen: list[events.Event] = []

    def emit(event: events.Event) -> None:
        seen.append(event)
        if heard:
            heard(event)
        if isinstance(event, events.Checkpoint) and event.step == stop_at:
            (folder / "control").mkdir(exist_ok=True)
            (folder / "control" / "stop").touch()

    train(config_io.parse(settings), Folders(folder, folder / "cache"), emit)
    return seen


def run_with_files(folder: Path, base: Path, pictures: Path, files: dict, changes: dict) -> list[events.Event]:
    """Six steps; `files` holds, by the step of a checkpoint, what is put into control/ right after it."""

    def put(event: events.Event) -> None:
        if isinstance(event, events.Checkpoint):
            for name, content in files.get(event.step, {}).items():
                (folder / "control").mkdir(exist_ok=True)
                (folder / "control" / name).write_text(content, "utf-8")

    return run(folder, base, pictures, 6, heard=put, **{**changes, "saving": {"every": 1}})


@pytest.mark.parametrize("classes", [{}, {"class_words": ["a cat"], "class_pictures": 3}], ids=["own", "class"])
def test_resume_equals_an_uninterrupted_run(tmp_path, base, pictures, classes):
    seen = resumes_to_the_same_weights(tmp_path, base, pictures, data=classes)
    assert isinstance(seen[-1], events.Finished)


@pytest.mark.parametrize("kind", [kind for kind in ADAPTERS if kind != "lora"])
def test_every_adapter_type_resumes_to_the_same_weights(tmp_path, base, pictures, kind):
    adapter = {"type": kind, "conv_rank": 3, "rank_dropout": 0.2, "module_dropout": 0.1}
    optimizer = {"block_rates": {"mid_block": 2.0}, "lora_plus": 4.0 if kind in ("locon", "dora") else 1.0}
    seen = resumes_to_the_same_weights(tmp_path, base, pictures, adapter=adapter, optimizer=optimizer)
    assert isinstance(seen[-1], events.Finished)


def test_a_run_that_began_with_little_memory_resumes_to_the_same_weights_with_more(
    tmp_path, base, pictures, monkeypatch
):
    monkeypatch.setattr(prepacked, "LEAST", 1)
    real, told = decide.decide, []

    def by_memory(family, components, config, plan, held, before):
        told.append(before)
        if before is None:
            return Saving(slim=False, prepacked=False), None, decide.Free(0, 0)
        assert real(family, components, config, plan, held)[0] == PLAIN != before
        return real(family, components, config, plan, held, before)

    monkeypatch.setattr("trainers.train.decide", by_memory)
    resumes_to_the_same_weights(tmp_path, base, pictures)
    assert [before is None for before in told] == [True, True, False]


def resumes_to_the_same_weights(tmp_path, base, pictures, **changes) -> list[events.Event]:
    straight, parted = tmp_path / "straight", tmp_path / "parted"
    run(straight, base, pictures, 8, **changes)
    first = run(parted, base, pictures, 8, stop_at=3, **changes)
    assert isinstance(first[-1], events.Stopped) and first[-1].step == 4
    (parted / "control" / "stop").unlink()
    second = run(parted, base, pictures, 8, **changes)
    assert next(e for e in second if isinstance(e, events.Started)).step == 4
    one, other = (load_file(f / "output" / "tiny.safetensors") for f in (straight, parted))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    masters = [load_file(f / "checkpoints" / "step_000008" / "adapter.safetensors") for f in (straight, parted)]
    assert all(torch.equal(masters[0][name], masters[1][name]) for name in masters[0])
    return second


def test_computing_again_leaves_the_weights_as_they_are_to_the_bit(tmp_path, base, pictures):
    saved = []
    for how in ("none", "all"):
        run(tmp_path / how, base, pictures, 2, memory={"checkpointing": how})
        saved.append(load_file(tmp_path / how / "output" / "tiny.safetensors"))
    assert saved[0].keys() == saved[1].keys() and saved[0]
    assert all(torch.equal(saved[0][key], saved[1][key]) for key in saved[0])


def test_little_memory_and_module_dropout_go_together(tmp_path, base, pictures):
    adapter, memory = {"module_dropout": 0.3, "text_encoder": False}, {"budget": 0.001}
    seen = run(tmp_path, base, pictures, 3, adapter=adapter, memory=memory)
    assert any("computed twice" in event.what for event in seen if isinstance(event, events.Adjusted))
    assert isinstance(seen[-1], events.Finished)


def test_schedule_free_weights_are_saved_as_its_own_average_with_and_without_ema(tmp_path, base, pictures):
    saved, told = [], []
    for ema in (False, True):
        seen = run(tmp_path / str(ema), base, pictures, 3, optimizer={"type": "schedulefree", "ema": ema})
        told.append([one.what for one in seen if isinstance(one, events.Adjusted) and "average" in one.what])
        saved.append(load_file(tmp_path / str(ema) / "output" / "tiny.safetensors"))
    assert told == [[], ["No moving average is kept"]]
    assert saved[0] and all(torch.equal(saved[0][key], saved[1][key]) for key in saved[0])


@pytest.mark.parametrize("kind", ["locon", "lokr"])
def test_a_run_goes_on_from_an_adapter_file(tmp_path, base, pictures, kind):
    first, second = tmp_path / "first", tmp_path / "second"
    changes = {"optimizer": {"rate": 1e-2, "ema": False}, "saving": {"dtype": "fp32"}}
    run(first, base, pictures, 4, adapter={"type": kind}, **changes)
    shutil.move(first / "output" / "tiny.safetensors", tmp_path / "start.safetensors")
    start = {"type": kind, "init_from": str(tmp_path / "start.safetensors"), "text_encoder": False}
    changes["optimizer"]["rate"] = 1e-9  # stands still
    seen = run(second, base, pictures, 4, stop_at=2, adapter=start, **changes)
    said = [event.message for event in seen if isinstance(event, events.Warned)]
    assert any("start.safetensors" in message and "text_0: encoder.layers" in message for message in said)
    one, other = (read_adapter(file).modules for file in (tmp_path / "start.safetensors", *second.glob("output/*.s*")))
    for name, module in other.items():
        torch.testing.assert_close(module.delta(), one[name].delta(), rtol=1e-3, atol=1e-6)
    (tmp_path / "start.safetensors").unlink()  # a resumed run has it no longer to do with
    (second / "control" / "stop").unlink()
    assert isinstance(run(second, base, pictures, 4, adapter=start, **changes)[-1], events.Finished)


def test_a_start_that_is_not_there_is_a_sentence(tmp_path, base, pictures):
    with pytest.raises(UserError, match="none.safetensors"):
        run(tmp_path, base, pictures, 2, adapter={"init_from": str(tmp_path / "none.safetensors")})


def test_diffusers_loads_the_delta_that_was_trained(tmp_path, base, pictures):
    run(tmp_path, base, pictures, 4, saving={"dtype": "fp32"})
    file = tmp_path / "output" / "tiny.safetensors"
    layers = read_adapter(file).layers
    pipe = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    pipe.load_lora_weights(file)
    compared = 0
    for prefix, model in (("lora_unet_", pipe.unet), ("lora_te_text_model_", pipe.text_encoder)):
        for path, layer in model.named_modules():
            if hasattr(layer, "get_delta_weight") and hasattr(layer, "lora_A") and len(layer.lora_A):
                name = prefix + path.removeprefix("text_model.").replace(".", "_")
                theirs = layer.get_delta_weight(next(iter(layer.lora_A))).float()
                ours = layers[name].delta().reshape(theirs.shape)
                torch.testing.assert_close(theirs, ours, rtol=1e-2, atol=1e-3 * ours.abs().max().item())
                compared += 1
    assert compared == len(layers)


def test_a_run_leaves_samples_events_and_a_file_with_sidecars(tmp_path, base, pictures):
    seen = run(tmp_path, base, pictures, 3, preview={"every": 2})
    assert isinstance(seen[-1], events.Finished)
    assert {e.step for e in seen if isinstance(e, events.Sample)} == {0, 2, 3}
    assert all((tmp_path / e.path).exists() for e in seen if isinstance(e, events.Sample))
    assert [e.step for e in seen if isinstance(e, events.Validation)] == [2, 3]
    facts = json.loads((tmp_path / "output" / "tiny.json").read_text(encoding="utf-8"))
    assert facts["activation text"] == "zib" and facts["sd version"] == "SD1"
    cover, sample = tmp_path / "output" / "tiny.png", tmp_path / "samples" / "step_000003_0.png"
    with Image.open(cover) as one, Image.open(sample) as other:
        assert one.size == other.size


def test_the_file_counts_pictures_with_their_repeats_and_names_the_real_buckets(tmp_path, base, pictures):
    run(tmp_path, base, pictures, 2, data={"repeats": 3}, preview={"every": 0})
    with safe_open(tmp_path / "output" / "tiny.safetensors", "pt") as file:
        told = file.metadata()
    buckets = json.loads(told["ss_bucket_info"])["buckets"].values()
    assert int(told["ss_num_train_images"]) == 3 * 7 == sum(bucket["count"] for bucket in buckets)
    assert int(told["ss_num_validation_images"]) == 2
    assert (told["ss_min_bucket_reso"], told["ss_max_bucket_reso"]) == ("8", "32")
    assert told["ss_zero_terminal_snr"] == "False"


def test_training_lowers_the_loss_on_its_own_pictures(tmp_path, base, pictures):
    seen = run(
        tmp_path,
        base,
        pictures,
        60,
        preview={"every": 10, "sampling_steps": 1, "prompts": ["zib"]},
        data={"caption_dropout": 0.0},
    )
    losses = [e.train_loss for e in seen if isinstance(e, events.Validation)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("optimizer", ["adamw", "schedulefree"])
def test_previews_and_broken_previews_leave_the_training_alone(tmp_path, base, pictures, monkeypatch, optimizer):
    def broken(*_, **__):
        raise RuntimeError("no room for a picture")

    changes = {"optimizer": {"type": optimizer, "ema": optimizer == "adamw"}}
    run(tmp_path / "without", base, pictures, 6, preview={"every": 0}, **changes)
    run(tmp_path / "with", base, pictures, 6, preview={"every": 1}, **changes)
    monkeypatch.setattr("trainers.preview.sample_told", broken)
    seen = run(tmp_path / "broken", base, pictures, 6, preview={"every": 1}, **changes)
    assert isinstance(seen[-1], events.Finished)
    assert any(isinstance(e, events.Warned) and "preview" in e.message for e in seen)
    name = "checkpoints/step_000006/adapter.safetensors"
    without, *others = (load_file(tmp_path / folder / name) for folder in ("without", "with", "broken"))
    for other in others:
        assert all(torch.equal(without[key], other[key]) for key in without)


@pytest.mark.parametrize("kind", ["lora", "dora", "loha"])
def test_pictures_asked_for_while_it_trains_leave_the_training_alone(tmp_path, base, pictures, kind):
    settings = {"adapter": {"type": kind}, "preview": {"prompts": ["zib"], "seed": 5}}
    run(tmp_path / "without", base, pictures, 6, **settings)
    wishes = [Wish("zib", None, 1.0), Wish("zib", 5, 0.0), Wish("zib", 6, -0.5)]
    files = {2: wishes[0], 3: wishes[1:], 4: None}
    seen = run_with_files(
        tmp_path / "with", base, pictures, {n: {"sample_now": as_file(w)} for n, w in files.items()}, settings
    )
    asked = [e for e in seen if isinstance(e, events.Sample) and e.asked]
    assert [(e.step, e.prompt, e.seed, e.strength) for e in asked] == [
        (3, "zib", 5, 1.0),
        (4, "zib", 5, 0.0),
        (4, "zib", 6, -0.5),
    ]
    assert [(e.step, e.seed) for e in seen if isinstance(e, events.Sample) and not e.asked] == [(5, 5)]
    assert [e.step for e in seen if isinstance(e, events.Validation)] == [5]  # an empty file is all previews
    one, other, backwards = (picture_of(tmp_path / "with" / e.path) for e in asked)
    assert one != other != backwards
    name = "checkpoints/step_000006/adapter.safetensors"
    without, along = (load_file(tmp_path / folder / name) for folder in ("without", "with"))
    assert all(torch.equal(without[key], along[key]) for key in without)


def test_asked_pictures_are_those_of_the_grid_and_of_the_base(tmp_path, base, pictures):
    settings = {"preview": {"every": 3, "prompts": ["zib", "a cat"], "seed": 5}}
    wishes = [Wish("a cat", 6, 1.0), Wish("zib", 5, 0.0)]
    seen = run_with_files(tmp_path, base, pictures, {2: {"sample_now": as_file(wishes)}}, settings)
    trained, of_base = (picture_of(tmp_path / e.path) for e in seen if isinstance(e, events.Sample) and e.asked)
    assert trained == picture_of(tmp_path / "samples" / "step_000003_1.png")
    assert of_base == picture_of(tmp_path / "samples" / "step_000000_0.png")


def test_prompts_edited_while_it_trains_are_drawn_from_the_next_preview_on(tmp_path, base, pictures):
    settings = {"preview": {"every": 2, "prompts": ["zib"]}}
    files = {2: {"prompts.json": '["a dog", "a cat"]'}, 4: {"prompts.json": "[3"}}
    seen = run_with_files(tmp_path, base, pictures, files, settings)
    drawn = [(e.step, e.prompt) for e in seen if isinstance(e, events.Sample)]
    assert drawn == [(0, "zib"), (2, "a dog"), (2, "a cat"), (4, "zib"), (6, "zib")]
    assert isinstance(seen[-1], events.Finished)
    assert sum(isinstance(e, events.Warned) and "prompts.json" in e.message for e in seen) == 2


@pytest.mark.parametrize("wrong", ["{", "[]", '"zib"', '{"prompt": 3}', '{"prompt": "zib", "seed": -1}', b"\xff"])
def test_a_wish_that_nobody_understands_is_a_warning(tmp_path, wrong):
    (tmp_path / "sample_now").write_bytes(wrong if isinstance(wrong, bytes) else wrong.encode())
    with pytest.raises(UserError):
        Control(tmp_path).take()
    assert Control(tmp_path).take() is None  # it is not asked about again


@pytest.mark.parametrize("word", ["stop", "pause"])
def test_a_run_that_is_still_preparing_ends_at_once_and_goes_on_later(tmp_path, base, pictures, word):
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / word).touch()
    seen = run(tmp_path, base, pictures, 2)
    assert seen[-1] == events.Stopped(0, paused=word == "pause")
    assert not any(isinstance(e, events.Started) for e in seen) and not (tmp_path / "output").exists()
    (tmp_path / "control" / word).unlink()
    assert isinstance(run(tmp_path, base, pictures, 2)[-1], events.Finished)


def as_file(wishes: Wish | list[Wish] | None) -> str:
    if wishes is None:
        return ""
    listed = [asdict(wish) for wish in wishes] if isinstance(wishes, list) else asdict(wishes)
    return json.dumps(listed)


def picture_of(path: Path) -> bytes:
    with Image.open(path) as picture:
        return picture.tobytes()


def test_a_step_computes_while_the_checkpoint_before_it_is_written(tmp_path, base, pictures, monkeypatch):
    write, step, computed = checkpoint.save, TrainingStep.__call__, [threading.Event() for _ in range(3)]

    def written_after_the_next_step(folder, saved, keep):
        assert saved.position.step == 3 or computed[saved.position.step].wait(60)
        return write(folder, saved, keep)

    def noted(self, number):
        step(self, number)
        computed[number].set()

    monkeypatch.setattr(checkpoint, "save", written_after_the_next_step)
    monkeypatch.setattr(TrainingStep, "__call__", noted)
    seen = run(tmp_path, base, pictures, 3, saving={"every": 1})
    assert [e.step for e in seen if isinstance(e, events.Checkpoint)] == [1, 2, 3]


@pytest.mark.parametrize("kind", ["tiny", "embedded"])
def test_a_caption_that_the_base_does_not_read_to_its_end_is_told(tmp_path, base, pictures, kind):
    family = find_family(ModelConfig())
    components = family.load(ModelConfig(base=str(base) if kind == "tiny" else "embedded"), torch.float32)
    limit = 24 if kind == "tiny" else 32
    fits, long, longer = (Example(tmp_path / f"{n}.png", "a " * n, (8, 8), "") for n in (limit - 2, limit, 2 * limit))
    assert cut_captions([fits], family, components) == []
    (problem,) = cut_captions([fits, long, longer], family, components)
    said = f"it has {2 * limit} tokens, and this base reads {limit - 2}."
    assert problem.message == f"its caption and 1 more are cut: {said}"
    assert problem.path == longer.path and not problem.fatal


def test_a_stop_during_the_last_step_finds_a_finished_run(tmp_path, base, pictures):
    seen = run(tmp_path, base, pictures, 3, stop_at=2)
    assert isinstance(seen[-1], events.Finished) and seen[-1].step == 3


def test_overflowing_weights_end_the_run_before_they_are_saved(tmp_path, base, pictures, monkeypatch):
    real = TrainingStep.__call__

    def overflowing(self, step):
        real(self, step)
        if step == 4:
            self.parameters[0].data[0, 0] = float("inf")

    monkeypatch.setattr(TrainingStep, "__call__", overflowing)
    with pytest.raises(UserError, match="near step 6: the adapter's numbers overflowed. The last checkpoint is good"):
        run(tmp_path, base, pictures, 9, preview={"every": 0}, saving={"every": 3})
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path / "checkpoints")] == ["step_000003"]


@pytest.mark.parametrize("optimizer", [{"ema": True}, {"type": "schedulefree", "ema": False}], ids=["ema", "free"])
def test_the_denoiser_goes_on_with_the_text_encoder_of_the_file(tmp_path, base, pictures, monkeypatch, optimizer):
    frozen = []
    encode_all = TextStore.encode_all

    def noted(store, *arguments):
        frozen.append((store.captions, encode_all(store, *arguments).embeds))
        return Conditioning(frozen[-1][1])

    monkeypatch.setattr(TextStore, "encode_all", noted)
    run(tmp_path, base, pictures, 8, optimizer=optimizer)
    family = find_family(ModelConfig())
    components = family.load(ModelConfig(base=str(base)), torch.float32)
    config = config_io.parse({"adapter": EVERYTHING["adapter"]}).adapter
    adapter = attach(components, family.spec, config, seed=0)
    adapter.load_state(checkpoint.load_exported(tmp_path / "checkpoints" / "step_000008")[0])
    captions, embeds = frozen[-1]
    of_file = encode_all(TextStore(captions, family, components, 1, torch.device("cpu")), None, lambda *_: None).embeds
    assert len(frozen) == 2  # the base's own, for output preservation; then the trained one
    torch.testing.assert_close(embeds, of_file, rtol=0, atol=0)
    assert not torch.equal(embeds, frozen[0][1])
