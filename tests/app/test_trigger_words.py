"""Which trigger words are told to be common, and that suggestions are not."""

import pytest

from app.trigger_words import complaint, count, is_common, suggest


@pytest.mark.parametrize(("word", "common"), [("cat", True), ("saxophone", True), ("sks", False), ("ohwx", False)])
def test_words_that_were_seen_often_are_common_and_rare_ones_are_not(word, common):
    assert is_common(word) == common
    assert ("common word" in complaint(word)) == common


def test_suggestions_are_short_and_rare_and_another_comes_next():
    first = suggest("My cat Größe")
    assert suggest("My cat Größe", unlike=first) != first
    assert 2 <= count(first) <= 3 and not complaint(first)
    assert not complaint(suggest("漢字"))
