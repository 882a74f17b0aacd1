"""Aspect-ratio buckets: which size a picture is trained at, and what of it is cut away.

The list, the choice and the no-upscale rule are those of kohya's sd-scripts, so that a data set moves over unchanged.
Sizes are (width, height) in pixels; an area is in square pixels; `step` divides both sides of every bucket.
"""

import math
from collections.abc import Sequence

from trainers.config import DataConfig
from trainers.data.types import Bucket, Crop, Example, shown
from trainers.errors import UserError

Size = tuple[int, int]


def plan(
    examples: Sequence[Example], config: DataConfig, resolution: int, multiple: int, most: int | None = None
) -> list[Crop]:
    """One Crop per example, in order.

    Args:
        resolution: side of the square whose area every bucket has (the config's, or the base's own).
        multiple: what the sides of a picture must be divisible by for this base: the VAE's factor times the
            denoiser's; 64 for SD 1.5.
        most: how long a side may be for this base, whatever the settings say; None: any length.

    Raises:
        UserError: for a resolution, step, smallest or largest side that this base or the other settings rule out.
    """
    step, smallest, largest = sides(config, resolution, multiple, most)
    require_resolution(resolution, multiple, most)
    if step % multiple:
        hint = f"Set data.bucket_step to a multiple of {multiple}, or leave it empty."
        raise UserError(f"Bucket step {step} does not fit this base: the sides must be multiples of {multiple}.", hint)
    if config.bucketing and step > resolution:
        raise UserError(
            f"Bucket step {step} is larger than the resolution, {resolution}.", "Choose a smaller data.bucket_step."
        )
    if config.bucketing and not config.no_upscale and smallest > largest:
        message = f"The smallest bucket side, {smallest}, is larger than the largest, {largest} (multiples of {step})."
        raise UserError(message, "Change data.bucket_min or data.bucket_max, or leave both empty.")

    area = resolution * resolution
    if not config.bucketing:
        square = Bucket(_down(resolution, multiple), _down(resolution, multiple))
        return [crop_for(example.size, square) for example in examples]
    if config.no_upscale:
        return [crop_for(example.size, *no_upscale_bucket(example.size, area, step, most)) for example in examples]
    buckets = bucket_list(area, smallest, largest, step)
    return [crop_for(example.size, choose(example.size, buckets)) for example in examples]


def require_resolution(resolution: int, multiple: int, most: int | None) -> None:
    """Raises UserError for one that a base cannot draw."""
    if resolution < multiple:
        raise UserError(
            f"Resolution {resolution} is too small for this base.", f"Set data.resolution to {multiple} or more."
        )
    if most and resolution > most:
        raise UserError(
            f"Resolution {resolution} is too large for this base.", f"Set data.resolution to {most} or less."
        )


def sides(config: DataConfig, resolution: int, multiple: int, most: int | None = None) -> tuple[int, int, int]:
    """(step, smallest, largest) of the buckets' sides, where the settings leave them open by the base's needs."""
    step = config.bucket_step or (_up(64, multiple) if resolution >= 256 else multiple)
    largest = min(config.bucket_max or resolution * 2, most or math.inf)
    return step, _up(config.bucket_min or resolution // 2, step), _down(largest, step)


def bucket_list(area: int, smallest: int, largest: int, step: int) -> list[Bucket]:
    """All buckets with sides in smallest..largest and about `area`, sorted by width, then height; never empty."""
    side = max(step, _down(math.isqrt(area), step))
    found = {(side, side)}
    for width in range(smallest, largest + 1, step):
        height = min(largest, _down(area // width, step))
        if height >= smallest:
            found |= {(width, height), (height, width)}
    return [Bucket(*sides) for sides in sorted(found)]


def choose(size: Size, buckets: Sequence[Bucket]) -> Bucket:
    """The bucket of exactly that size, else the one nearest in width / height; the first of equals."""
    exact = Bucket(*size)
    if exact in buckets:
        return exact
    ratio = size[0] / size[1]
    return min(buckets, key=lambda bucket: abs(bucket.width / bucket.height - ratio))


def no_upscale_bucket(size: Size, area: int, step: int, most: int | None = None) -> tuple[Bucket, Size]:
    """The bucket of a picture that may shrink to `area` but not grow, and the size to resize the picture to first.

    Where a side would be under one step kohya divides by zero; there the bucket is one step high and, to keep within
    `area`, cuts the picture's length. So does one that would be longer than `most`.
    """
    within = most or math.inf
    width, height = size
    if width * height > area:
        width, height = _shrunk(width / height, area, step)
    if min(width, height) >= step:
        return Bucket(*(_down(min(side, within), step) for side in (width, height))), (width, height)
    longest = max(step, _down(min(area // step, within), step))
    bucket = Bucket(*(min(longest, max(step, _down(side, step))) for side in (width, height)))
    return bucket, _cover(size, bucket)


def crop_for(size: Size, bucket: Bucket, scaled: Size | None = None) -> Crop:
    """Scale a picture so that it just covers the bucket (or to `scaled`), and cut the bucket out of its middle."""
    width, height = scaled or _cover(size, bucket)
    lost = 1 - bucket.width * bucket.height / (width * height)
    return Crop(bucket, (width, height), (width - bucket.width) // 2, (height - bucket.height) // 2, lost)


def report(example: Example, crop: Crop) -> str:
    """One line for people: `cats/07.png  4000x3000 -> 576x448, 4 % cropped`."""
    grown = crop.scaled[0] / example.size[0]
    enlarged = f", enlarged {grown:.1f} times" if grown > 1.05 else ""
    sizes = f"{example.size[0]}x{example.size[1]} -> {crop.bucket.width}x{crop.bucket.height}"
    return f"{shown(example.path)}  {sizes}, {crop.lost * 100:.0f} % cropped{enlarged}"


def _cover(size: Size, bucket: Bucket) -> Size:
    width, height = size
    wider = width / height > bucket.width / bucket.height
    scale = bucket.height / height if wider else bucket.width / width
    return int(width * scale + 0.5), int(height * scale + 0.5)


def _shrunk(ratio: float, area: int, step: int) -> Size:
    """The size of about `area` and nearly that ratio with one side a multiple of `step`; the better of two."""
    ideal_width = math.sqrt(area * ratio)
    ideal_height = area / ideal_width
    if min(ideal_width, ideal_height) < step:
        return int(ideal_width + 0.5), int(ideal_height + 0.5)
    width = _down(int(ideal_width + 0.5), step)
    height = _down(int(ideal_height + 0.5), step)
    height_at_width = _down(int(width / ratio + 0.5), step)
    width_at_height = _down(int(height * ratio + 0.5), step)
    error_at_width = abs(width / height_at_width - ratio) if height_at_width else math.inf
    if error_at_width < abs(width_at_height / height - ratio):
        return width, int(width / ratio + 0.5)
    return int(height * ratio + 0.5), height


def _down(side: int, step: int) -> int:
    return side // step * step


def _up(side: int, step: int) -> int:
    return -(-side // step) * step
