"""Settings survive the way to disk and back, and whatever is wrong with them is said in one go."""

import tomllib

import pytest

from trainers import config_io, config_problems
from trainers.choices import CHOICES
from trainers.config import TrainConfig
from trainers.errors import UserError

NASTY = 'Ünïcode ‘quotes’ "double" \\back\\ 漢字 🎉 \t\n\x7f # no comment'


def problems_of(sections: dict) -> str:
    with pytest.raises(UserError) as caught:
        config_io.parse(sections)
    return str(caught.value)


def test_settings_survive_the_disk(tmp_path):
    changes = {
        "adapter": {"rank": 8, "alpha": 0.5, "block_ranks": {"up_blocks.1": 8, NASTY[:8]: 0}, "text_ranks": [4, 0]},
        "data": {"folders": [NASTY, "b"], "trigger": NASTY},
        "optimizer": {"rate": 1e-5, "block_rates": {"up_blocks.1": 0.5}, "text_rates": [1e-5]},
        "preview": {"prompts": [NASTY]},
        "seed": 2**32 - 1,
    }
    config = config_io.parse(changes)
    config_io.save(config, tmp_path / "config.toml")
    assert config_io.load(tmp_path / "config.toml") == config
    assert [file.name for file in tmp_path.iterdir()] == ["config.toml"]


def test_written_settings_name_every_setting_with_its_description():
    text = config_io.dump(TrainConfig())
    for name, field in config_problems.SETTINGS.items():
        assert field.description in text
        assert f"{name.rpartition('.')[2]} =" in text
    assert config_io.parse(tomllib.loads(text)) == TrainConfig()


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"adapter": {"rnak": 8}}, "Unknown setting adapter.rnak. Did you mean adapter.rank?"),
        ({"adaptor": {"rank": 8}}, "Unknown setting adaptor. Did you mean adapter?"),
        ({"rank": 8}, "Unknown setting rank. Did you mean adapter.rank?"),
        ({"optimizer": {"learning_rate": 1}}, "Unknown setting optimizer.learning_rate. Did you mean optimizer.rate?"),
        ({"optimizer": {"dropout": 1}}, "Unknown setting optimizer.dropout. Did you mean adapter.dropout?"),
        ({"xyzzy": 1}, "Unknown setting xyzzy."),
    ],
)
def test_unknown_setting_names_the_nearest_one(sections, sentence):
    assert problems_of(sections) == sentence


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"adapter": {"rank": 0}}, "adapter.rank is 0, but must be a whole number between 1 and 1024."),
        ({"adapter": {"rank": 1.5}}, "adapter.rank is 1.5, but must be a whole number between 1 and 1024."),
        ({"adapter": {"rank": True}}, "adapter.rank is true, but must be a whole number between 1 and 1024."),
        ({"adapter": {"dropout": 1}}, "adapter.dropout is 1, but must be a number of at least 0 and below 1."),
        ({"optimizer": {"rate": 0}}, "optimizer.rate is 0, but must be a number above 0 and at most 10."),
        ({"optimizer": {"rate": float("nan")}}, "optimizer.rate is nan, but must be a number above 0 and at most 10."),
        ({"data": {"flip": "maybe"}}, 'data.flip is "maybe", but must be true or false.'),
        ({"data": {"folders": 3}}, "data.folders is 3, but must be a list of texts."),
        ({"adapter": {"text_ranks": 3}}, "adapter.text_ranks is 3, but must be a list of whole numbers."),
        ({"adapter": {"text_ranks": [True]}}, "adapter.text_ranks is [true], but must be a list of whole numbers."),
        (
            {"adapter": {"block_ranks": {"up_blocks.1": -1}}},
            'adapter.block_ranks is { "up_blocks.1" = -1 }, but must be a table of module paths and whole',
        ),
        (
            {"optimizer": {"block_rates": {"a": float("inf")}}},
            'optimizer.block_rates is { "a" = inf }, but must be a table of module paths and numbers above 0, such as',
        ),
        ({"adapter": {"block_ranks": {"(": 4}}}, 'adapter.block_ranks has "(", which is no regular expression'),
        (
            {"adapter": {"type": "lokr"}, "optimizer": {"lora_plus": 16}},
            "optimizer.lora_plus = 16 is for pairs of matrices, and lokr has none. Leave it at 1, or train a lora.",
        ),
        ({"model": 3}, "model must be a section of settings, written as [model]."),
        ({"saving": {"name": "漢" * 67}}, "saving.name is too long for a file name"),
        ({"saving": {"name": "a/b"}}, 'saving.name is "a/b", which cannot be a file name: it holds "/".'),
        ({"data": {"trigger": "\udce9"}}, "data.trigger holds bytes that are not UTF-8."),
    ],
)
def test_wrong_value_is_named_with_what_it_must_be(sections, sentence):
    assert problems_of(sections).startswith(sentence)


@pytest.mark.parametrize("name", CHOICES)
def test_unknown_choice_names_all_and_the_nearest(name):
    section, key = name.split(".")
    first = CHOICES[name][0]
    sentence = problems_of({section: {key: f"{first}x"}})
    assert ", ".join(CHOICES[name]) in sentence and "Did you mean" in sentence
    for choice in CHOICES[name]:
        config_io.parse({section: {key: choice}})


def test_all_problems_are_reported_together():
    sections = {"adapter": {"rnak": 8, "rank": 0, "type": "lorra"}, "optimizr": {}, "memory": {"device": "gpu"}}
    sentence = problems_of(sections)
    assert "5 problems" in sentence
    for part in ("adapter.rnak", "adapter.rank is 0", "adapter.type", "optimizr", "memory.device"):
        assert part in sentence


def test_values_that_contradict_each_other_are_refused():
    assert "noise.timestep_min = 900" in problems_of({"noise": {"timestep_min": 900, "timestep_max": 100}})
    assert "data.bucket_min = 512" in problems_of({"data": {"bucket_min": 512, "bucket_max": 64}})


def test_folder_names_fit_the_folders():
    data = {"folders": ["a", "b"], "folder_names": ["10_sks dog", ""]}
    assert config_io.parse({"data": data}).data.folder_names == ("10_sks dog", "")
    assert "names 1 folders, but data.folders holds 2" in problems_of({"data": data | {"folder_names": ["10_sks dog"]}})
    assert 'folder_names holds "dogs"' in problems_of({"data": data | {"folder_names": ["dogs", "0_x"]}})


def test_overrides_read_numbers_texts_lists_and_emptiness():
    config = config_io.parse({"adapter": {"alpha": 4}})
    changes = [
        "adapter.rank=8",
        "adapter.alpha=",
        "optimizer.rate = 1e-3",
        "data.trigger=1234",
        "data.flip=True",
        "seed=7",
    ]
    config = config_io.override(config, [*changes, "data.folders=['a b', 'c']", "preview.prompts=one, with a comma"])
    assert (config.adapter.rank, config.adapter.alpha, config.optimizer.rate) == (8, None, 1e-3)
    assert (config.data.trigger, config.data.flip, config.seed) == ("1234", True, 7)
    assert config.data.folders == ("a b", "c") and config.preview.prompts == ("one, with a comma",)


def test_overrides_read_tables_and_lists_of_numbers():
    config = config_io.parse({"adapter": {"block_ranks": {"mid_block": 2}}})
    changes = ["adapter.text_ranks=4, 8", "optimizer.text_rates=[1e-5]", 'adapter.block_ranks={"up_blocks.1" = 8}']
    changed = config_io.override(config, changes)
    assert (changed.adapter.text_ranks, changed.optimizer.text_rates) == ((4, 8), (1e-5,))
    assert changed.adapter.block_ranks == {"up_blocks.1": 8}
    assert config_io.override(changed, ["adapter.block_ranks="]).adapter.block_ranks == {}
    with pytest.raises(UserError, match="adapter.block_ranks is"):
        config_io.override(config, ["adapter.block_ranks=many"])


def test_overrides_report_all_their_problems_together():
    with pytest.raises(UserError) as caught:
        config_io.override(TrainConfig(), ["adapter.rnak=8", "adapter.rank", "adapter.rank=many"])
    for part in ("Did you mean adapter.rank?", "not of the form section.key=value", 'adapter.rank is "many"'):
        assert part in str(caught.value)


def test_difference_is_what_was_changed():
    config = config_io.override(TrainConfig(), ["adapter.rank=8", "seed=5"])
    assert config_io.difference(config, TrainConfig()) == {"adapter.rank": 8, "seed": 5}


def test_merge_changes_only_what_it_names():
    config = config_io.merge(config_io.parse({"adapter": {"rank": 8}}), {"adapter": {"alpha": 2}})
    assert (config.adapter.rank, config.adapter.alpha) == (8, 2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe\x00", "not a text file"),
        (b"[adapter\nrank = 8", "not valid TOML"),
        (b'[model]\nbase = "C:\\Users\\me"', "'single quotes'"),
    ],
)
def test_damaged_file_is_one_sentence(tmp_path, content, words):
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        config_io.load(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        config_io.load(tmp_path / "config.toml")
    with pytest.raises(UserError, match="(is a folder|cannot be read)"):
        config_io.load(tmp_path)


def test_byte_order_mark_of_an_editor_is_skipped(tmp_path):
    (tmp_path / "config.toml").write_bytes(b"\xef\xbb\xbf[adapter]\nrank = 8\n")
    assert config_io.load(tmp_path / "config.toml").adapter.rank == 8


def test_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    file = tmp_path / "config.toml"
    config_io.save(TrainConfig(), file)
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError):
        config_io.save(TrainConfig(seed=9), file)
    assert file.read_bytes() == before and [f.name for f in tmp_path.iterdir()] == ["config.toml"]
