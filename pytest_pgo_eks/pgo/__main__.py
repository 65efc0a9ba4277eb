"""``python -m pytest_pgo_eks.pgo``: print the suite's own PostgresCluster, for ``kubectl apply -f -``.

It names a PostgreSQL that the cluster has, which the file as it is shipped cannot know.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

import yaml

from pytest_pgo_eks.errors import PgoEksError
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.pgo.cluster import available_postgres
from pytest_pgo_eks.pgo.manifest import render
from pytest_pgo_eks.settings import POSTGRES_VERSIONS, Settings


class _Quoting(yaml.SafeDumper):
    """Quotes the words that kubectl reads as booleans and PyYAML does not: y and n."""


_Quoting.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"[yYnN]$"), list("yYnN"))


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 printed, 4 bad input or no answer from the cluster (one line)."""
    parser = argparse.ArgumentParser(
        prog="python -m pytest_pgo_eks.pgo",
        description="Print the PostgresCluster that the suite judges, with a PostgreSQL that is "
        "there: pipe it into kubectl apply -f -",
    )
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        help="the cluster to ask for its versions of PostgreSQL (default: $KUBECONFIG, if set)",
    )
    parser.add_argument("--context", help="context of that kubeconfig")
    parser.add_argument("--namespace", default=Settings.namespace, help="%(default)s")
    parser.add_argument(
        "--postgres-version", type=int, choices=POSTGRES_VERSIONS, help="ask nobody, use this one"
    )
    given = parser.parse_args(argv)
    settings = Settings(
        "kubeconfig", namespace=given.namespace, postgres_version=given.postgres_version
    )
    kubeconfig = given.kubeconfig or _from_environment()
    try:
        known: tuple[int, ...] = ()
        if kubeconfig is not None and given.postgres_version is None:
            with Kube(kubeconfig, given.context) as kube:
                known = available_postgres(kube)
        manifest = render(settings, available=known)
    except (PgoEksError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    print(yaml.dump(manifest, Dumper=_Quoting, sort_keys=False), end="")
    return 0


def _from_environment() -> Path | None:
    first = os.environ.get("KUBECONFIG", "").partition(os.pathsep)[0]
    return Path(first) if first else None


if __name__ == "__main__":
    sys.exit(main())
