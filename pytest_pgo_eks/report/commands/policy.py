"""``policy``: show a policy that comes with the package, its schema, or check one of yours."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.report.gate.catalogue import combined, scenarios_below, shipped_scenarios
from pytest_pgo_eks.report.gate.policy import (
    SHIPPED,
    load,
    refuse_unknown,
    selects,
    shipped_text,
)

HELP = "print a policy that comes with the package (to copy it), its schema, or check yours"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", choices=SHIPPED, metavar="NAME", help=", ".join(SHIPPED))
    parser.add_argument("--schema", action="store_true", help="print the JSON schema, for editors")
    parser.add_argument("--check", metavar="FILE", help="check a policy and list what it requires")
    parser.add_argument(
        "--features",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="your feature files",
    )


def execute(arguments: argparse.Namespace) -> int:
    asked = [arguments.name, arguments.schema, arguments.check]
    if sum(map(bool, asked)) != 1:
        raise UsageProblem(f"say one of {', '.join(SHIPPED)}, --schema or --check FILE")
    if arguments.schema:
        print(shipped_text("policy.schema.json"), end="")
    elif arguments.name:
        print(shipped_text(f"{arguments.name}.yaml"), end="")
    else:
        policy = load(arguments.check)
        known = combined(shipped_scenarios(), scenarios_below(arguments.features))
        refuse_unknown(policy, known)
        wanted = [
            one for one in known if any(selects(entry, one) for entry in policy.value["required"])
        ]
        for one in wanted:
            print(f"{one.feature} – {one.name}")
        print(f"{policy.name}: {len(wanted)} of {len(known)} scenarios are required")
    return 0
