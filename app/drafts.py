"""A project's next run while it is being set up: base model, preset, and what a person typed, kept on disk."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit

from app import new_runs, presets, projects, runs
from app.about import read_about, record_preset
from app.concepts import SAMPLES
from app.demo import CONCEPTS_BY_NAME
from app.library import project_of
from app.new_runs import Concept
from app.paths import Home
from app.presets import EMBEDDED, Preset
from app.projects import Project
from app.runs import Run
from app.setting_text import from_text, nested, to_text
from app.settings import load_settings
from trainers import config_io
from trainers.config import ModelConfig, TrainConfig
from trainers.config_problems import SETTINGS, Problem, wanted
from trainers.errors import UserError
from trainers.families.locate import HUB_ID, expand
from trainers.files import write_whole

if TYPE_CHECKING:
    from trainers.importing.imported import Imported

BASE = "model.base"
NAMED = re.compile("|".join(sorted(map(re.escape, SETTINGS), key=len, reverse=True)))
OF_THE_PROJECT = (
    *("data.folders", "data.folder_names", "data.leave_out", "data.trigger", "data.kind"),
    "saving.name",
)
OF_BOTH_PAGES = {"data.trigger": "trigger", "data.kind": "kind"}  # kept in project.toml alone


@dataclass(frozen=True)
class Draft:
    base: str
    preset: str
    texts: Mapping[str, str] = field(default_factory=dict)  # setting -> what stands in its field
    opened: bool = False  # whether all settings are shown


@dataclass(frozen=True)
class Plan:
    """What a draft comes to. `config` is None while there are problems."""

    draft: Draft
    preset: Preset
    start: TrainConfig  # the preset's advice, without the person's changes
    config: TrainConfig | None
    problems: Mapping[str, tuple[Problem, ...]]  # by setting; "" for those of none
    base: str  # a sentence about the base model
    family: str
    pictures: int  # that will be trained

    def advised(self, name: str) -> str:
        """The preset's value of a setting as its field shows it."""
        return to_text(name, config_io.get(self.start, name))

    def text(self, name: str) -> str:
        """What stands in a setting's field."""
        return self.draft.base if name == BASE else self.draft.texts.get(name, self.advised(name))

    def is_changed(self, name: str) -> bool:
        return name != BASE and name in self.draft.texts

    @property
    def ordered(self) -> list[tuple[str, Problem]]:
        """All problems with their settings, each once."""
        seen: dict[Problem, str] = {}
        for name, found in self.problems.items():
            for problem in found:
                seen.setdefault(problem, name)
        return [(name, problem) for problem, name in seen.items()]


def load(home: Home, project: Project) -> Draft:
    """The project's draft; what a new project begins with where there is none, or where it is damaged."""
    first = Draft(load_settings(home).base, project.kind, _of_sample(project))
    if not _file(project).exists():
        return first
    try:
        written = config_io.read_toml(_file(project))
        texts = {str(name): str(text) for name, text in written.get("changes", {}).items() if name in SETTINGS}
        texts = {name: text for name, text in texts.items() if not _of_both_pages(name, text)}  # of earlier versions
        base, preset = str(written.get("base", first.base)), str(written.get("preset", first.preset))
        return Draft(base, preset, texts, written.get("opened") is True)
    except (UserError, AttributeError):
        return first


def save(project: Project, draft: Draft) -> Draft:
    """Keep it, whole or not at all."""
    values = {"base": draft.base, "preset": draft.preset, "opened": draft.opened, "changes": dict(draft.texts)}
    write_whole(_file(project), tomlkit.dumps(values).encode("utf-8", "replace"))
    return draft


def plan(home: Home, project: Project, draft: Draft | None = None) -> Plan:
    """What a draft (the project's own by default) comes to, with everything that is wrong with it."""
    draft = draft or load(home, project)
    found: dict[str, list[Problem]] = {}
    known = presets.all_presets(home)
    preset = known.get(draft.preset) or known.get(project.kind) or next(iter(known.values()))
    concept = _concept(project)
    try:
        pictures = concept.count
    except UserError as error:
        pictures = 0
        found.setdefault("data.folders", []).append(Problem(error.message, error.hint))
    typed = {name: from_text(name, text) for name, text in draft.texts.items()}
    says, family = "", ""
    try:
        model, _ = config_io.examine(TrainConfig(), nested(_of_model(draft.base, typed)))
        says, family = _look(model.model if model else ModelConfig(base=draft.base))
    except UserError as error:
        found.setdefault(BASE, []).append(Problem(error.message, error.hint))
    start = new_runs.settings(concept, preset, draft.base, family, pictures)
    config, wrong = config_io.examine(start, nested(typed))
    for problem in wrong:
        for name in dict.fromkeys(NAMED.findall(problem.message)) or [""]:
            found.setdefault(name, []).append(_at_field(name, problem))
    if config and not found and _pictures_of(config) != _pictures_of(start):
        pictures = new_runs.trained_pictures(config.data)
    problems = {name: tuple(dict.fromkeys(those)) for name, those in found.items()}
    return Plan(draft, preset, start, None if problems else config, problems, says, family, pictures)


def change(home: Home, project: Project, name: str, text: str) -> Plan:
    """Write a text into a setting's field; the preset's own value is no change.

    A trigger word, and a kind that there is, become the project's, whose page has a field for each as well.
    """
    draft = load(home, project)
    if name == BASE:
        return plan(home, project, save(project, replace(draft, base=_unquoted(text))))
    if name not in SETTINGS:
        raise UserError(f"There is no setting {name}.")
    others = {other: value for other, value in draft.texts.items() if other != name}
    if _of_both_pages(name, text):
        project = projects.update(project, **{OF_BOTH_PAGES[name]: " ".join(text.split())})
        return plan(home, project, save(project, replace(draft, texts=others)))
    found = plan(home, project, replace(draft, texts=others | {name: text}))
    if _same(from_text(name, text), config_io.get(found.start, name)):
        found = replace(found, draft=replace(draft, texts=others))
    save(project, found.draft)
    return found


def update(home: Home, project: Project, **changes: Any) -> Draft:
    """Change base, preset, texts or opened."""
    if "base" in changes:
        changes["base"] = _unquoted(changes["base"])
    return save(project, replace(load(home, project), **changes))


def reset(home: Home, project: Project, name: str = "") -> Draft:
    """Back to the preset's value, of one setting or of all."""
    texts = load(home, project).texts
    return update(home, project, texts={other: text for other, text in texts.items() if name and other != name})


def _of_both_pages(name: str, text: str) -> bool:
    """Whether a text is one that is kept in project.toml: a kind that is none stays in its field."""
    return name in OF_BOTH_PAGES and not config_io.examine(TrainConfig(), nested({name: from_text(name, text)}))[1]


def from_run(home: Home, run: Run) -> Draft:
    """Fill the draft of the run's project with a run's settings, to train once more with one change.

    The preset is the one that the run came from, else the one that needs the fewest changes. Trigger word and kind
    become the project's. UserError where the run's settings cannot be read, or its project is gone.
    """
    config = config_io.load(run.config)
    project = projects.update(project_of(home, run), trigger=config.data.trigger, kind=config.data.kind)
    return _fill(home, project, config, read_about(run).preset)


def for_base(home: Home, project: Project, found: "Imported") -> "Imported":
    """An import whose base is not here, with the draft's: what hangs on the family is decided for that."""
    return found.with_base(load(home, project).base) if "model.base" in found.missing else found


def from_import(home: Home, project: Project, found: "Imported") -> Draft:
    """Fill the draft with another trainer's settings, as changes to the preset of the project's kind.

    Pictures, trigger word and name stay the project's, also where they were typed here. UserError where the settings
    contradict one another.
    """
    draft = load(home, project)
    start = plan(home, project, replace(draft, texts={})).start
    kept = {name: config_io.get(start, name) for name in OF_THE_PROJECT if name in SETTINGS}
    settings = {name: value for name, value in found.settings.items() if name not in found.missing}
    filled = _fill(home, project, config_io.parse(nested({BASE: draft.base} | settings | kept)), project.kind)
    typed = {name: text for name, text in draft.texts.items() if name in OF_THE_PROJECT}
    return save(project, replace(filled, texts={**filled.texts, **typed}))


def carry_over(home: Home, project: Project, config: TrainConfig) -> Draft:
    """Keep the settings as they are under the draft's preset: what it does not hold becomes a change."""
    draft = load(home, project)
    return save(project, replace(draft, texts=_texts(config, plan(home, project, draft).start)))


def make_run(home: Home, project: Project) -> Run:
    """A run with the draft's settings. UserError with all problems while there are some."""
    planned = plan(home, project)
    if planned.config is None:
        raise _as_error(planned)
    run = runs.create(project, planned.config)
    record_preset(run, planned.preset.name, planned.preset.title)
    return run


def titled(text: str) -> str:
    """A sentence of the settings' check with names as they stand on the screen."""
    return NAMED.sub(lambda name: f"“{SETTINGS[name.group()].title}”", text)


def _fill(home: Home, project: Project, config: TrainConfig, preset: str = "") -> Draft:
    base, known = config.model.base, presets.all_presets(home)
    best: Draft | None = None
    for name in [preset] if preset in known else dict.fromkeys([project.kind, *known]):
        draft = Draft(base, name, {}, load(home, project).opened)
        start = plan(home, project, draft).start
        draft = replace(draft, texts=_texts(config, start))
        if best is None or len(draft.texts) < len(best.texts):
            best = draft
    return save(project, best or Draft(base, project.kind))


def _of_sample(project: Project) -> dict[str, str]:
    """What the samples are trained with: so few steps that a slow machine is done in minutes, and telling prompts.

    A preview and a checkpoint every 100 of them, so that there is something to watch and to choose from.
    """
    name = next((name for name, (title, _) in SAMPLES.items() if title == project.name), None)
    if name is None or not project.owns_pictures:
        return {}
    sample = CONCEPTS_BY_NAME[name]
    steps = {"schedule.steps": str(sample.steps)} if sample.steps else {}
    often = {"preview.every": "100", "saving.every": "100", "saving.keep": "5"}
    return steps | often | {"preview.prompts": "\n".join(sample.prompts[:4])}


def _texts(config: TrainConfig, start: TrainConfig) -> dict[str, str]:
    return {name: to_text(name, value) for name, value in config_io.difference(config, start).items() if name != BASE}


def _file(project: Project) -> Path:
    return project.folder / "draft.toml"


def _pictures_of(config: TrainConfig) -> tuple[tuple[str, ...], ...]:
    return config.data.folders, config.data.folder_names, config.data.leave_out


def _concept(project: Project) -> Concept:
    return Concept(project.name, Path(project.pictures), project.kind, project.trigger, project.left_out)


def _of_model(base: str, typed: Mapping[str, Any]) -> dict[str, Any]:
    return {BASE: base} | {name: value for name, value in typed.items() if name.startswith("model.")}


def _look(model: ModelConfig) -> tuple[str, str]:
    """A sentence about the base, and its family. UserError where it is none."""
    glance, family = new_runs.look_at_base(model)
    if model.base == EMBEDDED:
        return f"The model that comes with Darkroom: {glance.text.partition(': ')[2]}. Draws 64 px pictures.", family
    if glance.text:
        unknown = "" if family else " Until then, these are settings for Stable Diffusion 1.x; set “Family” for others."
        return f"{glance.text}.{unknown}", family
    return "From the Hugging Face hub: downloaded once, when the run or its estimate first needs it.", family


def _same(value: Any, advised: Any) -> bool:
    """Whether a field's value is the preset's: 5 and 5.0 are, true and 1 are not."""
    value = tuple(value) if isinstance(value, list) else value
    return value == advised and isinstance(value, bool) == isinstance(advised, bool)


def _at_field(name: str, problem: Problem) -> Problem:
    """Beside its field a sentence needs not name it."""
    if name and problem.message.startswith(f"{name} is ") and problem.message.endswith(f"must be {wanted(name)}."):
        return Problem(f"This must be {wanted(name)}.", problem.hint)
    return Problem(titled(problem.message), titled(problem.hint))


def _as_error(planned: Plan) -> UserError:
    lines = [
        f"{SETTINGS[name].title}: {problem.message}" if name else problem.message for name, problem in planned.ordered
    ]
    return UserError(" ".join(lines), "Mend that, then train.")


def _unquoted(base: str) -> str:
    """Paths copied from Windows stand in quotes; a hub's address is more than its id."""
    plain = base.strip().strip('"').strip()
    plain = plain.removeprefix("https://huggingface.co/").rstrip("/") if plain.startswith("https://") else plain
    return plain if HUB_ID.fullmatch(plain) or plain == EMBEDDED else str(expand(plain)) if plain else ""
