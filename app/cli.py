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
    cli_adapters,
    cli_compare,
    cli_inspect,
    cli_machine,
    cli_new,
    cli_queue,
    cli_runs,
    cli_tools,
    cli_train,
    window,
)
from app import cli_output as output
from app.cli_options import HELP
from app.paths import find_home
from trainers.errors import UserError, disk_error

app = typer.Typer(
    help="LoRA Darkroom turns a folder of pictures into a LoRA adapter for Stable Diffusion, on your own machine.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=HELP,
)


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


for subject in (cli_new, cli_train, cli_queue, cli_adapters, cli_inspect, cli_tools, cli_compare, cli_machine):
    subject.register(app)


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
