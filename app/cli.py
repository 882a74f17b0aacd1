"""The command line. Exit codes: 0 done, 1 a sentence says what is wrong, 2 wrong usage, 130 interrupted and saved."""

import io
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from app import (
    cli_compare,
    cli_import,
    cli_runs,
    cli_tools,
    engine,
    hardware,
    jobs,
    new_runs,
    presets,
    projects,
    runs,
    window,
)
from app import cli_output as output
from app import demo as demonstration
from app.cli_inspect import adapter_facts
from app.new_runs import Concept
from app.paths import absolute, find_home
from app.queue import Queue
from app.settings import load_settings
from trainers import config_io
from trainers.errors import UserError, disk_error
from trainers.families.locate import require_base

KINDS = ("person", "style", "object", "character")
UNKNOWN_FAMILY = f"{new_runs.UNKNOWN_FAMILY}For another, add --set model.family=sdxl (sd2, sd3)."
app = typer.Typer(
    help="LoRA Darkroom turns a folder of pictures into a LoRA adapter for Stable Diffusion, on your own machine.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Set = Annotated[list[str], typer.Option("--set", metavar="a.b=c", help="Change a setting; may be given again.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help='Run folder, its name, its project\'s name, or "last".')]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; whatever the user can mend becomes a sentence on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an old console must not fail at a file's name
    try:
        app(_home_first(sys.argv[1:] if arguments is None else list(arguments)), prog_name="darkroom")
    except UserError as error:
        output.complain(error.message, error.hint)
    except KeyboardInterrupt:
        sys.exit(cli_runs.INTERRUPTED)
    except Exception as error:
        _complain_of(error)
    sys.exit(1)


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    home: Annotated[Path | None, typer.Option(help="Folder for projects, runs and the cache.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port of the window; the first free one from 7860 by default.")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the window in the browser.")] = True,
    native: Annotated[bool, typer.Option("--window", help="Open it in a window of its own (needs pywebview).")] = False,
) -> None:
    """Without a command: open the window."""
    context.obj = home
    if context.invoked_subcommand is None:
        window.open_window(find_home(home), port, browser, native, output.say)


@app.command()
def demo(
    context: typer.Context,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; enough to see it by default.")] = None,
    concept: Annotated[str, typer.Option(help=" or ".join(demonstration.CONCEPTS_BY_NAME))] = "style",
    out: Annotated[Path | None, typer.Option(help="Folder for the grid and the adapter.")] = None,
) -> None:
    """Train a bundled concept on the built-in base model and show before and after."""
    home = find_home(context.obj)
    out = absolute(out) if out else None
    run = demonstration.make_run(home, concept, steps)
    output.say(f"Run folder: {run.folder}")
    cli_runs.train_here(run, home)
    grid, adapter = demonstration.show(run, concept, out, output.note)
    output.say(f"Before and after: {grid}")
    output.say(f"Adapter: {adapter}")


@app.command()
def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the project; any letters.")],
    pictures: Annotated[Path, typer.Option(help="Folder with the pictures; it is only read.")],
    kind: Annotated[str, typer.Option(help=f"What the pictures teach: {', '.join(KINDS)}.")],
    base: Annotated[str | None, typer.Option(help="Base model: embedded, a file, a folder, or a hub id.")] = None,
    preset: Annotated[str | None, typer.Option(help="Preset; the kind's own by default.")] = None,
    trigger: Annotated[str, typer.Option(help="Word that stands for the concept in prompts.")] = "",
    changes: Set = [],  # noqa: B006 - typer reads the default, nothing changes it
) -> None:
    """Create a project and a run, and print the run folder."""
    if kind not in KINDS:
        raise typer.BadParameter(f"{kind} is none of {', '.join(KINDS)}.", param_hint="--kind")
    home = find_home(context.obj)
    pictures = absolute(pictures)
    concept = Concept(name, pictures, kind, trigger)
    count = concept.count
    model = {"model": {"base": base or load_settings(home).base}}
    wished = config_io.override(config_io.parse(model), [one for one in changes if one.lstrip().startswith("model.")])
    _, family = new_runs.look_at_base(wished.model)
    chosen = presets.find_preset(preset or kind, presets.all_presets(home))
    config = new_runs.settings(concept, chosen, wished.model.base, family, count)
    config = config_io.override(config, changes)  # before anything is made, so that a typo leaves nothing behind
    if not family:
        output.note(UNKNOWN_FAMILY.format(wished.model.base))
    project = projects.create(home, name, pictures, kind, trigger)
    output.say(str(runs.create(project, config).folder))


@app.command("import")
def import_settings(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="A run's settings; a data set's or prompts.")],
    name: Annotated[str | None, typer.Option(help="Name of the project; the adapter's by default.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder with the pictures, in place of the file's.")] = None,
    base: Annotated[str | None, typer.Option(help="Base model, in place of the file's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write only a settings file, and make no run.")] = None,
    changes: Set = [],  # noqa: B006 - typer reads the default, nothing changes it
    as_json: Json = False,
) -> None:
    """Take over settings of kohya_ss, sd-scripts or OneTrainer, and say what becomes of each."""
    home = find_home(context.obj)
    found = cli_import.read(home, files, pictures, base)
    config = config_io.override(found.config, changes)
    if out:
        cli_import.show(found, {"settings file": str(cli_import.write(config, out))}, as_json)
        return
    name = name or (config.saving.name if "saving.name" in found.settings else files[0].stem)
    try:
        run = cli_import.make_run(home, found, config, name)
    except UserError:
        cli_import.show(found, {}, as_json)
        raise
    cli_import.show(found, {"run folder": str(run.folder)}, as_json)


@app.command()
def check(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN_OR_CONFIG", help="A run, or a config.toml.")],
    changes: Set = [],  # noqa: B006 - typer reads the default, nothing changes it
    card: Annotated[str, typer.Option("--card", help='A graphics card that is not here: "RTX 3060 12GB".')] = "",
    as_json: Json = False,
) -> None:
    """Look for problems in settings and pictures, estimate memory and time; starts nothing."""
    home = find_home(context.obj)
    config = cli_runs.config_of(run) if cli_runs.is_file(run) else config_io.load(runs.find(home, run).config)
    config = runs.with_absolute_paths(config_io.override(config, changes))
    output.note(require_base(config.model).text)
    output.show(engine.check(config, output.note, card), as_json)


@app.command()
def train(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN_OR_CONFIG", help="A run, or a config.toml to make one from.")],
    changes: Set = [],  # noqa: B006 - typer reads the default, nothing changes it
    background: Annotated[bool, typer.Option("--background", help="Start it and return at once.")] = False,
) -> None:
    """Train in the foreground with a progress bar; Ctrl-C saves and stops. Goes on where the run stopped."""
    home = find_home(context.obj)
    if cli_runs.is_file(run):
        chosen = cli_runs.run_from_file(home, absolute(run), changes)
        output.say(f"Run folder: {chosen.folder}")
    else:
        chosen = runs.find(home, run)
        if changes:
            cli_runs.change(chosen, changes)
    if runs.status(chosen).word == "finished":
        output.say(f"{chosen.folder.name} is finished. Adapter: {runs.status(chosen).adapter}")
    elif background:
        job = jobs.start(chosen, home)
        output.say(
            f"Training in the background as process {job.process.pid}. See `darkroom status {chosen.folder.name}`."
        )
    else:
        cli_runs.train_here(chosen, home)
        output.say(f"Adapter: {runs.status(chosen).adapter}")


@app.command()
def resume(context: typer.Context, run: RunName = "last") -> None:
    """Go on with a stopped or interrupted run, from its newest checkpoint."""
    home = find_home(context.obj)
    chosen = runs.find(home, run)
    word = runs.status(chosen).word
    if word == "new":
        raise UserError(f"{chosen.folder.name} has not begun yet.", "Start it with `darkroom train`.")
    if word == "finished":
        hint = f"To train longer, make a new run: darkroom train {chosen.config} --set schedule.steps=..."
        raise UserError(f"{chosen.folder.name} is finished; there is nothing to resume.", hint)
    train(context, str(chosen.folder))


@app.command()
def stop(context: typer.Context, run: RunName = "last") -> None:
    """Ask a run in training to save and stop, and wait until it has."""
    chosen = runs.find(find_home(context.obj), run)
    if not runs.is_alive(chosen):
        raise UserError(f"{chosen.folder.name} is not being trained.", "`darkroom status` lists all runs.")
    output.note("Saving ...")
    jobs.stop(chosen)
    status = runs.status(chosen)
    output.say(f"{chosen.folder.name} is {status.word} at step {status.state.step:,}.")


@app.command()
def status(
    context: typer.Context,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="One run; all of them without.")] = None,
    as_json: Json = False,
) -> None:
    """List all runs and the queue, or tell everything about one run."""
    home = find_home(context.obj)
    if run is not None:
        output.run_details(runs.status(runs.find(home, run)), as_json)
    else:
        output.run_list([runs.status(one) for one in runs.list_runs(home)], Queue(home), as_json)


@app.command()
def sample(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="RUN_OR_ADAPTER", help="A run, or an adapter file.")],
    prompt: Annotated[list[str], typer.Option(help="What to draw; may be given again.")],
    seed: Annotated[int | None, typer.Option(min=0, help="Same seed, same picture; 42 by default.")] = None,
    strength: Annotated[float, typer.Option(help="How much of the adapter; 0 is the base alone.")] = 1.0,
    base: Annotated[str | None, typer.Option(help="Base model in place of the run's.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Pictures per prompt.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures.")] = None,
) -> None:
    """Draw pictures with an adapter."""
    home = find_home(context.obj)
    if cli_runs.is_file(source):
        adapter, folder = absolute(source), absolute("samples")
        config = config_io.parse({"model": {"base": base or load_settings(home).base}})
    else:
        chosen = runs.find(home, source)
        found = runs.status(chosen).adapter
        if found is None:
            raise UserError(f"{chosen.folder.name} has no adapter file yet.", "Train it, or export a checkpoint of it.")
        adapter, folder, config = found, chosen.folder / "pictures", config_io.load(chosen.config)
        config = config_io.merge(config, {"model": {"base": base}}) if base else config
    config = runs.with_absolute_paths(config)
    first = config.preview.seed if seed is None else seed
    pictures = engine.sample(config, adapter, prompt, first, strength, count)
    folder = absolute(out) if out else folder
    folder.mkdir(parents=True, exist_ok=True)
    for text, row in zip(prompt, pictures, strict=True):
        for i, picture in enumerate(row):
            name = f"{projects.slug(text)}_{first + i}.png"
            output.say(str(demonstration.save_picture(picture, folder / name)))


@app.command()
def export(
    context: typer.Context,
    run: RunName,
    checkpoint: Annotated[str | None, typer.Option(help="Step of a checkpoint; the newest by default.")] = None,
    form: Annotated[str, typer.Option("--format", help="kohya, diffusers or peft.")] = "kohya",
    to: Annotated[Path | None, typer.Option(help="Folder to write to; the run's output folder by default.")] = None,
    as_json: Json = False,
) -> None:
    """Write and verify a run's adapter file."""
    chosen = runs.find(find_home(context.obj), run)
    output.show(engine.export(chosen.folder, checkpoint, form, absolute(to) if to else None), as_json)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="An adapter file, or a folder that peft wrote.")], as_json: Json = False
) -> None:
    """Say what an adapter file is, what is wrong with it, and which image programs load it."""
    path = absolute(file)
    if path.is_dir() and not (path / "adapter_model.safetensors").is_file():
        raise UserError(f"{path} is a folder, not an adapter file.", "Name the .safetensors file in it.")
    if not path.exists():
        raise UserError(f"There is no file {path}.", "Check the spelling.")
    adapter_facts(engine.inspect(path), as_json)


cli_tools.register(app)
cli_compare.register(app)


@app.command()
def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Show what this machine has, what will be used, and what is wrong and how to mend it."""
    found = hardware.facts(find_home(context.obj))
    output.doctor(found, hardware.will_use(found), hardware.findings(found), as_json)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def bench(context: typer.Context) -> None:
    """Measure seconds, dispatches, host syncs and memory per training step (`darkroom bench --help`)."""
    raise typer.Exit(engine.bench(context.args) or 0)


def _complain_of(error: Exception) -> None:
    """Any error as one sentence; the traceback of one that nobody foresaw goes to a file."""
    if disk := disk_error(error):
        output.complain(disk.message, "Make room, or name a home folder on another disk with --home.")
    elif isinstance(error, OSError):
        output.complain(f"{error.filename or 'A file'}: {error.strerror or error}.")
    else:
        story = "".join(traceback.format_exception(error))
        try:
            with tempfile.NamedTemporaryFile(
                "w", prefix="darkroom-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
            ) as file:
                file.write(story)
            hint = f"The whole story is in {file.name}."
        except OSError:
            hint = story  # better on the screen than nowhere
        output.complain(f"Something unexpected went wrong: {type(error).__name__}: {str(error).rstrip('.')}.", hint)


def _home_first(arguments: list[str]) -> list[str]:
    """`--home DIR` counts wherever it stands, so move it in front of the command."""
    for i, argument in enumerate(arguments):
        if argument == "--":
            break
        size = 2 if argument == "--home" else 1 if argument.startswith("--home=") else 0
        if size:
            return [*arguments[i : i + size], *arguments[:i], *arguments[i + size :]]
    return arguments


if __name__ == "__main__":
    main()
