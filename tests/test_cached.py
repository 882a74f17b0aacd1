"""What lies in the cache takes a run no time, and `check` says so."""

import json
import shutil

import pytest
import torch
from PIL import Image

from tests.tiny import tiny_pipeline_folder
from trainers import config_io
from trainers.cached import NOTHING, Cached
from trainers.check import check
from trainers.duration import Work, duration
from trainers.errors import UserError
from trainers.families.registry import find_family
from trainers.memory.kept import keep_saving
from trainers.memory.saving import Saving
from trainers.memory.units import blocks
from trainers.pace import Pace
from trainers.train import Folders, train


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cached")
    pictures = folder / "pictures"
    pictures.mkdir()
    for i in range(3):
        Image.new("RGB", (16, 16), (90 * i, 20, 200)).save(pictures / f"{i}.png")
        (pictures / f"{i}.txt").write_text(f"a cat {i}", encoding="utf-8")
    return config_io.parse(
        {
            "model": {"base": str(tiny_pipeline_folder(folder / "base"))},
            "adapter": {"rank": 2},
            "data": {
                "folders": [str(pictures)],
                "resolution": 16,
                "flip": True,
                "class_words": ["cat"],
                "class_pictures": 2,
            },
            "loss": {"preservation": 1.0},
            "preview": {"every": 1, "sampling_steps": 2},
            "schedule": {"steps": 1},
        }
    )


@pytest.fixture(scope="module")
def cache(config, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    train(config, Folders(run, run / "cache"), lambda event: None)
    return run / "cache"


def test_of_a_run_that_has_begun_the_rest_is_told(config, cache):
    longer = config_io.override(config, ["schedule.steps=4", "preview.every=2"])
    left = check(longer, lambda text: None, cache=cache, run=cache.parent)
    assert (left["steps"], left["steps_done"]) == (4, 1)
    assert " What is left after step 1 takes about " in left["verdict"] and ": 3 steps take " in left["verdict"]
    anew = check(longer, lambda text: None, cache=cache)
    assert anew["steps_done"] == 0 and " The run takes about " in anew["verdict"]
    finished = check(config, lambda text: None, cache=cache, run=cache.parent)
    assert finished["verdict"].endswith(" All of its steps are done.")


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_counts(config, cache, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(cache.parent / "checkpoints", run / "checkpoints")
    whole = run / "checkpoints" / "step_000001"
    later = shutil.copytree(whole, whole.with_name("step_000002"))
    (later / "adapter.safetensors").write_bytes(b"no longer what was written")
    longer = config_io.override(config, ["schedule.steps=4"])
    found = check(longer, lambda text: None, cache=cache, run=run)
    assert found["steps_done"] == 1 and later.is_dir()
    assert found["problems"][0].startswith("The checkpoint step_000002 is damaged (adapter.safetensors")
    card = check(longer, lambda text: None, "RTX 3060 12GB", cache, run=run)["verdict"]
    assert "What is left after step 1: 3 steps take " in card


def test_a_run_without_a_whole_checkpoint_is_refused_as_training_does(config, cache, tmp_path):
    shutil.copytree(cache.parent / "checkpoints", tmp_path / "checkpoints")
    for file in (tmp_path / "checkpoints").glob("*/optimizer.pt"):
        file.write_bytes(b"no longer what was written")
    with pytest.raises(UserError, match="No checkpoint in .* is whole") as told:
        check(config, lambda text: None, cache=cache, run=tmp_path)
    assert told.value.hint == "Delete the folder checkpoints, and the run begins anew."


def test_previews_that_will_be_drawn_first_when_a_run_goes_on_take_their_time(config, cache, tmp_path):
    shutil.copytree(cache.parent / "checkpoints", tmp_path / "checkpoints")
    shutil.copytree(cache.parent / "samples", tmp_path / "samples")
    longer = config_io.override(config, ["schedule.steps=3"])
    given = []

    def counting(todo, *rest):
        given.append(todo.previews)
        return duration(todo, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainers.check.duration", counting)
        check(longer, lambda text: None, cache=cache, run=tmp_path)
        next((tmp_path / "samples").glob("step_000001_*.png")).unlink()
        check(longer, lambda text: None, cache=cache, run=tmp_path)
    assert given == [2, 3]


def test_a_run_that_has_done_more_than_its_steps_is_refused_as_training_does(config, cache, tmp_path):
    shutil.copytree(cache.parent / "checkpoints" / "step_000001", tmp_path / "checkpoints" / "step_000003")
    with pytest.raises(UserError, match="This run has already done 3 steps, more than its 1"):
        check(config, lambda text: None, cache=cache, run=tmp_path)


def test_a_run_is_judged_by_the_way_in_which_it_saves_memory(config, cache, tmp_path):
    shutil.copytree(cache.parent / "checkpoints", tmp_path / "checkpoints")
    longer = config_io.override(config, ["schedule.steps=4"])
    denoiser = find_family(config.model).load(config.model, torch.float32).denoiser
    keep_saving(tmp_path, longer, Saving(blocks(denoiser)))
    found, new = (check(longer, lambda text: None, cache=cache, run=run) for run in (tmp_path, None))
    assert f"{len(blocks(denoiser))} parts of the denoiser are computed twice" in found["saving"]
    assert ", as before, at " in found["saving"] and new["saving"] == ""


def test_a_run_that_went_on_otherwise_is_judged_by_how_it_goes_on(config, cache, tmp_path):
    kept = {"memory.checkpointing": [str(config.memory.checkpointing), "all"]}
    (tmp_path / "instead.json").write_text(json.dumps(kept), encoding="utf-8")
    found = check(config, lambda text: None, cache=cache, run=tmp_path)
    assert any(remark.startswith("The run goes on with memory.checkpointing=all.") for remark in found["remarks"])


def found(monkeypatch, config, cache) -> tuple[Work, Cached]:
    """What `check` counts, and what of it the cache has."""
    heard = []

    def heard_by(work: Work, pace: Pace, config: object, read: float, cached: Cached, *more: float) -> object:
        heard.append((work, cached))
        return duration(work, pace, config, read, cached, *more)

    monkeypatch.setattr("trainers.check.duration", heard_by)
    assert check(config, lambda text: None, cache=cache)["pictures"]["encoded_before"] == (
        heard[0][1].pictures // (1 + config.data.flip)  # a mirrored picture is no picture of its own
    )
    return heard[0]


def test_all_that_a_run_has_prepared_is_found_by_the_next_one(monkeypatch, config, cache):
    work, cached = found(monkeypatch, config, cache)
    assert cached == Cached(pictures=work.encoded, captions=work.captions, class_pictures=True)
    assert work.encoded == 6


def test_an_empty_cache_has_nothing(monkeypatch, config, tmp_path):
    assert found(monkeypatch, config, tmp_path)[1] == NOTHING


@pytest.mark.parametrize(
    ("change", "still"),
    [
        ({"data": {"resolution": 32}}, (0, True, False)),
        ({"data": {"flip": False}}, (3, True, True)),
        ({"preview": {"sampling_steps": 3}}, (6, True, False)),
        ({"model": {"clip_skip": 2}}, (6, False, False)),
        ({"adapter": {"new_tokens": 2}, "data": {"trigger": "cat"}}, (6, False, False)),
        ({"memory": {"cache_latents": False}}, (0, False, False)),
        ({"memory": {"quantize": "int8"}}, (6, True, False)),
    ],
    ids=str,
)
def test_what_changed_settings_need_anew_is_not_found(monkeypatch, config, cache, change, still):
    work, cached = found(monkeypatch, config_io.merge(config, change), cache)
    assert (cached.pictures, cached.captions == work.captions, cached.class_pictures) == still
    assert cached.captions in (0, work.captions)


def test_what_is_there_takes_no_time(config):
    work = Work(
        1, 1.0, encoded=6, captions=5, prompts=4, previews=2, recorded=1, measured=0, validations=0, saves=2, pixels=1.0
    )
    one = Pace(step=1.0, alone=1.0, denoised=1.0, encoded=10.0, decoded=1.0, told=1.0, trained=1.0)
    anew, again = (duration(work, one, config, 0.0, cached) for cached in (NOTHING, Cached(4, 5, class_pictures=True)))
    assert anew.preparing == 6 * 10 + 5 and again.preparing == 2 * 10
    assert anew.class_pictures == 2 * 2 and again.class_pictures == 0
    assert again.whole == anew.whole - 4 * 10 - 5 - 4
