"""How long a run takes follows from how often it does what, and from the seconds of each."""

from dataclasses import replace

import pytest

from tests.tiny import tiny_pipeline_folder
from trainers import config_io, memory
from trainers.bench.start import draw_pictures
from trainers.bench.whole import compare, configured
from trainers.data.batches import Batches
from trainers.data.examples import scan
from trainers.data.types import Bucket, Crop
from trainers.duration import duration, work
from trainers.encoding import SOON
from trainers.export import hashes
from trainers.families.registry import find_family
from trainers.pace import Pace, Stopwatch, pace
from trainers.validate import LEVELS

BUCKET = Bucket(32, 32)
ONE = Pace(step=1.0, alone=1.0, denoised=1.0, encoded=1.0, decoded=1.0, told=1.0, trained=1.0, saved=1.0, ready=1.0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "pictures"
    draw_pictures(folder, 4, 32)
    return folder


def configured_as(pictures, **sections):
    return config_io.merge(config_io.parse({"data": {"folders": [str(pictures)]}}), sections)


def work_of(config, held_out=0, done=0):
    examples, crops = scan(config.data).examples, [Crop(BUCKET, (32, 32), 0, 0, 0.0)] * 4
    batches = Batches(crops, [1] * 4, config.data.batch_size, config.seed)
    return work(config, examples, crops, batches, held_out, 32, done)


def test_previews_and_checkpoints_are_counted_as_the_loop_makes_them(pictures):
    config = configured_as(pictures, schedule={"steps": 70}, preview={"every": 30}, saving={"every": 30})
    found = work_of(config)
    assert (found.steps, found.previews, found.prompts) == (70, 4, 4)  # the base's, after 30, 60 and 70 steps
    assert found.saves == 4  # after 30, 60 and 70 steps, and the adapter file
    assert found.captions == 4 + 1 + 4  # of the pictures, the empty one, of the prompts


@pytest.mark.parametrize(("every", "recorded"), [(30, 3), (0, 1)])  # at first, and after 30 and 60 steps
def test_passes_are_recorded_again_after_each_preview_but_the_last(pictures, every, recorded):
    config = configured_as(pictures, schedule={"steps": 70}, preview={"every": every})
    todo = work_of(config)
    more = duration(todo, replace(ONE, anew=5.0), config, 0.0).steps - duration(todo, ONE, config, 0.0).steps
    assert more == 5 * recorded


@pytest.mark.parametrize(("preservation", "recorded"), [(0.0, 4), (1.0, 8)])
def test_every_shape_of_batch_is_recorded_after_each_preview(pictures, preservation, recorded):
    config = configured_as(pictures, schedule={"steps": 80}, preview={"every": 40}, loss={"preservation": preservation})
    crops = [Crop(bucket, (32, 32), 0, 0, 0.0) for bucket in (BUCKET, BUCKET, BUCKET, Bucket(48, 32))]
    batches = Batches(crops, [1, 1, 1, 3], 3, config.seed)
    assert batches.kinds(1) == 1 and batches.kinds(2) == pytest.approx(1.5) and batches.kinds(40) == pytest.approx(2)
    assert work(config, scan(config.data).examples, crops, batches, 0, 32).recorded == pytest.approx(recorded)


def test_a_run_without_previews_and_checkpoints_ends_with_its_file(pictures):
    config = configured_as(pictures, schedule={"steps": 70}, preview={"every": 0}, saving={"every": 0})
    found = work_of(config)
    assert (found.previews, found.prompts, found.saves) == (0, 0, 2)


def test_mirrored_pictures_are_encoded_twice_and_held_out_ones_measured(pictures):
    config = configured_as(pictures, data={"flip": True})
    found = work_of(config, 1)
    assert found.encoded == 8
    assert found.measured == 2 and found.validations == found.previews - 1 > 0


def test_smaller_last_batches_make_shorter_steps(pictures):
    config = configured_as(pictures, data={"batch_size": 3}, schedule={"steps": 60})
    todo = work_of(config)
    assert todo.pictures == 2  # of 32 x 32 pixels: 3 and 1 of the 4 pictures
    uneven = replace(ONE, step=5.0)
    assert duration(todo, uneven, config, read=0.0).steps == 60 * 3
    small = replace(todo, pictures=0.5)
    assert duration(small, ONE, configured_as(pictures, data={"batch_size": 1}), read=0.0).steps == 30


def test_every_part_has_its_seconds(pictures):
    config = configured_as(
        pictures,
        loss={"preservation": 1.0},
        data={"class_words": ["a cat"], "class_pictures": 6},
        preview={"every": 30, "sampling_steps": 10},
        schedule={"steps": 60},
        saving={"every": 0},
    )
    todo = work_of(config)
    found = duration(todo, ONE, config, read=3.0)
    assert found.steps == 60
    assert found.class_pictures == 6 * 10
    assert found.previews == 3 * 4 * (10 + 1)
    assert found.preparing == 3 + 1 + 4 + todo.captions
    assert found.rest == 2  # the checkpoint at the end, and the file
    assert found.whole == sum(vars(found).values())


def test_pictures_that_no_step_shows_take_no_time_where_they_are_encoded_late(pictures):
    config = configured_as(pictures, schedule={"steps": 5}, data={"batch_size": 1}, preview={"every": 0})
    todo = replace(work_of(config), encoded=1000)
    assert todo.shown == 5
    late, before = (duration(todo, ONE, config, 0.0, late=late).preparing for late in (True, False))
    assert (late, before) == (1 + todo.captions + SOON + 5, 1 + todo.captions + 1000)
    few = replace(todo, encoded=2)
    assert duration(few, ONE, config, 0.0, late=True) == duration(few, ONE, config, 0.0)


def test_class_pictures_and_validations_are_of_the_training_resolution_whatever_the_previews_are(pictures):
    classes = {"class_words": ["a cat"], "class_pictures": 6, "validation_share": 0.25}
    preview = {"every": 30, "sampling_steps": 10, "width": 16, "height": 32}
    config = configured_as(pictures, loss={"preservation": 1.0}, data=classes, preview=preview)
    todo = work_of(config, 1)
    found, usual = (duration(todo, replace(ONE, trained=seconds), config, read=0.0) for seconds in (3.0, 1.0))
    assert (found.class_pictures, usual.class_pictures) == (6 * 10 * 3, 6 * 10) and found.previews == usual.previews
    assert found.rest - usual.rest == pytest.approx(todo.validations * todo.measured * LEVELS * (3 - 1) / 2)


@pytest.mark.parametrize(("width", "others"), [(16, 1), (32, 0)])
def test_a_picture_of_the_training_resolution_is_timed_where_previews_have_another(
    monkeypatch, pictures, width, others
):
    base = tiny_pipeline_folder(pictures.parent / f"base{width}")
    preview = {"every": 30, "width": width, "height": 32}
    config = configured_as(pictures, model={"base": str(base)}, data={"resolution": 32}, preview=preview)
    plan, family, seen = memory.plan(config.memory), find_family(config.model), []
    components = family.load(config.model, plan.dtype)
    monkeypatch.setattr(
        "trainers.preview.draw", lambda family, components, noise, *_: seen.append(noise.shape) or noise
    )
    pace(family, components, config, plan)
    factor = components.latent.factor
    sizes = {(height * factor, width * factor) for *_, height, width in seen}
    assert sizes == {(32, width), *[(32, 32)] * others}


def test_small_pictures_are_encoded_in_less_time(pictures):
    config = configured_as(pictures, data={"no_upscale": True})
    large = Crop(Bucket(64, 64), (64, 64), 0, 0, 0.0)  # held out, and encoded all the same
    crops = [Crop(BUCKET, (32, 32), 0, 0, 0.0)] * 3
    todo = work(config, scan(config.data).examples, [*crops, large], Batches(crops, [1] * 3, 1, 1), 1, 64)
    assert todo.pixels == (3 / 4 + 1) / 4
    assert duration(todo, ONE, config, 0.0).preparing == 1 + (3 / 4 + 1) + todo.captions


def test_what_takes_longer_the_first_time_is_counted_once():
    spent = iter([4.0, 1.0, 2.0, 3.0, 0.5, 1.0, 1.0, 1.0, 50.0])
    now = 0.0

    def act() -> None:
        nonlocal now
        now += next(spent)

    stopwatch = Stopwatch(lambda: now)
    assert stopwatch.median(act) == 2 and stopwatch.first == 4 - 2
    assert stopwatch.median(act) == 1 and stopwatch.first == 4 - 2  # a first time that took less saves nothing
    assert stopwatch.median(act, enough=5.0) == 50 and next(spent, None) is None  # what takes so long is tried once


def test_the_hash_of_the_base_takes_its_time_once(tmp_path, monkeypatch, pictures):
    base, cache, ticks = tmp_path / "base.safetensors", tmp_path / "hashes.json", iter(range(1 << 30))
    base.write_bytes(bytes(5 * 1000))
    monkeypatch.setattr(hashes, "PIECE", 1000)
    clock = lambda: float(next(ticks))  # noqa: E731
    assert hashes.hashing_seconds(base, cache, clock) == 5
    hashes.base_hashes(base, cache)
    assert hashes.hashing_seconds(base, cache, clock) == 0 == hashes.hashing_seconds(tmp_path, cache, clock)
    todo, config = work_of(configured_as(pictures)), configured_as(pictures)
    with_it, without = (duration(todo, ONE, config, 0.0, hashed=seconds) for seconds in (5.0, 0.0))
    assert with_it.rest - without.rest == 5 == with_it.whole - without.whole


def test_check_and_run_are_compared(tmp_path, pictures):
    base = tiny_pipeline_folder(tmp_path / "base")
    small = ("schedule.steps=30", "preview.every=30", "preview.sampling_steps=2", "data.batch_size=2")
    (tmp_path / "run").mkdir()
    ticks = iter(range(1 << 30))
    found = compare(configured(str(base), pictures, small), tmp_path, lambda: float(next(ticks)), "tiny")
    assert found.step[0] == 1  # each question to this clock takes a second
    assert found.parts["steps"] == 30 and found.parts["whole"] > 30
    assert {"Training", "Making preview pictures", "Writing the adapter"} <= found.real_parts.keys()


@pytest.mark.parametrize(
    ("done", "previews", "saves", "recorded"),
    [(0, 4, 4, 3), (20, 3, 4, 3), (30, 2, 3, 2), (69, 1, 2, 1), (70, 0, 1, 0)],
)
def test_what_is_left_of_a_run_is_counted_from_where_it_goes_on(pictures, done, previews, saves, recorded):
    config = configured_as(pictures, schedule={"steps": 70}, preview={"every": 30}, saving={"every": 30})
    found = work_of(config, done=done)
    assert (found.steps, found.previews, found.saves, found.recorded) == (70 - done, previews, saves, recorded)
    assert found.shown == (70 - done) * found.pictures
