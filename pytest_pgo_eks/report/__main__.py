"""``python -m pytest_pgo_eks.report COMMAND …``: work with the report of a finished run, offline.

Every module in :mod:`pytest_pgo_eks.report.commands` is a command of its own name: ``HELP`` is its
line in the list, ``configure(parser)`` adds its arguments, ``execute(arguments)`` returns the exit
status. Bad input ends with one line and status 4, as in a run.
"""

from __future__ import annotations

import argparse
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn, Protocol, cast

from pytest_pgo_eks.errors import PgoEksError, UsageProblem
from pytest_pgo_eks.report import commands

EXIT_USAGE = 4
_PROGRAM = "python -m pytest_pgo_eks.report"


class Command(Protocol):
    """What a module of a command holds."""

    HELP: str

    def configure(self, parser: argparse.ArgumentParser) -> None: ...

    def execute(self, arguments: argparse.Namespace) -> int: ...


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageProblem(f"{message} (see {self.prog} --help)")


def known() -> dict[str, Command]:
    """Return the commands by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(commands.__path__))
    return {
        name: cast("Command", import_module(f"{commands.__name__}.{name}"))
        for name in names
        if not name.startswith("_")
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status of the process."""
    parser = _Parser(prog=_PROGRAM, description="Work with the report of a finished run, offline.")
    chosen = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    by_name = known()
    for name, command in by_name.items():
        command.configure(chosen.add_parser(name, help=command.HELP, description=command.HELP))
    try:
        found = parser.parse_args(arguments)
        return by_name[found.command].execute(found)
    except UsageProblem as problem:
        print(f"pgo: {problem}", file=sys.stderr)
        return EXIT_USAGE
    except PgoEksError as error:
        print(f"pgo: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
