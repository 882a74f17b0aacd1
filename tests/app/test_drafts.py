"""A draft is kept on disk, says all that is wrong, and makes the very run that `darkroom new` makes."""

import subprocess
import sys
from pathlib import Path

import pytest

from app import cli_import, demo, drafts, picture_list, presets, projects, runs
from app.about import read_about
from app.framing import Framing
from app.picture_facts import Measured
from app.setting_text import to_text
from tests.app.test_setting_text import another
from trainers import config_io
from trainers.config import TrainConfig
from trainers.config_problems import SETTINGS
from trainers.errors import UserError

ALONE = {  # what must be set along with a setting for it to be no contradiction
    "data.class_pictures": {"data.class_words": ["dog"], "loss.preservation": 0.5},
    "adapter.new_tokens": {"data.trigger": "zibbo"},
}
FILES = ("model.vae", "model.clip_l", "model.clip_g", "adapter.init_from")


@pytest.fixture
def project(place, pictures):
    return projects.create(place, "My cat", pictures, "object", "zibbo")


def test_a_new_project_has_its_kinds_preset_and_no_problem(place, project):
    plan = drafts.plan(place, project)
    assert (plan.draft.preset, plan.draft.base, plan.pictures, plan.family) == ("object", "embedded", 3, "sd15")
    assert plan.config == plan.start and not plan.problems
    assert not any(map(plan.is_changed, SETTINGS))


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_reaches_config_toml(place, project, name):
    file = str(next(Path(project.pictures).iterdir()))
    folders = [project.pictures, str(demo.CONCEPTS)]
    named = {"data.folders": folders, "model.base": "owner/name", **dict.fromkeys(FILES, file)}
    advised = drafts.plan(place, project).start.data.flip
    values = {name: named.get(name, not advised if name == "data.flip" else another(name))} | ALONE.get(name, {})
    values |= {"data.folders": folders} if name == "data.folder_names" else {}
    for other, value in values.items():
        plan = drafts.change(place, projects.find(place, "my-cat"), other, to_text(other, value))
    assert not plan.problems and (plan.is_changed(name) or name in ("model.base", *drafts.OF_BOTH_PAGES))
    written = config_io.get(config_io.load(drafts.make_run(place, projects.find(place, "my-cat")).config), name)
    assert (list(written) if isinstance(written, tuple) else written) == values[name]


def test_a_run_of_the_window_is_byte_for_byte_that_of_the_command_line(place, project, pictures, darkroom):
    for name, text in {"optimizer.rate": "3e-4", "adapter.alpha": "8", "preview.prompts": "a zibbo\n漢字"}.items():
        drafts.change(place, project, name, text)
    drafts.change(place, project, "data.trigger", "zibbo2")
    drafts.update(place, project, preset="person")
    ours = drafts.make_run(place, projects.find(place, "my-cat"))
    sets = ["optimizer.rate=3e-4", "adapter.alpha=8", 'preview.prompts=["a zibbo", "漢字"]', "data.trigger=zibbo2"]
    asked = [word for one in sets for word in ("--set", one)]
    words = ["--pictures", pictures, "--kind", "object", "--preset", "person", "--trigger", "zibbo"]
    said = darkroom("new", "My cat", *words, *asked)
    assert said.code == 0, said.err
    assert Path(said.out.strip(), "config.toml").read_bytes() == ours.config.read_bytes()


def test_untouched_drafts_give_what_the_command_line_gives(place, project, pictures, darkroom):
    ours = drafts.make_run(place, project)
    said = darkroom("new", "My cat", "--pictures", pictures, "--kind", "object", "--trigger", "zibbo")
    assert Path(said.out.strip(), "config.toml").read_bytes() == ours.config.read_bytes()


def test_a_draft_is_what_it_was_after_a_restart(place, project):
    drafts.change(place, project, "adapter.rank", "abc")
    drafts.update(place, project, base="owner/model", preset="style", opened=True)
    assert drafts.load(place, project) == drafts.Draft("owner/model", "style", {"adapter.rank": "abc"}, True)


def test_a_damaged_draft_begins_anew(place, project):
    (project.folder / "draft.toml").write_text("base = [", "utf-8")
    assert drafts.load(place, project) == drafts.Draft("embedded", "object")


def test_all_problems_are_told_at_their_fields(place, project):
    drafts.change(place, project, "adapter.rank", "many")
    drafts.change(place, project, "optimizer.rate", "-1")
    drafts.change(place, project, "loss.type", "l3")
    plan = drafts.plan(place, project)
    assert plan.config is None and set(plan.problems) == {"adapter.rank", "optimizer.rate", "loss.type"}
    assert plan.problems["adapter.rank"][0].message == "This must be a whole number between 1 and 1024."
    with pytest.raises(UserError, match="Rank: This must be a whole number"):
        drafts.make_run(place, project)
    assert not runs.list_runs(place)


def test_a_contradiction_is_told_at_both_fields_by_their_titles(place, project):
    drafts.change(place, project, "noise.timestep_min", "900")
    drafts.change(place, project, "noise.timestep_max", "100")
    plan = drafts.plan(place, project)
    assert set(plan.problems) == {"noise.timestep_min", "noise.timestep_max"}
    assert len(plan.ordered) == 1 and "“First timestep”" in plan.ordered[0][1].message


@pytest.mark.parametrize("base", ["nowhere.safetensors", "", "README.md"])
def test_a_wrong_base_is_a_sentence_at_the_base(place, project, base):
    drafts.update(place, project, base=base)
    plan = drafts.plan(place, project)
    assert plan.config is None and plan.problems["model.base"][0].message.endswith(".")


def test_missing_pictures_are_a_problem_of_their_folder(place, project, pictures):
    for picture in pictures.iterdir():
        picture.unlink()
    assert "There is no picture" in drafts.plan(place, project).problems["data.folders"][0].message


def test_the_preset_value_typed_is_no_change_and_reset_goes_back(place, project):
    assert drafts.change(place, project, "adapter.rank", "8").is_changed("adapter.rank")
    assert not drafts.change(place, project, "adapter.rank", "16").draft.texts
    drafts.change(place, project, "adapter.rank", "8")
    drafts.change(place, project, "seed", "7")
    assert set(drafts.reset(place, project, "seed").texts) == {"adapter.rank"}
    assert not drafts.reset(place, project).texts


def test_a_trigger_word_and_kind_typed_here_are_the_projects_and_no_change_to_the_preset(place, project):
    for name, text in {"adapter.new_tokens": "2", "data.kind": "style", "data.trigger": " my  cat "}.items():
        planned = drafts.change(place, projects.find(place, "my-cat"), name, text)
    assert set(planned.problems) == {"data.trigger"}  # it must be one word for new tokens
    changed = projects.find(place, "my-cat")
    assert (changed.trigger, changed.kind) == ("my cat", "style") and set(planned.draft.texts) == {"adapter.new_tokens"}
    drafts.reset(place, changed)
    assert drafts.plan(place, changed).config.data.trigger == "my cat"
    later = projects.update(changed, trigger="zoe")
    assert drafts.plan(place, later).config.data.trigger == "zoe"


def test_the_concept_page_tells_the_caption_that_a_trigger_word_typed_here_makes(place, project):
    drafts.change(place, project, "data.trigger", "mycat")
    seen = picture_list.overview(projects.find(place, "my-cat"), Measured(place), Framing())
    assert {one.used for one in seen.pictures} == {"mycat object"}


def test_a_kind_that_is_none_stays_in_its_field(place, project):
    planned = drafts.change(place, project, "data.kind", "banana")
    assert set(planned.problems) == {"data.kind"} and planned.text("data.kind") == "banana"
    assert projects.find(place, "my-cat") == project


def test_the_trigger_word_of_a_run_that_is_started_again_is_the_projects(place, project):
    run = drafts.make_run(place, project)
    projects.update(project, trigger="zoe")
    assert not drafts.from_run(place, run).texts and projects.find(place, "my-cat").trigger == "zibbo"


def test_paths_copied_with_quotes_and_addresses_of_the_hub_are_understood(place, project):
    assert drafts.change(place, project, "model.base", ' "/models/a b.safetensors" ').draft.base == (
        "/models/a b.safetensors"
    )
    assert drafts.update(place, project, base="https://huggingface.co/owner/name/").base == "owner/name"


def test_a_run_can_be_started_again_with_one_change(place, project):
    drafts.update(place, project, preset="style")
    drafts.change(place, project, "adapter.rank", "5")
    run = drafts.make_run(place, project)
    drafts.save(project, drafts.Draft("embedded", "object"))
    draft = drafts.from_run(place, run)
    assert draft.preset == "style" and dict(draft.texts) == {"adapter.rank": "5"}
    assert drafts.make_run(place, project).config.read_bytes() == run.config.read_bytes()


def test_a_run_keeps_its_preset_and_gives_it_back(place, project):
    saved = presets.save_own(place, "Mine", "", TrainConfig())
    drafts.update(place, project, preset=saved.name)
    run = drafts.make_run(place, project)
    assert (read_about(run).preset, read_about(run).preset_title) == ("mine", "Mine")
    drafts.update(place, project, preset="style")
    assert drafts.from_run(place, run).preset == "mine"
    presets.remove_own(place, saved.name)
    assert drafts.from_run(place, run).preset != "mine"


def test_settings_of_another_trainer_fill_the_draft_and_leave_the_project_alone(place, project, tmp_path):
    theirs = tmp_path / "kohya.toml"
    theirs.write_text(
        'network_dim = 12\nlearning_rate = 2e-4\noutput_name = "theirs"\npretrained_model_name_or_path = "gone.ckpt"\n',
        "utf-8",
    )
    drafts.from_import(place, project, cli_import.read(place, [theirs], None, None))
    config = drafts.plan(place, project).config
    assert (config.adapter.rank, config.optimizer.rate) == (12, 2e-4)
    assert (config.saving.name, config.data.trigger, config.model.base) == ("my-cat", "zibbo", "embedded")
    assert config.data.folders == (project.pictures,)


def test_what_was_typed_of_the_project_outlasts_an_import_and_the_preset_is_that_of_its_kind(place, project, tmp_path):
    drafts.change(place, project, "data.trigger", "mycat")
    project = projects.find(place, "my-cat")
    drafts.change(place, project, "saving.name", "whiskers")
    theirs = tmp_path / "kohya.toml"
    theirs.write_text('learning_rate = 1e-3\noutput_name = "theirs"\n', "utf-8")
    draft = drafts.from_import(place, project, cli_import.read(place, [theirs], None, None))
    config = drafts.plan(place, project).config
    assert (config.saving.name, config.data.trigger, draft.preset) == ("whiskers", "mycat", "object")


def test_what_hangs_on_the_family_is_decided_for_the_drafts_base_where_the_imports_is_not_here(
    place, project, tmp_path
):
    theirs = tmp_path / "kohya.toml"
    theirs.write_text('pretrained_model_name_or_path = "/nowhere/a.safetensors"\nclip_skip = 2\n', "utf-8")
    drafts.change(place, project, drafts.BASE, "embedded")
    found = drafts.for_base(place, project, cli_import.read(place, [theirs], None, None))
    drafts.from_import(place, project, found)
    model = drafts.plan(place, project).config.model
    assert (model.base, model.clip_skip) == ("embedded", 2)  # it is a Stable Diffusion 1


def test_own_presets_hold_only_what_differs_and_nothing_of_the_project(place, project):
    drafts.change(place, project, "adapter.rank", "5")
    config = drafts.plan(place, project).config
    saved = presets.save_own(place, "My “best” one", "For cats.", config)
    text = (place.root / "presets" / f"{saved.name}.toml").read_text("utf-8")
    assert "rank = 5" in text and "zibbo" not in text and str(project.pictures) not in text and "alpha" not in text
    known = presets.all_presets(place)[saved.name]
    assert known.own and (known.title, known.description) == ("My “best” one", "For cats.")
    applied = presets.apply(known, 3, "embedded")
    assert set(config_io.difference(applied, config)) <= set(presets.OF_ONE_PROJECT)
    assert set(config_io.difference(config, TrainConfig())) >= set(config_io.difference(applied, TrainConfig()))


def test_a_removed_preset_lies_in_the_trash_and_a_damaged_one_hides_no_other(place):
    saved = presets.save_own(place, "Mine", "", TrainConfig(seed=5))
    (place.root / "presets" / "broken.toml").write_text("title = 3\nadapter = 7", "utf-8")
    assert set(presets.all_presets(place)) == {*presets.load_presets(), "mine"}
    assert presets.remove_own(place, saved.name).is_file()
    assert "mine" not in presets.all_presets(place)
    with pytest.raises(UserError, match="no preset of yours"):
        presets.remove_own(place, "style")


def test_presets_that_come_along_are_never_replaced(place):
    with pytest.raises(UserError, match="comes with Darkroom"):
        presets.save_own(place, "style", "", TrainConfig())
    with pytest.raises(UserError, match="needs a name"):
        presets.save_own(place, "  ", "", TrainConfig())


def test_the_draft_needs_no_torch():
    program = "import sys, app.drafts, app.base_models, app.gui.train_views; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2]).returncode == 0


@pytest.mark.parametrize(
    ("typed", "words", "fields"),
    [
        (
            {"data.bucket_min": "512", "data.bucket_max": "256"},
            "“Smallest bucket side” = 512 is above “Largest bucket side” = 256.",
            {"data.bucket_min", "data.bucket_max"},
        ),
        (
            {"optimizer.lora_plus": "4", "adapter.type": "lokr"},
            "= 4 is for pairs of matrices, and lokr has none.",
            {"optimizer.lora_plus"},
        ),
        ({"data.class_pictures": "9"}, "= 9 needs", {"data.class_pictures", "loss.preservation"}),
        ({"adapter.new_tokens": "2", "data.trigger": ""}, "= 2 needs a trigger word", {"adapter.new_tokens"}),
        ({"optimizer.type": ""}, "This must be one of adamw", {"optimizer.type"}),
        ({"optimizer.type": "adamw9"}, "This must be one of adamw", {"optimizer.type"}),
    ],
)
def test_settings_that_exclude_each_other_and_names_of_nothing_are_told_at_their_fields(
    place, project, typed, words, fields
):
    for name, text in typed.items():
        plan = drafts.change(place, project, name, text)
    assert plan.config is None and set(plan.problems) == fields
    for name in fields:
        assert words in plan.problems[name][0].message
    assert len(plan.ordered) == 1


def test_pictures_are_counted_as_they_are_trained(place, project, pictures):
    names = sorted(file.name for file in pictures.iterdir())
    projects.update(project, left_out=(names[0], "renamed since.png"))
    (project,) = projects.list_projects(place)
    plan = drafts.plan(place, project)
    assert plan.pictures == 2 and plan.config.data.leave_out == (names[0],)
    views = plan.config.schedule.views
    plan = drafts.change(place, project, "data.leave_out", "\n".join(names[:2]))
    assert plan.pictures == 1 and plan.config.schedule.views == views
    plan = drafts.change(place, project, "data.leave_out", "")
    assert plan.pictures == 3
