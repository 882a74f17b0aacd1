"""JSON that may be damaged: one kind of error, and dataclasses whose values are what they are annotated as."""

from dataclasses import dataclass

import pytest

from trainers import json_values


@dataclass(frozen=True)
class Held:
    name: str
    steps: tuple[int, ...] = ()
    size: tuple[int, int] = (0, 0)
    told: dict[str, str | None] | str = ""
    share: float = 1.0
    drawn: bool = False


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '"\\ud800"', '{"\\uDC00": 1}', "9" * 5000, b"\xff\xfe"])
def test_whatever_is_wrong_with_a_text_is_a_value_error(text):
    with pytest.raises(ValueError):
        json_values.parse(text)


def test_whole_letters_written_as_escapes_are_read():
    assert json_values.parse('"\\ud83c\\udf89 \\\\ud"') == "🎉 \\ud"


def test_a_file_far_too_long_is_not_read(tmp_path):
    file = tmp_path / "a.json"
    with file.open("wb") as opened:
        opened.truncate(json_values.LONGEST + 1)
    with pytest.raises(ValueError, match="too long"):
        json_values.read(file)


def test_a_dataclass_is_made_with_tuples_for_lists():
    values = {"name": "a", "steps": [1, 2], "size": [3, 4], "told": {"b": None}, "share": 1, "drawn": True}
    assert json_values.made(Held, values) == Held("a", (1, 2), (3, 4), {"b": None}, 1, True)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"name": None}, {"name": 1}, {"steps": 1}, {"steps": ["1"]}, {"steps": [True]}, {"steps": [2**64]}),
        *({"size": [1]}, {"size": [1, 2, 3]}, {"told": {"a": 1}}, {"told": []}, {"share": "1"}, {"share": 1e101}),
        *({"share": float("nan")}, {"share": float("inf")}, {"share": True}, {"drawn": 1}, {"more": 1}),
    ],
    ids=str,
)
def test_values_of_another_type_make_no_dataclass(wrong):
    with pytest.raises(ValueError):
        json_values.made(Held, {"name": "a"} | wrong)


@pytest.mark.parametrize("values", [None, [], "a", {}], ids=str)
def test_what_is_no_object_or_lacks_a_value_makes_no_dataclass(values):
    with pytest.raises(ValueError):
        json_values.made(Held, values)
