"""Peak memory against operations at full size, counted without weights: bf16, batch 1, rank 16 on the attention."""

from itertools import pairwise

import pytest

from trainers import config_io
from trainers.families.sd3 import SD3
from trainers.families.sd15 import SD15
from trainers.families.sdxl import SDXL
from trainers.memory.curve import curve


@pytest.fixture(scope="module")
def sdxl():
    return curve(SDXL, config_io.parse({"adapter": {"targets": "attention"}}))


@pytest.mark.slow
def test_sdxl_has_six_points_between_nothing_and_everything_each_smaller_and_dearer(sdxl):
    _, plain, *between, everything, hosted, streamed, both = sdxl
    assert len(between) >= 6 and plain.more == 0
    for one, next_one in pairwise([plain, *between, everything]):
        assert one.peak_gb > next_one.peak_gb and one.tflop < next_one.tflop
    assert hosted.tflop == everything.tflop == streamed.tflop == both.tflop
    assert both.peak_gb < streamed.peak_gb < hosted.peak_gb < everything.peak_gb


@pytest.mark.slow
def test_sdxl_fits_8_and_a_half_gb_for_an_eighth_more_operations_and_6_gb_at_all(sdxl):
    assert min(point.more for point in sdxl if point.peak_gb < 8.5) < 0.125
    assert min(point.peak_gb for point in sdxl) < 6.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "variant", "most"), [(SDXL, "", 4.5), (SD15, "", 2.0), (SD3, "sd3.5-medium", 8.0)], ids=str
)
def test_the_lowest_tier_is_a_base_in_4_bits(family, variant, most):
    config = config_io.parse({"adapter": {"targets": "attention"}, "memory": {"quantize": "nf4"}})
    assert min(point.peak_gb for point in curve(family, config, 2, variant)) < most


@pytest.mark.slow
def test_sd15_fits_3_gb_with_nothing_computed_again():
    points = curve(SD15, config_io.parse({"adapter": {"targets": "attention"}}), points=2)
    assert points[1].peak_gb < 3.0 and points[1].more == 0
