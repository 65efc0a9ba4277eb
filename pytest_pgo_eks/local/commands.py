"""The commands of ``python -m pytest_pgo_eks.local``: up, down, status, preflight, manifests.

Exit status: 0 done, 1 it broke (the reason is said), 4 the input or this host cannot work (one
line, nothing created), 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pytest_pgo_eks.local import launch, preflight, state, upstream
from pytest_pgo_eks.local.launch import Interrupted, Request, StartFailed
from pytest_pgo_eks.local.operator.manifests import manifests
from pytest_pgo_eks.local.state import InputProblem, StateDir

_FAILED, _USAGE, _INTERRUPTED = 1, 4, 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.exit(_USAGE, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m pytest_pgo_eks.local",
        description="The stand-in cluster: PostgreSQL and Patroni on a stand-in Kubernetes.",
    )
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)

    up = commands.add_parser("up", help="start a cluster; it goes on in the background")
    up.add_argument("--name", help="its name (default: local)")
    up.add_argument("--state-dir", type=Path, help="where it keeps everything it writes")
    up.add_argument("--owner-pid", type=int, help="remove the cluster when this process ends")
    up.add_argument("--postgres-version", type=int, help="a PostgreSQL that must be there")
    up.add_argument("--operator-version", help="the PGO release to stand in for")
    up.add_argument("--no-operator", action="store_true", help="install no operator")
    up.add_argument("--apiserver", metavar="URL", help="attach to this API server, run none")
    up.add_argument("--kubeconfig", type=Path, help="the administrator's, for --apiserver")
    up.add_argument(
        "--egress", type=Path, metavar="SOCKET", help="where that server looks for its kubelets"
    )
    up.add_argument("--json", action="store_true", help="end with one line of JSON")

    down = commands.add_parser("down", help="end a cluster and remove everything it wrote")
    which = down.add_mutually_exclusive_group()
    which.add_argument("--name", help="which one (default: local)")
    which.add_argument("--state-dir", type=Path, help="the one in this directory")
    which.add_argument("--all", action="store_true", help="all of this user's clusters")

    status = commands.add_parser("status", help="list this user's clusters, living and dead")
    status.add_argument("--json", action="store_true")

    made = commands.add_parser("manifests", help="print what installs the stand-in's operator")
    made.add_argument("--operator-version", default="6.0", help="the PGO release to stand in for")

    check = commands.add_parser("preflight", help="say whether this machine can run a cluster")
    check.add_argument("--postgres-version", type=int)
    check.add_argument("--json", action="store_true")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    commands = {
        "up": _up,
        "down": _down,
        "status": _status,
        "preflight": _preflight,
        "manifests": _manifests,
    }
    try:
        return commands[options.command](options)
    except InputProblem as problem:
        _complain(str(problem))
        return _USAGE
    except StartFailed as problem:
        _complain(f"the cluster did not start: {problem}")
        return _FAILED
    except (Interrupted, KeyboardInterrupt):
        _complain("interrupted: nothing is left")
        return _INTERRUPTED
    except OSError as problem:
        _complain(str(problem))
        return _FAILED


def _complain(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _say(line: str) -> None:
    print(line, flush=True)


def _up(options: argparse.Namespace) -> int:
    name, place = state.place(options.name, options.state_dir)
    if bool(options.apiserver) != bool(options.kubeconfig):
        raise InputProblem("--apiserver and --kubeconfig go together")
    if options.egress and not options.apiserver:
        raise InputProblem("--egress is for --apiserver")
    kubeconfig = options.kubeconfig.absolute() if options.kubeconfig else None
    request = Request(
        name,
        place,
        owner_pid=options.owner_pid,
        postgres_version=options.postgres_version,
        operator=not options.no_operator,
        operator_version=options.operator_version,
        upstream=upstream.read(options.apiserver, kubeconfig) if kubeconfig else None,
        kubeconfig=kubeconfig,
        egress=options.egress.absolute() if options.egress else None,
    )
    ready = launch.start(request, _say)
    if options.json:
        _say(json.dumps(ready))
        return 0
    _say(f"cluster {name!r} is up (stand-in, Kubernetes {ready['kubernetes_version']})")
    _say(f"  kubectl --kubeconfig {ready['kubeconfig']} get pods -A")
    _say(f"  log:    {place.log_file}")
    _say(f"  remove: {state.PROGRAM} down --name {name}")
    return 0


def _down(options: argparse.Namespace) -> int:
    if options.all:
        found = list(state.everything())
        if not found:
            _say("no stand-in cluster is here")
    else:
        found = [_named(options)]
    failed = False
    for name, place in found:
        try:
            launch.stop(place, _say)
        except OSError as problem:
            failed = True
            _complain(f"cluster {name!r} in {place.path} was not removed whole: {problem}")
        else:
            _say(f"cluster {name!r} is removed")
    return _FAILED if failed else 0


def _named(options: argparse.Namespace) -> tuple[str, StateDir]:
    if options.state_dir is not None:
        return state.place(None, options.state_dir)
    name = state.check_name(options.name or "local")
    for known, place in state.everything():
        if known == name:
            return known, place
    raise InputProblem(f"there is no stand-in cluster named {name!r} (see status)")


def _status(options: argparse.Namespace) -> int:
    rows = [_row(name, place) for name, place in state.everything()]
    if options.json:
        _say(json.dumps(rows))
        return 0
    if not rows:
        _say("no stand-in cluster is here")
    for row in rows:
        line = f"{row['name']:<20} {row['state']:<9} {row['state_dir']}"
        if row["state"] == "dead":
            line += f"  (its supervisor is gone: down --name {row['name']} removes what is left)"
        _say(line)
    return 0


def _row(name: str, place: StateDir) -> dict[str, Any]:
    record = place.record()
    life = place.life()
    return {
        "name": name,
        "state": life,
        "state_dir": str(place.path),
        "pid": record.pid if record and life != "dead" else None,
        "owner_pid": record.owner_pid if record else None,
        "kubeconfig": str(place.kubeconfig) if life == "running" else None,
    }


def _manifests(options: argparse.Namespace) -> int:
    try:
        objects = manifests(options.operator_version)
    except ValueError as error:
        raise InputProblem(f"--operator-version: {error}") from None
    _say(yaml.safe_dump_all(objects, sort_keys=False))
    return 0


def _preflight(options: argparse.Namespace) -> int:
    problems = preflight.check(options.postgres_version)
    if options.json:
        found = [{"what": p.what, "remedy": p.remedy} for p in problems]
        _say(
            json.dumps(
                {
                    "ok": not problems,
                    "problems": found,
                    "postgres_versions": preflight.postgres_versions(),
                }
            )
        )
    else:
        for problem in problems:
            _complain(str(problem))
        if not problems:
            versions = ", ".join(map(str, preflight.postgres_versions()))
            _say(f"this machine can run a stand-in cluster (PostgreSQL {versions})")
    return _USAGE if problems else 0
