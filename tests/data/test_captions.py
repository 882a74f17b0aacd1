"""Captions: every encoding, the fallback, tags."""

import random
import subprocess
import sys

import pytest

from trainers.data.captions import fallback_caption, mentions, read_caption, shuffle_tags

TEXT = "a café at 5 €, “naïve”"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_captions_are_read_in_every_encoding_editors_write(tmp_path, encoding):
    (tmp_path / "a.b.txt").write_bytes(TEXT.encode(encoding))
    assert read_caption(tmp_path / "a.b.png") == TEXT


def test_big_endian_utf16_with_a_mark_is_read(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xfe\xff" + TEXT.encode("utf-16-be"))
    assert read_caption(tmp_path / "a.png") == TEXT


def test_txt_wins_over_caption_and_none_means_no_file(tmp_path):
    assert read_caption(tmp_path / "a.png") is None
    (tmp_path / "a.caption").write_text("second")
    assert read_caption(tmp_path / "a.png") == "second"
    (tmp_path / "a.txt").write_text("first")
    assert read_caption(tmp_path / "a.png") == "first"


def test_lines_and_spaces_become_one_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"  red hat,\r\n\tblue coat \r\n\r\n")
    assert read_caption(tmp_path / "a.png") == "red hat, blue coat"
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbf\r\n")
    assert read_caption(tmp_path / "b.png") == ""


@pytest.mark.parametrize(
    ("trigger", "kind", "caption"),
    [("zorb", "person", "zorb person"), (" zorb ", "object", "zorb object"), ("fluent style", "style", "fluent style"),
     ("", "character", "character")],
)  # fmt: skip
def test_a_picture_without_caption_is_named_by_trigger_and_kind(trigger, kind, caption):
    assert fallback_caption(trigger, kind) == caption


def test_shuffling_keeps_the_first_tags_and_loses_none():
    tags = "zorb, red, blue,green ,  , tall"
    seen = {shuffle_tags(tags, 1, random.Random(seed)) for seed in range(50)}
    assert len(seen) > 10
    for caption in seen:
        parts = caption.split(", ")
        assert parts[0] == "zorb" and sorted(parts[1:]) == ["blue", "green", "red", "tall"]
    assert shuffle_tags(tags, 9, random.Random(0)) == "zorb, red, blue, green, tall"


def test_the_same_random_state_gives_the_same_order_of_tags():
    one, other = (shuffle_tags("a, b, c, d, e", 0, random.Random(7)) for _ in range(2))
    assert one == other


def test_the_trigger_is_found_in_any_case_of_letters():
    assert mentions("A Zorb on a table", "zorb") and not mentions("a table", "zorb")
    assert mentions("a sks  man, outside", "SKS man") and mentions("黒い猫です", "猫")  # written without spaces
    assert mentions("佐々木の写真", "佐") and not mentions("a cat", "")
    assert not mentions("a caterpillar", "cat") and not mentions("cat_ears", "cat")


def test_scanning_and_planning_need_no_torch():
    modules = "captions, buckets, examples, batches, decoding"
    code = f"import sys; from trainers.data import {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
