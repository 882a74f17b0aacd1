"""kohya's data set files: the inner table wins, and each folder keeps its repeats and caption."""

import tomllib

import pytest
from PIL import Image

from tests.importing.conftest import line
from trainers.data.examples import scan
from trainers.errors import UserError
from trainers.importing import kohya_dataset
from trainers.importing.imported import import_files


def test_each_folder_has_its_repeats_and_its_caption(imported, parent):
    data = imported("dataset.toml").config.data
    assert data.folders == (str(parent / "10_sks cat"), str(parent / "plain"))
    assert data.folder_names == ("4_sks cat", "1_a cat")  # the numbers in folders' names do not count there
    read = {(e.path.parent.name, e.path.name): (e.repeats, e.caption) for e in scan(data).examples}
    assert read["10_sks cat", "0.png"] == (4, "sks cat, red")
    assert read["10_sks cat", "1.png"] == (4, "sks cat")
    assert read["plain", "0.png"] == (1, "a cat")
    assert len(read) == 5


def test_inner_tables_win_and_the_first_folder_speaks_for_all(imported):
    found = imported("dataset.toml")
    assert found.config.data.keep_tokens == 2
    assert line(found, "general.keep_tokens").note == "An inner table says otherwise."
    assert line(found, "datasets[0].subsets[1].keep_tokens").note == kohya_dataset.ONE_FOR_ALL
    assert not found.config.data.flip
    assert line(found, "datasets[0].subsets[2].image_dir").status == "not supported"


def test_a_data_set_overrules_the_run_that_names_it(imported):
    found = imported("sd_scripts_sections.toml")
    assert found.config.data.batch_size == 2
    assert line(found, "train_batch_size").note == "dataset.toml says otherwise."
    assert found.config.schedule.views == 3 * (4 * 3 + 1 * 2)
    assert found.config.saving.every == 7  # 14 views, 2 at a time


def test_both_files_may_be_named(config):
    one = import_files([config("sd_scripts_sections.toml")])
    both = import_files([config("dataset.toml"), config("sd_scripts_sections.toml")])
    assert both.config == one.config and both.lines == one.lines


def test_every_setting_of_the_file_is_reported_once(config):
    path = config("dataset.toml")
    expected = kohya_dataset.flatten(tomllib.loads(path.read_text("utf-8")))
    assert [one.key for one in import_files([path]).lines] == list(expected)
    assert len(expected) == 18


def test_two_runs_are_refused(config):
    with pytest.raises(UserError, match="different runs"):
        import_files([config("sd_scripts.toml"), config("kohya_ss.json")])


@pytest.fixture
def pictures(tmp_path):
    """A folder in kohya's layout: {"10_sks cat": ["", "sks cat, red"]} are two pictures, one of them with a caption."""

    def make(folders: dict[str, list[str]]):
        for name, captions in folders.items():
            (tmp_path / "pictures" / name).mkdir(parents=True)
            for i, caption in enumerate(captions):
                Image.new("RGB", (32, 32), (60 * i, 10 * len(name), 90)).save(tmp_path / "pictures" / name / f"{i}.png")
                if caption:
                    (tmp_path / "pictures" / name / f"{i}.txt").write_text(caption, "utf-8")
        (tmp_path / "run.toml").write_text(f"train_data_dir = '{tmp_path / 'pictures'}'\nnetwork_dim = 8", "utf-8")
        return import_files([tmp_path / "run.toml"])

    return make


@pytest.mark.parametrize(
    ("folders", "trigger"),
    [
        ({"10_sks cat": ["", "a photo"]}, "sks cat"),
        ({"10_sks cat": ["red, Sks Cat"], "2_sks  cat": ["a photo"]}, "sks cat"),
        ({"10_sks cat": [""], "2_sks dog": [""]}, ""),  # two concepts
        ({"10_sks cat": [""], "2_": [""]}, ""),  # it would be the caption of pictures that kohya leaves without one
        ({"10_images": ["a photo", "a cat"]}, ""),  # words that no picture is trained with
    ],
)
def test_words_of_all_folders_are_the_trigger_and_change_no_caption(pictures, folders, trigger):
    data = pictures(folders).config.data
    assert data.trigger == trigger
    silent = data.model_copy(update={"trigger": ""})
    assert [one.caption for one in scan(data).examples] == [one.caption for one in scan(silent).examples]


def test_class_tokens_of_a_data_set_are_the_trigger(tmp_path, parent):
    (tmp_path / "data.toml").write_text(
        f"[[datasets]]\n[[datasets.subsets]]\nimage_dir = '{parent / 'plain'}'\nclass_tokens = 'sks cat'\n", "utf-8"
    )
    found = import_files([tmp_path / "data.toml"])
    assert found.config.data.trigger == "sks cat"
    assert "data.trigger" in line(found, "datasets[0].subsets[0].class_tokens").settings


def test_the_trigger_of_other_pictures_goes_with_them(pictures, parent, tmp_path):
    pictures({"10_sks cat": [""]})
    assert import_files([tmp_path / "run.toml"], parent / "plain").config.data.trigger == ""
