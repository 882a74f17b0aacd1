"""What the Train page says: preset cards, the form of all settings, numbers of the run, estimate, problems."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from app.drafts import Plan, titled
from app.gui.fields import SECTIONS, State, by_section, field, identifier, label, state
from app.gui.markup import act, button, empty, notice, text
from app.presets import Preset
from trainers.config_problems import SETTINGS
from trainers.data.batches import held_out_count
from trainers.errors import UserError

ESSENTIALS = (
    *("data.trigger", "saving.name", "schedule.views"),
    *("schedule.steps", "adapter.rank", "optimizer.rate"),
    *("data.resolution", "data.batch_size", "adapter.text_encoder"),
)
WAITING = notice("Estimating ...", "The pictures and the base model are looked at, and a step is tried.")
NO_ESTIMATE = notice("The estimate follows when the settings are right.")
NO_PROJECT = empty(
    "No project yet",
    "A project is a folder of pictures and the word that shall stand for them. Here you will choose what is trained "
    "on them, and how. Darkroom brings sample pictures and a small base model, to try it at once.",
) + (
    f'<div class="dr-row dr-centre">{button("Try the sample concept", "sample", "primary")}'
    f"{button('Add your pictures', 'concept')}</div>"
)


def preset_cards(known: Mapping[str, Preset], chosen: str) -> str:
    """One card per preset, to choose one of."""
    cards = "".join(_card(preset, preset.name == chosen) for preset in known.values())
    return f'<div class="dr-presets" role="radiogroup" aria-label="Preset">{cards}</div>'


def form(plan: Plan) -> str:
    """The essential settings, and all others below them once they were asked for."""
    opened = plan.draft.opened or must_open(plan)
    parts = [_toolbar(opened), _group("", ESSENTIALS, plan, opened)]
    if opened:
        for section, names in by_section().items():
            parts.append(_group(SECTIONS[section], [n for n in names if n not in ESSENTIALS], plan, opened))
        parts.append('<p class="dr-quiet dr-unfound" hidden>No setting goes by these words.</p>')
    return f'<div class="dr-form {"opened" if opened else ""}">{"".join(parts)}</div>'


def must_open(plan: Plan) -> bool:
    """Whether something is wrong with a setting that is no essential one."""
    return any(name in SETTINGS and name not in (*ESSENTIALS, "model.base") for name in plan.problems)


def states(plan: Plan) -> str:
    """What stands in each field now, for the fields that are on the page already."""
    found = {identifier(name): asdict(_state(plan, name)) for name in SETTINGS}
    return f'<div data-states="{text(json.dumps(found))}"></div>'


def numbers(plan: Plan, answer: Mapping[str, Any] | UserError | None = None) -> str:
    """Pictures, steps, views per picture, and how many settings are not the preset's.

    Pictures are the files in the folder, until the estimate's `answer` tells how many of them are of use.
    """
    seen = answer if isinstance(answer, Mapping) else None
    pictures = seen["pictures"]["usable"] if seen else plan.pictures
    rows = [("Pictures", f"{pictures:,}")]
    config = plan.config
    if config is not None:
        rows.append(("Steps", f"{config.total_steps:,}"))
        views = config.total_steps * config.views_per_step
        trained = pictures - held_out_count(pictures, config.data.validation_share)
        if seen:
            rows.append(("Views per picture", f"about {seen['views_per_picture']:,g}"))
        elif trained:
            rows.append(("Views per picture", f"up to {views / trained:,.0f}"))  # fewer where batches are not full
    changed = sum(map(plan.is_changed, SETTINGS))
    rows.append(("Preset", f"{plan.preset.title}" + (f", {changed} changed" if changed else "")))
    lines = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in rows)
    back = button("Back to the preset", "reset", "quiet", setting="") if changed else ""
    return f'<dl class="dr-numbers">{lines}</dl><div>{back}</div>'


def base_line(plan: Plan) -> str:
    """What the base model is, or what is wrong with it."""
    found = plan.problems.get("model.base", ())
    if found:
        return "".join(notice(problem.message, problem.hint, "error") for problem in found)
    return f'<p class="dr-help" role="status">{text(plan.base)}</p>'


def problem_list(plan: Plan) -> str:
    """All that is wrong, each with a link to its field; nothing where nothing is."""
    if not plan.ordered:
        return ""
    items = "".join(f"<li>{_link(name)}{text(f'{p.message} {p.hint}'.strip())}</li>" for name, p in plan.ordered)
    count = len(plan.ordered)
    what = "One setting needs another look" if count == 1 else f"{count} settings need another look"
    return f'<div class="dr-notice error" role="alert"><strong>{what} before training</strong><ul>{items}</ul></div>'


def estimate(answer: Mapping[str, Any] | UserError | None) -> str:
    """Memory and time in a plain sentence, then what was seen of the pictures; None is still to come."""
    if answer is None:
        return WAITING
    if isinstance(answer, UserError):
        return notice(f"No estimate: {answer.message}", titled(answer.hint), "warning")
    verdict = titled(str(answer["verdict"]))
    fits = verdict.startswith("It fits")
    seen = answer["pictures"]
    held = f", {seen['held_out']} of them held out to measure with" if seen["held_out"] else ""
    facts = [
        f"{seen['usable']} pictures{held}. Each is seen about {answer['views_per_picture']:,g} times.",
        f"Trains on {answer['device']}.",
        *([answer["saving"]] if answer.get("saving") else []),
        *answer["remarks"],
    ]
    problems = [str(problem) for problem in answer["problems"]]
    listed = "".join(f"<li>{text(titled(problem))}</li>" for problem in problems)
    noted = f"{len(problems)} remark{'s' if len(problems) > 1 else ''} on the pictures"
    details = f"<details><summary>{noted}</summary><ul>{listed}</ul></details>" if problems else ""
    told = "".join(f'<p class="dr-help">{text(fact)}</p>' for fact in facts)
    return notice(*_halves(verdict), "good" if fits else "warning") + told + details


def imported(sources: list[str], taken: int, total: int, report: str) -> str:
    """What an import did, its whole report behind a click."""
    head = notice(f"{', '.join(sources)}: {taken} of {total} settings taken over.", kind="good")
    return f'{head}<details><summary>What became of each</summary><pre class="dr-report">{text(report)}</pre></details>'


def _card(preset: Preset, chosen: bool) -> str:
    remove = ""
    if preset.own:
        about = text(f"Remove the preset {preset.title}")
        remove = (
            f'<button type="button" class="dr-button quiet" aria-label="{about}" '
            f"{act('remove', preset=preset.name)}>Remove</button>"
        )
    return (
        f'<div class="dr-preset"><button type="button" role="radio" aria-checked="{str(chosen).lower()}" '
        f'tabindex="{0 if chosen else -1}" class="dr-card {"chosen" if chosen else ""}" '
        f"{act('preset', preset=preset.name)}><strong>{text(preset.title)}</strong>"
        f"<span>{text(preset.description)}</span></button>{remove}</div>"
    )


def _toolbar(opened: bool) -> str:
    label_ = "Fewer settings" if opened else "All settings"
    toggle = (
        f'<button type="button" class="dr-button" aria-expanded="{str(opened).lower()}" '
        f"{act('open', opened=not opened)}>{label_}</button>"
    )
    box = (
        '<input type="search" class="dr-field dr-filter" aria-label="Find a setting" autocomplete="off" '
        'spellcheck="false" placeholder="Find a setting: rank, network_dim, noise offset ..."> '
        '<label class="dr-only"><input type="checkbox" class="dr-only-changed"> Only changed</label> '
        '<span class="dr-quiet dr-count" role="status"></span>'
    )
    return f'<div class="dr-tools"><h2 class="dr-title">Settings</h2>{box if opened else ""}{toggle}</div>'


def _group(title: str, names: tuple[str, ...] | list[str], plan: Plan, opened: bool) -> str:
    fields = "".join(field(name, _state(plan, name), opened) for name in names)
    head = f'<h3 class="dr-title">{text(title)}</h3>' if title else ""
    return f'<section class="dr-group">{head}<div>{fields}</div></section>'


def _state(plan: Plan, name: str) -> State:
    return state(name, plan.text(name), plan.advised(name), plan.is_changed(name), plan.problems.get(name, ()))


def _link(name: str) -> str:
    if name not in SETTINGS:
        return ""
    return f'<a href="#{identifier(name)}">{text(label(name))}</a>: '


def _halves(verdict: str) -> tuple[str, str]:
    """The sentence on memory, and the one on time or on what to do."""
    for mark in (" GB. ", " free. "):
        head, found, tail = verdict.partition(mark)
        if found:
            return head + mark.rstrip(), tail
    return verdict, ""
