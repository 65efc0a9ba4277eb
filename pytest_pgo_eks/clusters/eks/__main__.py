"""``python -m pytest_pgo_eks.clusters.eks token|sweep``: what is needed of EKS outside of a run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence

from pytest_pgo_eks.clusters.eks.calls import Aws, BotoClients, boto_clients
from pytest_pgo_eks.clusters.eks.names import RUN_TAG, stamp
from pytest_pgo_eks.clusters.eks.sweeping import sweep
from pytest_pgo_eks.clusters.eks.token import make
from pytest_pgo_eks.errors import PgoEksError, UsageProblem
from pytest_pgo_eks.progress import Progress

_USAGE = 4
_LEFT = 1

Reach = Callable[[str | None], Aws]


def main(arguments: Sequence[str] | None = None, reach: Reach | None = None) -> int:
    """Run a command; ``reach`` gives AWS for a region.

    The status is 0, 1 where something is left or would be removed by nobody, 4 for bad input.
    """
    given = _parser().parse_args(arguments)
    try:
        if given.command == "token":
            return _token(given.cluster, given.region)
        return _sweep(given, reach or _reach)
    except UsageProblem as problem:
        print(f"pgo: {problem}", file=sys.stderr)
        return _USAGE
    except PgoEksError as problem:
        print(f"pgo: {problem}", file=sys.stderr)
        return _LEFT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pytest_pgo_eks.clusters.eks")
    commands = parser.add_subparsers(dest="command", required=True)
    token = commands.add_parser("token", help="print a token for kubectl (ExecCredential)")
    token.add_argument("--cluster", required=True)
    token.add_argument("--region", required=True)
    sweeping = commands.add_parser(
        "sweep", help="show what runs past their time left in AWS; with --yes remove it"
    )
    sweeping.add_argument("--region", help="AWS region (the one of your AWS settings)")
    sweeping.add_argument("--run", help="this run, past its time or not")
    sweeping.add_argument("--all", action="store_true", help="every run, past its time or not")
    sweeping.add_argument("--yes", action="store_true", help="really remove")
    return parser


def _reach(region: str | None) -> Aws:
    clients = boto_clients(region)
    found = region or clients.region
    if not found:
        raise UsageProblem("no AWS region is configured; name one with --region or AWS_REGION")
    return Aws(clients, found)


def _token(cluster: str, region: str) -> int:
    clients: BotoClients = boto_clients(region)
    # On standard output alone, for the program that asked; never in a file.
    print(json.dumps(make(clients.session, cluster, region).credential()))
    return 0


def _sweep(given: argparse.Namespace, reach: Reach) -> int:
    aws = reach(given.region)
    progress = Progress(lambda line: print(line, file=sys.stderr))
    outcome = sweep(aws, progress, run=given.run, every=given.all, really=given.yes)
    left = 0
    for found, things in outcome:
        expires = stamp(found.expires) if found.expires else "no time"
        state = "is removed" if given.yes and not things else f"has {len(things)} things"
        print(f"run {found.run} of {found.owner or 'nobody'}, expires {expires}: {state}")
        for thing in things:
            print(f"  {thing}: {thing.removal(aws.region)}")
        left += len(things) if given.yes else 0
    if not outcome and given.run:
        # Names the region: looked for in the wrong one, nothing is found either.
        print(f"nothing in {aws.region} carries the tag {RUN_TAG}={given.run}")
    elif not outcome:
        print(f"no run in {aws.region} is past its time")
    elif not given.yes:
        print("nothing was removed; say --yes to remove it")
    return _LEFT if left else 0


if __name__ == "__main__":
    raise SystemExit(main())
