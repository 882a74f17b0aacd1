"""Values as other trainers write them."""

import pytest

from trainers.importing.values import (
    NotSupported,
    first_number,
    is_empty,
    is_off,
    number,
    numbers,
    pairs,
    plain,
    side,
    switch,
    whole,
)


@pytest.mark.parametrize("value", ["64.0", "64", 64, 64.0, " 64 "])
def test_whole_numbers_come_as_texts_and_floats(value):
    assert whole(value) == 64


@pytest.mark.parametrize("value", [True, "many", "nan", "inf", None, [], "64.5"])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(NotSupported):
        whole(value)


@pytest.mark.parametrize(("value", "found"), [("1e-4", 1e-4), (0, 0.0), ("0", 0.0), (".5", 0.5)])
def test_zero_is_a_number(value, found):
    assert number(value) == found


@pytest.mark.parametrize(
    ("value", "found"), [("True", True), ("false", False), (1, True), (0, False), ("on", True), (False, False)]
)
def test_truth_values_come_as_texts_and_numbers(value, found):
    assert switch(value) is found


@pytest.mark.parametrize("value", [None, "", "  ", "None", [], {}])
def test_nothing_set_is_written_in_many_ways(value):
    assert is_empty(value) and is_off(value)


@pytest.mark.parametrize("value", [0, 0.0, False, "0", "none", "False"])
def test_zero_false_and_the_name_none_are_values(value):
    assert not is_empty(value)


def test_neutral_values_count_as_off_in_any_writing():
    assert is_off("1.0", (1,)) and is_off("SNR", ("snr",)) and not is_off(2, (1,)) and not is_off("x", (1,))


@pytest.mark.parametrize(
    ("value", "found"), [("512,512", 512), ("512", 512), (512.0, 512), ([512, 768], 627), ("512x768", 627)]
)
def test_resolution_is_the_side_of_the_square_with_that_area(value, found):
    assert plain(side(value)) == found


@pytest.mark.parametrize("value", ["wide", [], [1, 2, 3], "0,0"])
def test_what_is_no_size_is_refused(value):
    with pytest.raises(NotSupported):
        side(value)


@pytest.mark.parametrize("value", [1e-4, "1e-4", [1e-4, 5e-5], "1e-4 5e-5", "1e-4,5e-5"])
def test_of_several_rates_the_first_counts(value):
    assert first_number(value) == 1e-4


@pytest.mark.parametrize(
    "value",
    [["a=1", "b=x,y"], "a=1 b=x,y", '"a=1" "b=x,y"', 'a="1" b=x,y'],
)
def test_lists_of_pairs_come_as_lists_and_as_one_text(value):
    assert pairs(value) == {"a": "1", "b": "x,y"}


@pytest.mark.parametrize(("value", "found"), [(1e-4, [1e-4]), ("1e-4, 0", [1e-4, 0]), ([1e-4, "5e-5"], [1e-4, 5e-5])])
def test_rates_come_alone_and_in_lists(value, found):
    assert numbers(value) == found
