"""The command line. Exit codes: 0 done, 1 error, 2 bad request, 75 interrupted, 130 by Ctrl-C.

Only the module of the command that is given is imported, so that every command starts as fast as it can.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from pbeauty.errors import BAD_REQUEST, DONE, FAILED, REFUSALS, STOPPED
from pbeauty.files import CONTROL_CHARACTERS
from pbeauty.program import __version__

_COMMANDS = {
    "run": ("run", "play an experiment (under mpirun or srun for more than one rank)"),
    "personas": ("run", "have models write the backgrounds of an experiment into a file, and play nothing"),
    "check": ("check", "say what a run would do, without MPI and without a model"),
    "bench": ("bench", "measure what a round costs beside what the model costs"),
    "watch": ("watch", "show how a run is getting on, from wherever its folder can be read"),
    "doctor": ("doctor", "say what every rank sees, and what is wrong (alone or under mpirun)"),
    "prompts": ("prompts", "list the prompts, or show one as participants get it"),
    "import": ("export", "turn the configuration of AgentScope's published example into ours"),
    "export": ("export", "write a run in another format"),
    "plot": ("analyze", "draw the figures of runs again"),
    "analyze": ("analyze", "statistics by round and group, with intervals; comparisons; variation"),
    "report": ("report", "write one self-contained HTML page about runs"),
}
"""Module and purpose of each command. A module's second command has its name in those of its functions."""
_ENGINES = {"run", "bench", "personas"}
"""Commands that load models."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; given nothing, that of this process, which may end here."""
    given = sys.argv[1:] if arguments is None else arguments
    code = DONE
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for some takes a tenth of a short command
    os.environ.setdefault("TORCH_LOGS", "-torch._library.triton")  # that Triton is missing is no news without a GPU
    if not _ENGINES & set(given[:1]):  # nothing else has use for the thread that numpy would start for every core
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: no other file must get its number, and what is printed
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the terminal's character set lacks is no error
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            options = _parser(given).parse_args(given)
            code = _function(options.name, "command")(options)
        finally:
            sys.stdout.flush()
    except REFUSALS as error:
        print("pbeauty:", CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", str(error)), file=sys.stderr)
        return BAD_REQUEST
    except KeyboardInterrupt:
        return STOPPED
    except OSError as error:
        from pbeauty.job.display import discard_output

        if error.filename is None:  # of a stream, at whose end nothing more must be written to it
            discard_output(sys.stdout)
        if not isinstance(error, BrokenPipeError):  # there, the reader has seen enough
            print(f"pbeauty: {error.filename or 'standard output'}: {error.strerror or error}", file=sys.stderr)
            code = FAILED
    if arguments is None and "vllm" in sys.modules:
        from pbeauty.mpi.world import exit_at_once

        exit_at_once(code)
    return code


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """Of all commands, with the arguments of the one that is given."""
    whole = argparse.ArgumentParser(
        prog="pbeauty",
        description='Plays "guess p times the average" (the p-beauty contest) with LLM participants, as an MPI job.',
    )
    whole.add_argument("--version", action="version", version=f"pbeauty {__version__}")
    commands = whole.add_subparsers(dest="name", required=True, metavar="COMMAND")
    for name, (_, purpose) in _COMMANDS.items():
        parser = commands.add_parser(name, help=purpose, description=purpose)
        if name in given[:1]:
            _function(name, "add_arguments")(parser)
    return whole


def _function(name: str, what: str) -> Any:
    module = _COMMANDS[name][0]
    whole = importlib.import_module(f"pbeauty.cli.{module}")
    return getattr(whole, what if module == name else f"{name}_{what}")
