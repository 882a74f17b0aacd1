"""Every checkpoint of a run becomes an adapter file in every layout, whatever else lies in the folders."""

import json
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTextModel

from tests.tiny import tiny_pipeline_folder
from trainers import checkpoint, config_io, events, finish, sums
from trainers.adapters.adapter import modules_of_state
from trainers.adapters.adapter_file import read_adapter
from trainers.adapters.lora import attach
from trainers.adapters.names import lookup
from trainers.choices import ADAPTERS
from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.export import hashes
from trainers.export.facts import pack, unpack
from trainers.export_run import export_run
from trainers.families.sd15 import SD15
from trainers.train import Folders, train

FORMS = ("kohya", "diffusers", "peft")
CLOCK = {"ss_training_started_at", "ss_training_finished_at", "modelspec.date"}
CHANCE = {"ss_session_id"}  # a random number per run


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_pipeline_folder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(5):
        Image.new("RGB", (64, 64 if i % 2 else 50), (i * 45, 200 - i * 20, 90)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"zib, tag{i}, red, round", encoding="utf-8")
    return folder


def config_of(base: Path, pictures: Path, **changes: dict) -> TrainConfig:
    """Everything on: text encoder, shuffled tags, dropout of captions and adapter, EMA."""
    sections = {
        "model": {"base": str(base)},
        "adapter": {"rank": 2, "alpha": 1.0, "text_encoder": True, "text_rank": 3, "dropout": 0.1},
        "data": {"folders": [str(pictures)], "batch_size": 2, "trigger": "zib"},
        "optimizer": {"ema": True, "rate": 1e-2},
        "schedule": {"steps": 4},
        "preview": {"every": 0, "sampling_steps": 1, "prompts": ["zib"]},
        "saving": {"name": "zib.v1", "every": 2, "keep": 9, "dtype": "fp32"},
    }
    sections["data"] |= {"shuffle_tags": True, "caption_dropout": 0.3, "flip": True}
    for section, values in changes.items():
        sections[section] = {**sections[section], **values}
    return config_io.parse(sections)


def train_in(folder: Path, config: TrainConfig, stop_after: int | None = None) -> list[events.Event]:
    """A sitting in a run folder as the app makes one; it stops one step after the checkpoint of `stop_after`."""
    (folder / "control").mkdir(parents=True, exist_ok=True)
    (folder / "control" / "stop").unlink(missing_ok=True)
    config_io.save(config, folder / "config.toml")
    seen: list[events.Event] = []

    def emit(event: events.Event) -> None:
        seen.append(event)
        if isinstance(event, events.Checkpoint) and event.step == stop_after:
            (folder / "control" / "stop").touch()

    train(config, Folders(folder, folder / "cache"), emit)
    return seen


@pytest.fixture(scope="module")
def finished(tmp_path_factory, base, pictures) -> Path:
    """A run of four steps with checkpoints and samples at 2 and 4."""
    folder = tmp_path_factory.mktemp("finished")
    train_in(folder, config_of(base, pictures, preview={"every": 2}))
    return folder


@pytest.fixture
def done(finished, tmp_path) -> Path:
    """A copy of that run, to write in."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def averages_of(run: Path, step: int) -> dict:
    """The modules that the checkpoint's EMA stands for; its entries are numbered in the order of the layers."""
    folder = run / "checkpoints" / f"step_{step:06d}"
    saved, ema = checkpoint.load(folder), load_file(folder / "ema.safetensors")
    config = config_io.load(run / "config.toml")
    components = SD15.load(config.model, torch.float32)
    places = attach(components, SD15.spec, config.adapter, config.seed).layers
    keys = [f"{part}/{path}.{side}" for part, path in places for side in ("down", "up")]
    alphas = {f"{part}/{path}.alpha": saved.adapter[f"{part}/{path}.alpha"] for part, path in places}
    assert saved.adapter.keys() == {*keys, *alphas}
    return modules_of_state({key: ema[f"{i:05d}"] for i, key in enumerate(keys)} | alphas, config.adapter)


def test_the_newest_checkpoint_is_the_finished_file(done):
    file = done / "output" / "zib.v1.safetensors"
    before = read_adapter(file)
    said = export_run(done, None, "kohya", None)
    after = read_adapter(file)
    assert (said["adapter"], said["step"], said["warnings"]) == (str(file), 4, [])
    assert all(torch.equal(before.tensors[key], after.tensors[key]) for key in before.tensors)
    changed = {key for key in before.metadata if before.metadata[key] != after.metadata.get(key)}
    assert before.metadata.keys() == after.metadata.keys() and changed <= {"ss_training_finished_at", "modelspec.date"}


def test_a_file_that_says_nothing_of_its_run_is_known_by_its_numbers(done):
    config = config_io.load(done / "config.toml")
    config_io.save(config_io.merge(config, {"saving": {"privacy": "minimal"}}), done / "config.toml")
    assert export_run(done, "4", "kohya", None)["adapter"] == str(done / "output" / "zib.v1.safetensors")
    first = export_run(done, "2", "kohya", None)["adapter"]
    assert export_run(done, "2", "kohya", None)["adapter"] == first
    shutil.copy(done / "output" / "zib.v1.safetensors", first)
    with pytest.raises(UserError, match="is not known as the adapter of this checkpoint"):
        export_run(done, "2", "kohya", None)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", [2, 4])
def test_any_checkpoint_goes_into_any_layout_without_the_finished_file_base_and_pictures(done, pictures, form, step):
    shutil.rmtree(done / "output")
    config = config_io.load(done / "config.toml")
    gone = {"model": {"base": "/gone"}, "data": {"folders": ["/gone"]}}
    config_io.save(config_io.merge(config, gone), done / "config.toml")
    said = export_run(done, str(step), form, done / "there")
    name = "zib.v1" if step == 4 else "zib.v1-step00000002"
    name += {"kohya": "", "diffusers": "-diffusers", "peft": "-peft"}[form]
    ending = "" if form == "peft" else ".safetensors"
    assert said["adapter"] == str(done / "there" / f"{name}{ending}") and said["step"] == step
    assert sorted(file.name for file in (done / "there").iterdir()) == sorted(
        [f"{name}{ending}", f"{name}.json", f"{name}.png"]
    )
    files = list((done / "there").rglob("*.safetensors"))
    assert len(files) == (2 if form == "peft" else 1)
    for file in files:
        entries = read_adapter(file).metadata
        assert (entries["ss_steps"], entries["ss_max_train_steps"]) == (str(step), "4")
        assert (entries["ss_epoch"], entries["ss_num_epochs"]) == (str(-(-step // 3)), "2")
        assert entries["ss_output_name"] == entries["modelspec.title"] == name
        assert entries["sshs_model_hash"] == hashes.hash_of_file(file)
        assert entries["modelspec.hash_sha256"] == f"0x{entries['sshs_model_hash']}"
        assert len(entries["sshs_legacy_hash"]) == 8
        assert entries["modelspec.thumbnail"].startswith("data:image")
        assert json.loads(entries["ss_dataset_dirs"])[pictures.name]["img_count"] == 5
        assert json.loads(entries["ss_bucket_info"])["mean_img_ar_error"] > 0
    with Image.open(done / "there" / f"{name}.png") as cover:
        with Image.open(done / "samples" / f"step_{step:06d}_0.png") as sample:
            assert cover.tobytes() == sample.convert("RGB").tobytes()


@pytest.mark.parametrize("form", ["kohya", "diffusers"])
def test_diffusers_loads_the_averaged_weights_of_an_earlier_checkpoint(done, base, form):
    pipeline = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    pipeline.load_lora_weights(export_run(done, "2", form, None)["adapter"])
    theirs = {
        (part, path.removeprefix("text_model.")): layer
        for part, model in (("denoiser", pipeline.unet), ("text_0", pipeline.text_encoder))
        for path, layer in model.named_modules()
        if getattr(layer, "lora_A", None)
    }
    averages = averages_of(done, 2)
    assert len(theirs) == len(averages)
    same_delta(theirs, averages)


def test_peft_loads_the_averaged_weights_of_an_earlier_checkpoint(done, base):
    folder = Path(export_run(done, "2", "peft", None)["adapter"])
    unet = PeftModel.from_pretrained(UNet2DConditionModel.from_pretrained(base / "unet"), folder / "unet")
    text = PeftModel.from_pretrained(CLIPTextModel.from_pretrained(base / "text_encoder"), folder / "text_encoder")
    assert unet.load_adapter(folder / "unet", "again").unexpected_keys == []
    theirs = {
        (part, path): layer
        for part, model in (("denoiser", unet), ("text_0", text))
        for path, layer in model.base_model.model.named_modules()
        if getattr(layer, "lora_A", None)
    }
    same_delta(theirs, averages_of(done, 2))


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_checkpoint_of_every_adapter_type_goes_into_the_layouts_that_have_it(tmp_path, base, pictures, kind):
    adapter = {"type": kind, "alpha": 2.0, "conv_rank": 1, "rank_stabilised": True}
    preview = {"every": 1} if kind == "lokr" else {}
    seen = train_in(tmp_path, config_of(base, pictures, adapter=adapter, schedule={"steps": 2}, preview=preview))
    assert isinstance(seen[-1], events.Finished)
    finished = read_adapter(tmp_path / "output" / "zib.v1.safetensors")
    for form in ("kohya", "peft"):
        said = export_run(tmp_path, None, form, tmp_path / "there")
        assert "read back as trained" in said["verified"]
    again = read_adapter(tmp_path / "there" / "zib.v1.safetensors")
    assert all(torch.equal(again.tensors[key], finished.tensors[key]) for key in finished.tensors)
    if kind in ("loha", "lokr"):
        with pytest.raises(UserError, match="diffusers reads no Lo(Ha|Kr) adapters"):
            export_run(tmp_path, None, "diffusers", None)
        return
    pipeline = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    weights = {
        (part, path): layer.weight.detach().clone()
        for part, model in (("denoiser", pipeline.unet), ("text_0", pipeline.text_encoder))
        for path, layer in model.named_modules()
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))
    }
    pipeline.load_lora_weights(export_run(tmp_path, None, "diffusers", None)["adapter"])
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    places = lookup(weights)
    for name, module in finished.modules.items():
        part, path = places[name]
        model = pipeline.unet if part == "denoiser" else pipeline.text_encoder
        delta, base_weight = module.delta(weights[part, path]), weights[part, path]
        difference = model.get_submodule(path).weight.detach() - base_weight - delta
        assert difference.norm() <= 1e-3 * delta.norm() + 1e-6 * base_weight.norm(), name


def same_delta(theirs: dict, modules: dict) -> None:
    assert theirs.keys() == modules.keys()
    for place, module in modules.items():
        delta = theirs[place].get_delta_weight(next(iter(theirs[place].lora_A))).float()
        torch.testing.assert_close(delta, module.delta(), rtol=1e-4, atol=1e-3 * module.delta().abs().max().item())
        assert delta.abs().max() > 0


def test_layouts_and_checkpoints_lie_side_by_side_and_again_changes_nothing_else(done):
    for form, step in (*product(FORMS, ("2", None)), *product(FORMS, ["step_000004"])):
        assert export_run(done, step, form, None)["warnings"] == []
    files = {file.relative_to(done / "output").as_posix() for file in (done / "output").rglob("*.safetensors")}
    assert files == {
        f"zib.v1{middle}{end}"
        for middle in ("", "-step00000002")
        for end in (
            ".safetensors",
            "-diffusers.safetensors",
            "-peft/unet/adapter_model.safetensors",
            "-peft/text_encoder/adapter_model.safetensors",
        )
    }
    assert not [file for file in (done / "output").rglob("*") if "partial" in file.name]


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_another_run_is_never_replaced(done, tmp_path, form):
    there = tmp_path / "loras"
    first = Path(export_run(done, None, form, there)["adapter"])
    for folder in (done / "checkpoints").iterdir():
        facts = json.loads((folder / "facts.json").read_text("utf-8"))
        (folder / "facts.json").write_text(json.dumps(facts | {"session": "another"}), encoding="utf-8")
        sums.write(folder)
    kept = {file: file.read_bytes() for file in there.rglob("*") if file.is_file()}
    second = Path(export_run(done, None, form, there)["adapter"])
    assert second != first and "zib.v1-step00000004" in second.name
    assert all(file.read_bytes() == content for file, content in kept.items())
    for folder in (done / "checkpoints").iterdir():
        facts = json.loads((folder / "facts.json").read_text("utf-8"))
        (folder / "facts.json").write_text(json.dumps(facts | {"session": "a third"}), encoding="utf-8")
        sums.write(folder)
    with pytest.raises(UserError, match="not known as the adapter of this checkpoint"):
        export_run(done, None, form, there)


def test_a_persons_own_picture_of_that_name_is_left_alone(done, tmp_path):
    (tmp_path / "zib.v1.png").write_bytes(b"mine")
    said = export_run(done, None, "kohya", tmp_path)
    assert (tmp_path / "zib.v1.png").read_bytes() == b"mine"
    assert said["warnings"] == ["zib.v1.png was there before, and was left as it is."]


def test_a_checkpoint_without_a_later_sample_shows_the_sample_before_it(done):
    for file in (done / "samples").glob("step_000004*"):
        file.unlink()
    assert finish.cover(done, 4).name == finish.cover(done, 2).name == "step_000002_0.png"
    assert finish.cover(done, 1) is None  # the sample of step 0 shows the base alone


def test_a_cover_that_cannot_be_read_is_a_warning(done):
    (done / "samples" / "step_000002_0.png").write_bytes(b"no picture")
    assert "cover" in export_run(done, "2", "kohya", None)["warnings"][0]


@pytest.mark.parametrize("step", ["3", "abc", "-2", "²"])
def test_a_checkpoint_that_is_not_there_is_answered_with_those_that_are(done, step):
    with pytest.raises(UserError, match="no checkpoint of step") as error:
        export_run(done, step, "kohya", None)
    assert "2, 4" in error.value.hint


def test_a_run_without_a_checkpoint_or_a_layout_without_a_writer_is_one_sentence(done):
    with pytest.raises(UserError, match="no adapter layout 'onnx'"):
        export_run(done, None, "onnx", None)
    shutil.rmtree(done / "checkpoints")
    with pytest.raises(UserError, match="no checkpoint yet"):
        export_run(done, None, "kohya", None)


@pytest.mark.parametrize("harm", ["adapter.safetensors", "exported.safetensors", "facts.json", "no facts", "odd facts"])
def test_a_damaged_checkpoint_is_one_sentence_and_leaves_no_file(done, harm):
    folder = done / "checkpoints" / "step_000002"
    if harm == "no facts":
        (folder / "facts.json").unlink()
    elif harm == "odd facts":
        (folder / "facts.json").write_text("{}", encoding="utf-8")
    else:
        (folder / harm).write_bytes(b"x")
        (folder / "exported.safetensors").unlink() if harm.startswith("adapter") else None
    with pytest.raises(UserError, match="checkpoint"):
        export_run(done, "2", "kohya", done / "there")
    assert not (done / "there").exists()


def test_the_facts_of_a_run_come_back_from_a_checkpoint_as_they_were(done):
    packed = checkpoint.load_exported(done / "checkpoints" / "step_000002")[1]
    facts, spec = unpack(packed)
    assert pack(facts, spec) == packed and spec is SD15.spec
    assert facts.buckets and all(isinstance(size, tuple) for size in facts.buckets)


def test_a_stopped_and_resumed_run_ends_in_the_same_hash_as_an_uninterrupted_one(tmp_path, base, pictures):
    config = config_of(base, pictures, saving={"every": 1})
    train_in(tmp_path / "straight", config)
    first = train_in(tmp_path / "parted", config, stop_after=1)
    assert first[-1] == events.Stopped(2)
    assert isinstance(train_in(tmp_path / "parted", config)[-1], events.Finished)
    one, other = (read_adapter(tmp_path / run / "output" / "zib.v1.safetensors") for run in ("straight", "parted"))
    assert all(torch.equal(one.tensors[key], other.tensors[key]) for key in one.tensors)
    assert one.metadata["sshs_model_hash"] == other.metadata["sshs_model_hash"]
    assert one.metadata["modelspec.hash_sha256"] == other.metadata["modelspec.hash_sha256"]
    assert one.metadata.keys() == other.metadata.keys()
    assert {key for key in one.metadata if one.metadata[key] != other.metadata[key]} <= CLOCK | CHANCE


def test_a_schedule_free_run_is_exported_as_its_average_and_saving_does_not_move_it(tmp_path, base, pictures):
    pytest.importorskip("pytorch_optimizer")
    changes = {"optimizer": {"type": "schedulefree", "ema": False}, "schedule": {"warmup": 0.0}}
    for run, every in (("often", 1), ("once", 0)):
        train_in(tmp_path / run, config_of(base, pictures, saving={"every": every}, **changes))
    often, once = (tmp_path / run / "output" / "zib.v1.safetensors" for run in ("often", "once"))
    assert hashes.hash_of_file(often) == hashes.hash_of_file(once)
    said = export_run(tmp_path / "once", None, "kohya", tmp_path / "there")
    assert said["hash"] == hashes.hash_of_file(once)
    masters = checkpoint.load(tmp_path / "once" / "checkpoints" / "step_000004").adapter
    exported = checkpoint.load_exported(tmp_path / "once" / "checkpoints" / "step_000004")[0]
    assert any(not torch.equal(masters[key], exported[key]) for key in masters)


def test_doubts_about_the_file_are_warnings_of_the_run(tmp_path, base, pictures):
    config = config_of(base, pictures, optimizer={"rate": 1e-12}, saving={"dtype": "fp16"})
    seen = train_in(tmp_path, config)
    assert any(isinstance(event, events.Warned) and "Rounding to fp16" in event.message for event in seen)
    assert isinstance(seen[-1], events.Finished)


def test_a_base_in_one_file_is_hashed_once_for_all_exports(done, monkeypatch):
    base, asked = done / "base.safetensors", []
    base.write_bytes(b"x" * 100)
    for file in (done / "checkpoints").glob("*/facts.json"):
        facts = json.loads(file.read_text("utf-8"))
        assert facts["hash_cache"].endswith("hashes.json")
        known = {"base_path": str(base), "hash_cache": str(done / "cache" / "hashes.json")}
        file.write_text(json.dumps(facts | known), encoding="utf-8")
        sums.write(file.parent)
    monkeypatch.setattr(hashes, "_hash", lambda path: asked.append(path) or ("12345678", "ab" * 32))
    for step in ("2", "4"):
        entries = read_adapter(Path(export_run(done, step, "kohya", None)["adapter"])).metadata
        assert (entries["ss_sd_model_hash"], entries["ss_new_sd_model_hash"]) == ("12345678", "ab" * 32)
    assert asked == [base]
