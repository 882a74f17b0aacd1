"""The whole command line with the fake engine: `python with_fake_engine.py MODE ARGUMENTS...`."""

import signal
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from app import cli, jobs  # noqa: E402 - the path above makes it importable

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background of a shell ignores Ctrl-C
    jobs.ENGINE = (sys.executable, str(HERE / "fake_engine.py"), sys.argv[1])
    cli.main(sys.argv[2:])
