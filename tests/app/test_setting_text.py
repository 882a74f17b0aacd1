"""Settings as texts of a form and back: every setting, every kind of value, and what people type."""

import pytest

from app.setting_text import from_text, nested, to_text
from trainers import config_io
from trainers.config import TrainConfig
from trainers.config_problems import SETTINGS, choices, held, kinds

DEFAULTS = TrainConfig()
OTHERS = {  # a value that is not the default, where adding 1 or turning it over does not give one
    "data.folder_names": ["", "10_sks dog"],
    "data.caption_dropout": 0.25,
    "adapter.targets": "attention",
    "adapter.block_ranks": {"up_blocks.1": 8},
    "optimizer.block_rates": {"down_blocks.*": 0.5},
    "noise.timestep_max": 900,
}


def another(name: str) -> object:
    """A valid value of a setting that is not its default."""
    value, wanted = config_io.get(DEFAULTS, name), kinds(SETTINGS[name])
    if name in OTHERS:
        return OTHERS[name]
    if offered := [one for one in choices(name) if one != value]:
        return offered[0]
    if tuple in wanted:
        return ["a b", "c, d"] if str in held(SETTINGS[name]) else [8, 4]
    if bool in wanted:
        return not value
    if int in wanted:
        return (value or 15) + 1
    if float in wanted:
        return (value or 0.1) / 2 if value != 1 else 0.75 if "stop" in name else 1.5
    return "Ünïcode ‘quotes’ 漢字"


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_comes_back_from_its_text(name):
    for value in (config_io.get(DEFAULTS, name), another(name)):
        plain = list(value) if isinstance(value, tuple) else value
        assert from_text(name, to_text(name, value)) == plain


@pytest.mark.parametrize(
    ("name", "typed", "meant"),
    [
        ("optimizer.rate", "1e-4", 1e-4),
        ("optimizer.rate", " 1E-4 ", 1e-4),
        ("optimizer.rate", ".5", 0.5),
        ("adapter.alpha", "", None),
        ("adapter.rank", "", ""),
        ("adapter.rank", "many", "many"),
        ("adapter.text_ranks", "8, 4", [8, 4]),
        ("adapter.block_ranks", '"up_blocks.1" = 8', {"up_blocks.1": 8}),
        ("preview.prompts", "a cat\n\n  [a|b] dog\n", ["a cat", "[a|b] dog"]),
        ("data.trigger", ' "zibbo" ', '"zibbo"'),
        ("adapter.text_encoder", "True", True),
    ],
)
def test_people_may_write_values_in_their_own_way(name, typed, meant):
    assert from_text(name, typed) == meant


def test_lists_with_empty_or_broken_lines_are_written_as_toml():
    for value in (["", "10_a"], ["two\nlines"], ["[1]"]):
        assert from_text("data.folder_names", to_text("data.folder_names", value)) == value


def test_names_become_sections():
    assert nested({"adapter.rank": 8, "seed": 3}) == {"adapter": {"rank": 8}, "seed": 3}
