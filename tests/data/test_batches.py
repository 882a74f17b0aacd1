"""Batches and the held-out split: pure functions of seed, epoch and step."""

from collections import Counter
from pathlib import Path

import pytest

from trainers import config_io
from trainers.data.batches import Batches, split_validation
from trainers.data.types import Bucket, Crop, Example

SHAPES = [Bucket(64, 64)] * 7 + [Bucket(80, 48)] * 4 + [Bucket(48, 80)]
CROPS = [Crop(bucket, (bucket.width, bucket.height), 0, 0, 0.0) for bucket in SHAPES]
REPEATS = [1, 2, 3, 1, 1, 1, 1, 2, 2, 1, 1, 5]


def examples(contents: list[int]) -> list[Example]:
    return [Example(Path(f"{i}.png"), "", (64, 64), f"{content:064d}") for i, content in enumerate(contents)]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_an_epoch_shows_every_picture_as_often_as_its_repeats(size):
    batches = Batches(CROPS, REPEATS, size, seed=1)
    for epoch in (0, 1, 7):
        order = batches.epoch(epoch)
        assert len(order) == batches.per_epoch
        assert Counter(i for batch in order for i in batch) == dict(enumerate(REPEATS))


@pytest.mark.parametrize("size", [2, 3, 100])
def test_no_batch_mixes_buckets_and_one_per_bucket_may_be_smaller(size):
    order = Batches(CROPS, REPEATS, size, seed=1).epoch(0)
    smaller = Counter()
    for batch in order:
        buckets = {SHAPES[i] for i in batch}
        assert len(buckets) == 1
        smaller[buckets.pop()] += len(batch) < size
    assert max(smaller.values()) <= 1


def test_a_resumed_run_gets_the_batches_of_an_uninterrupted_one():
    whole = Batches(CROPS, REPEATS, 2, seed=5)
    straight = [whole.batch(step) for step in range(3 * whole.per_epoch)]
    for start in (0, 1, whole.per_epoch - 1, whole.per_epoch, 2 * whole.per_epoch + 3):
        resumed = Batches(CROPS, REPEATS, 2, seed=5)
        assert [resumed.batch(step) for step in range(start, len(straight))] == straight[start:]


def test_position_counts_epochs():
    batches = Batches(CROPS, REPEATS, 2, seed=5)
    assert batches.position(0) == (0, 0)
    assert batches.position(batches.per_epoch) == (1, 0)
    assert batches.batch(batches.per_epoch + 2) == batches.epoch(1)[2]


def test_epochs_and_seeds_differ_in_order():
    batches = Batches(CROPS, REPEATS, 2, seed=5)
    assert batches.epoch(0) != batches.epoch(1)
    assert batches.epoch(0) != Batches(CROPS, REPEATS, 2, seed=6).epoch(0)


def test_the_order_is_the_same_on_every_machine():
    assert Batches(CROPS[:5], [1] * 5, 2, seed=1).epoch(0) == [(3,), (2, 1), (0, 4)]


@pytest.mark.parametrize(
    ("count", "share", "held_out"), [(7, 0.5, 0), (8, 0.1, 2), (20, 0.1, 2), (50, 0.1, 5), (50, 0, 0)]
)
def test_the_held_out_share_is_two_or_more_and_none_below_eight(count, share, held_out):
    train, validation = split_validation(examples(list(range(count))), share, seed=1)
    assert len(validation) == held_out
    assert sorted(train + validation) == list(range(count)) and train == sorted(train)


def test_copies_of_a_picture_never_straddle_the_split():
    contents = [i % 10 for i in range(30)]
    for seed in range(20):
        train, validation = split_validation(examples(contents), 0.3, seed)
        assert train and validation
        assert not {contents[i] for i in train} & {contents[i] for i in validation}


def test_eight_files_of_four_pictures_are_too_few_to_hold_out():
    assert split_validation(examples([0, 1, 2, 3] * 2), 0.5, 1) == (list(range(8)), [])


def test_something_is_always_left_to_train():
    train, validation = split_validation(examples(list(range(8))), 0.99, 1)
    assert len(train) == 1 and len(validation) == 7


def test_the_split_goes_by_content_and_not_by_order():
    contents = list(range(30))
    chosen = {contents[i] for i in split_validation(examples(contents), 0.2, 3)[1]}
    turned = contents[::-1]
    assert {turned[i] for i in split_validation(examples(turned), 0.2, 3)[1]} == chosen


def test_the_largest_batch_is_counted_and_batches_that_stay_small_are_told_with_the_pictures_that_are_shown():
    config = config_io.parse({"data": {"batch_size": 16}, "schedule": {"views": 1600}})
    batches = Batches(CROPS, [1] * len(CROPS), 16, seed=1)  # of 7, 4 and 1 pictures
    counted = batches.counted(config, 512, CROPS)
    assert counted.data.batch_size == 7 and counted.total_steps != config.total_steps
    assert counted.data.resolution == config.data.resolution  # all buckets have its area
    message, hint = batches.unfilled(config)
    shown = sum(len(batches.batch(step)) for step in range(config.total_steps // 3 * 3))  # whole epochs of three
    assert "holds 4.0 of them on average and not 16" in message and "shows 400 pictures and not 1,600" in message
    assert shown == pytest.approx(400, abs=4) and hint == "Lower data.batch_size, or set schedule.views to 6400."
    enough = config_io.merge(config, {"schedule": {"views": 6400}})
    assert round(4.0 * enough.total_steps) == 1600
    assert message.startswith("Only pictures of one shape share a batch")
    assert Batches(CROPS[:1], [1], 16, seed=1).unfilled(config)[0].startswith("The pictures do not fill every batch")
    by_steps = config_io.merge(config, {"schedule": {"steps": 10}})
    assert batches.unfilled(by_steps)[1].endswith("schedule.steps to 40.")
    assert batches.sized(1).unfilled(config_io.merge(config, {"data": {"batch_size": 1}})) is None


def test_pictures_that_stay_small_are_counted_as_large_as_they_are_and_previews_as_before():
    small = [Crop(Bucket(96, 128), (96, 128), 0, 0, 0.0), Crop(Bucket(64, 64), (64, 64), 0, 0, 0.0)]
    config = config_io.parse({"data": {"no_upscale": True}, "preview": {"height": 768}})
    batches = Batches(small, [1, 1], 1, seed=1)
    counted = batches.counted(config, 512, small)
    assert counted.data.resolution == 112  # the next whole side after the root of 96 x 128
    assert (counted.preview.width, counted.preview.height) == (512, 768)
    assert (
        batches.counted(config, 64, small).data.resolution == config.data.resolution
    )  # never more than the training's
    held_out = Crop(Bucket(256, 256), (256, 256), 0, 0, 0.0)  # is encoded and measured
    assert batches.counted(config, 512, [*small, held_out]).data.resolution == 256
    classes = {"data": {"class_words": ["a cat"], "class_pictures": 4}, "loss": {"preservation": 1.0}}
    assert batches.counted(config_io.merge(config, classes), 512, small).data.resolution == config.data.resolution
