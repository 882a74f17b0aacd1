"""Arguments and options that several commands take."""

from typing import Annotated

import typer

HELP = {"help_option_names": ["-h", "--help"]}
Set = Annotated[list[str], typer.Option("--set", metavar="a.b=c", help="Change a setting; may be given again.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
WHICH_RUN = 'Run folder, its name, its project\'s name, or "last", the newest made.'
RunName = Annotated[str, typer.Argument(metavar="RUN", help=WHICH_RUN)]
