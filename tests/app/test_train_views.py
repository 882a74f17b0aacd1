"""What the Train page says, without a browser."""

import json
import re
from html import unescape

import pytest

from app import drafts, presets, projects
from app.gui import fields
from app.gui import train_views as views
from trainers.config_problems import SETTINGS
from trainers.errors import UserError

ANSWER = {
    "device": "cpu, fp32",
    "pictures": {"usable": 12, "trained": 11, "held_out": 1},
    "remarks": [],
    "problems": ["<b>.png is small."],
    "views_per_picture": 12.5,
    "verdict": "It does not fit: up to 9.10 GB are needed, and 8.00 GB are free. Turn on memory.checkpointing.",
}


@pytest.fixture
def plan(place, pictures):
    project = projects.create(place, "<b>My</b> cat", pictures, "object", "<script>")
    return drafts.plan(place, project, drafts.Draft("embedded", "object", {}, True))


def test_every_setting_has_one_field_with_its_help_and_a_label_of_its_own(plan):
    html = views.form(plan)
    assert sorted(re.findall(r'data-setting="([^"]+)"', html)) == sorted(SETTINGS)
    labels = re.findall(r'<label for="[^"]+">([^<]+)', html)
    assert len({label.strip() for label in labels}) == len(SETTINGS)
    for name, field in SETTINGS.items():
        assert fields.text(field.description) in html and f"{name}</code>" in html


def test_only_the_essentials_are_there_until_all_are_asked_for(plan):
    closed = drafts.Plan(**{**plan.__dict__, "draft": drafts.Draft("embedded", "object")})
    assert re.findall(r'data-setting="([^"]+)"', views.form(closed)) == list(views.ESSENTIALS)


def test_names_of_other_trainers_find_our_settings():
    for word, name in {
        "network_dim": "adapter.rank",
        "unet_lr": "optimizer.rate",
        "train_batch_size": "data.batch_size",
        "bucket_no_upscale": "data.no_upscale",
        "max_train_steps": "schedule.steps",
        "output_name": "saving.name",
    }.items():
        assert word in fields.words(name).split()
    assert set(fields.ELSEWHERE) <= set(SETTINGS)


def test_a_change_is_marked_and_leads_back(place, plan):
    project = projects.list_projects(place)[0]
    changed = drafts.change(place, project, "adapter.rank", "8")
    states = json.loads(fields_of(views.states(changed)))
    assert "Back to 16" in states["setting-adapter-rank"]["back"]
    assert [name for name, state in states.items() if state["back"]] == ["setting-adapter-rank"]
    assert "Object, 1 changed" in views.numbers(changed)


def test_the_estimate_tells_how_many_pictures_are_of_use(plan):
    before, after = views.numbers(plan), views.numbers(plan, ANSWER)
    assert f"<dd>{plan.pictures}</dd>" in before and "<dd>up to " in before
    assert "<dd>12</dd>" in after and "<dd>about 12.5</dd>" in after and "up to" not in after
    assert views.numbers(plan, UserError("No base.")) == before


def test_problems_are_listed_with_links_and_open_the_settings(place, plan):
    project = projects.list_projects(place)[0]
    wrong = drafts.change(place, project, "noise.offset", "7")
    assert 'href="#setting-noise-offset"' in views.problem_list(wrong)
    assert 'data-setting="noise.offset"' in views.form(wrong) and 'aria-invalid="true"' in views.form(wrong)


def test_texts_of_people_are_shown_as_text(plan):
    html = views.form(plan) + views.states(plan) + views.numbers(plan) + views.base_line(plan) + views.estimate(ANSWER)
    assert "<script>" not in html and "&lt;script&gt;" in html and "<b>" not in html


def test_the_verdict_names_settings_as_the_page_does():
    html = views.estimate(ANSWER)
    assert "warning" in html and "Turn on “Gradient checkpointing”." in html and "12.5 times" in html
    assert "1 remark on the pictures" in html


def test_one_card_is_chosen_and_own_presets_can_be_removed(place):
    presets.save_own(place, "Mine & yours", "A sentence.", drafts.TrainConfig())
    html = views.preset_cards(presets.all_presets(place), "style")
    assert html.count('aria-checked="true"') == 1 and html.count('role="radio"') == 5
    assert html.count(">Remove<") == 1 and "Mine &amp; yours" in html


def fields_of(html: str) -> str:
    return unescape(re.search(r'data-states="([^"]+)"', html)[1])
