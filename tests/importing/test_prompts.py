"""kohya's sample prompts: flags stand after the first ` --`."""

import pytest

from trainers.importing.imported import import_files
from trainers.importing.prompts import from_lines, parse_line


def test_flags_are_read():
    prompt = parse_line("a cat, red --n blurry, text --w 512 --h 768 --d 7 --s 28 --l 7.5")
    assert prompt.text == "a cat, red"
    assert prompt.settings == {
        "preview.negative": "blurry, text",
        "preview.width": 512,
        "preview.height": 768,
        "preview.seed": 7,
        "preview.sampling_steps": 28,
        "preview.guidance": 7.5,
    }


@pytest.mark.parametrize("text", ["n 1 is a number", "h 100 metres high", "w 3", "s 1000", "d 5 --w 64"])
def test_prompts_that_begin_like_flags_are_prompts(text):
    prompt = parse_line(text)
    assert prompt.text == text.partition(" --")[0]
    assert list(prompt.settings) == (["preview.width"] if "--" in text else [])


def test_flags_without_counterpart_are_named():
    assert parse_line("a cat --ss euler_a --fs 3 --odd --l many").left_out == ("--odd", "--ss", "--fs", "--l")


def test_comments_and_empty_lines_are_passed_over():
    assert [prompt.text for prompt in from_lines(["# all", "", "a cat", "  "])] == ["a cat"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.txt", "\ufeff# mine\na cat --w 64 --s 9\na dog --w 64\n"),
        ("p.toml", '[prompt]\nwidth = 64\n[[prompt.subset]]\nprompt = "a cat"\nsample_steps = 9\n'
         '[[prompt.subset]]\nprompt = "a dog"\n'),
        ("p.json", '[{"prompt": "a cat", "width": 64, "sample_steps": 9}, "a dog --w 64"]'),
    ],
)  # fmt: skip
def test_prompt_files_of_all_kinds(tmp_path, name, content):
    (tmp_path / name).write_text(content, "utf-8")
    preview = import_files([tmp_path / name]).config.preview
    assert (preview.prompts, preview.width, preview.sampling_steps) == (("a cat", "a dog"), 64, 9)


def test_one_size_serves_all_prompts_and_the_report_says_so(tmp_path):
    (tmp_path / "p.txt").write_text("a cat --w 64\na dog --w 128\n", "utf-8")
    found = import_files([tmp_path / "p.txt"])
    assert found.config.preview.width == 64 and "the first" in found.lines[0].note
    assert [one.key for one in found.lines] == ["prompt 1", "prompt 2"]
