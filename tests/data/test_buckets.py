"""Buckets: kohya's lists and choices, and what our plan adds."""

import math
from pathlib import Path

import pytest

from trainers.config import DataConfig
from trainers.data.buckets import bucket_list, choose, crop_for, no_upscale_bucket, plan, report
from trainers.data.types import Bucket, Example
from trainers.errors import UserError


def example(width: int, height: int) -> Example:
    return Example(Path("cats/07.png"), "a cat", (width, height), "0" * 64)


@pytest.mark.parametrize(
    ("side", "smallest", "largest", "count"),
    [(512, 256, 1024, 17), (768, 256, 1024, 19), (768, 256, 2048, 41), (1024, 256, 1024, 25), (1024, 256, 2048, 41),
     (1024, 512, 2048, 33)],
)  # fmt: skip
def test_bucket_lists_are_as_long_as_kohyas(side, smallest, largest, count):
    assert len(bucket_list(side * side, smallest, largest, 64)) == count


def test_the_standard_list_of_sd15_is_kohyas():
    sizes = [(b.width, b.height) for b in bucket_list(512 * 512, 256, 1024, 64)]
    half = [(256, 832), (256, 896), (256, 960), (256, 1024), (320, 704), (320, 768), (384, 640), (448, 576)]
    assert sizes == sorted([*half, (512, 512), *((h, w) for w, h in half)])


@pytest.mark.parametrize(("side", "step"), [(512, 64), (64, 16), (100, 16), (1000, 32)])
def test_every_bucket_is_a_multiple_of_the_step_and_within_the_area(side, step):
    for bucket in bucket_list(side * side, side // 2 // step * step, side * 2 // step * step, step):
        assert bucket.width % step == bucket.height % step == 0
        assert bucket.width * bucket.height <= side * side


def test_a_picture_of_a_buckets_size_takes_it_and_loses_nothing():
    buckets = bucket_list(512 * 512, 256, 1024, 64)
    for bucket in buckets:
        size = (bucket.width, bucket.height)
        assert choose(size, buckets) == bucket
        crop = crop_for(size, bucket)
        assert (crop.scaled, crop.left, crop.top, crop.lost) == (size, 0, 0, 0)


def test_other_pictures_take_the_nearest_shape():
    buckets = bucket_list(512 * 512, 256, 1024, 64)
    assert choose((4000, 3000), buckets) == Bucket(576, 448)  # 1.286 is nearer to 1.333 than 640 / 384 = 1.667
    assert choose((500, 505), buckets) == Bucket(512, 512)


def test_the_first_of_equally_near_buckets_wins():
    assert choose((3, 2), [Bucket(64, 64), Bucket(128, 64)]) == Bucket(64, 64)


@pytest.mark.parametrize("size", [(4000, 3000), (3000, 4000), (20_000, 300), (17, 9000), (33, 33), (641, 359)])
def test_the_scaled_picture_covers_its_bucket_and_the_crop_is_central(size):
    for crop in (plan([example(*size)], DataConfig(), 512, 64)[0], plan([example(*size)], DataConfig(), 64, 16)[0]):
        (width, height), bucket = crop.scaled, crop.bucket
        assert width >= bucket.width and height >= bucket.height
        assert width == bucket.width or height == bucket.height
        assert (crop.left, crop.top) == ((width - bucket.width) // 2, (height - bucket.height) // 2)
        assert crop.lost == pytest.approx(1 - bucket.width * bucket.height / (width * height))


@pytest.mark.parametrize(
    ("size", "bucket", "scaled"),
    [
        ((300, 200), (256, 192), (300, 200)),  # small: kept as it is, floored to the step
        ((1024, 1024), (512, 512), (512, 512)),
        ((1920, 1080), (640, 384), (683, 384)),  # ideal 682.7 x 384: 640/384 is nearer to 16/9 than 640/320
        ((1500, 1000), (576, 384), (576, 384)),  # both candidates are exact
        ((1080, 1920), (384, 640), (384, 683)),
    ],
)
def test_no_upscale_follows_kohyas_rule(size, bucket, scaled):
    found, resized = no_upscale_bucket(size, 512 * 512, 64)
    assert ((found.width, found.height), resized) == (bucket, scaled) == _kohya_by_the_book(size, 512 * 512, 64)


@pytest.mark.parametrize("step", [16, 32, 64])
def test_no_upscale_agrees_with_the_rule_as_it_is_worded_for_many_sizes(step):
    for width in range(200, 3000, 171):
        for height in range(200, 3000, 173):
            found, resized = no_upscale_bucket((width, height), 512 * 512, step)
            expected = _kohya_by_the_book((width, height), 512 * 512, step)
            assert ((found.width, found.height), resized) == expected


def _kohya_by_the_book(size, area, step):
    """The rule as the format description words it, with real numbers."""
    ratio = size[0] / size[1]
    if size[0] * size[1] > area:
        down = lambda x: int(x + 0.5) - int(x + 0.5) % step  # noqa: E731
        width = down(math.sqrt(area * ratio))
        height = down(area / math.sqrt(area * ratio))
        by_width, by_height = (width, down(width / ratio)), (down(height * ratio), height)
        if abs(by_width[0] / by_width[1] - ratio) < abs(by_height[0] / by_height[1] - ratio):
            size = (width, int(width / ratio + 0.5))
        else:
            size = (int(height * ratio + 0.5), height)
    return (size[0] - size[0] % step, size[1] - size[1] % step), size


@pytest.mark.parametrize("size", [(20_000, 300), (300, 20_000), (10, 10), (16_000, 16), (5, 4000)])
def test_no_upscale_copes_with_shapes_that_kohya_divides_by_zero_on(size):
    bucket, (width, height) = no_upscale_bucket(size, 512 * 512, 64)
    assert bucket.width % 64 == bucket.height % 64 == 0 and min(bucket.width, bucket.height) >= 64
    assert bucket.width * bucket.height <= 512 * 512
    assert width >= bucket.width and height >= bucket.height


@pytest.mark.parametrize("no_upscale", [True, False])
@pytest.mark.parametrize("size", [(8000, 600), (600, 8000), (20_000, 300), (1000, 1000), (4200, 250)])
def test_no_side_is_longer_than_a_base_allows(size, no_upscale):
    config = DataConfig(no_upscale=no_upscale, bucket_max=4096)
    (free,), (bound,) = (plan([example(*size)], config, 1024, 16, most) for most in (None, 3072))
    assert max(bound.bucket.width, bound.bucket.height) <= 3072
    assert bound.bucket.width % 64 == bound.bucket.height % 64 == 0
    assert bound.scaled[0] >= bound.bucket.width and bound.scaled[1] >= bound.bucket.height
    if max(free.bucket.width, free.bucket.height) <= 3072:
        assert bound == free
    with pytest.raises(UserError, match="Resolution 3136 is too large for this base"):
        plan([example(*size)], config, 3136, 16, 3072)


def test_small_bases_get_small_steps_and_large_ones_64():
    sizes = {c.bucket for c in plan([example(80, 48), example(64, 64)], DataConfig(), 64, 16)}
    assert sizes == {Bucket(80, 48), Bucket(64, 64)}
    assert plan([example(1000, 700)], DataConfig(), 512, 8)[0].bucket == Bucket(576, 448)


def test_without_bucketing_everything_is_a_square():
    crops = plan([example(4000, 3000), example(30, 90)], DataConfig(bucketing=False), 500, 64)
    assert {c.bucket for c in crops} == {Bucket(448, 448)}


@pytest.mark.parametrize(
    ("config", "resolution", "named"),
    [
        (DataConfig(), 32, "Resolution 32"),
        (DataConfig(bucket_step=32), 512, "Bucket step 32"),
        (DataConfig(bucket_step=512), 256, "Bucket step 512"),
        (DataConfig(bucket_min=1024, bucket_max=512), 512, "1024"),
    ],
)
def test_settings_that_no_bucket_can_meet_are_named(config, resolution, named):
    with pytest.raises(UserError, match=named) as raised:
        plan([example(640, 480)], config, resolution, 64)
    assert raised.value.hint


def test_the_report_says_bucket_and_share_cropped():
    picture = example(4000, 3000)
    assert (
        report(picture, plan([picture], DataConfig(), 512, 64)[0]) == "cats/07.png  4000x3000 -> 576x448, 4 % cropped"
    )
    small = example(256, 256)
    assert report(small, plan([small], DataConfig(), 512, 64)[0]).endswith("0 % cropped, enlarged 2.0 times")
