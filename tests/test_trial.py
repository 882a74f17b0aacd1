"""Which micro-steps are tried: the commonest shapes of what is computed at once, in batches that are whole."""

from types import SimpleNamespace

import pytest

from trainers.ranks import Ranks
from trainers.trial import common_shapes, number_of

WIDE, TALL = (4, 6), (6, 4)


def step(batches: list[tuple[int, ...]], parts: int, accumulation: int = 1, ranks: Ranks | None = None):
    """Pictures below 100 are wide, the others tall."""
    feed = SimpleNamespace(
        batches=SimpleNamespace(epoch=lambda number: batches),
        training=range(200),
        latents=SimpleNamespace(shape=lambda picture: WIDE if picture < 100 else TALL),
    )
    return SimpleNamespace(feed=feed, parts=parts, accumulation=accumulation, ranks=ranks or Ranks())


@pytest.mark.parametrize(
    ("parts", "shapes"),
    [(1, [(3, *WIDE), (2, *TALL)]), (2, [(1, *WIDE), (1, *TALL), (2, *WIDE)]), (3, [(1, *WIDE), (1, *TALL)])],
)
def test_shapes_are_those_of_the_parts_the_commonest_first(parts, shapes):
    assert common_shapes(step([(0, 1, 2), (100, 101), (3, 4, 5)], parts)) == shapes


def test_a_rest_is_not_what_is_tried():
    tried = step([(6,), (0, 1, 2), (3, 4, 5)], 2)
    assert [number_of(tried, shape) for shape in ((1, *WIDE), (2, *WIDE))] == [1, 1]


def test_devices_that_share_a_batch_have_shapes_of_their_shares():
    assert common_shapes(step([(0, 1, 2, 3)], 1, ranks=Ranks(0, 4))) == [(1, *WIDE)]
    assert common_shapes(step([(0, 1, 2, 3)], 1, accumulation=4, ranks=Ranks(0, 4))) == [(4, *WIDE)]
