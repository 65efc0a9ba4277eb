"""Run the controllers against any API server: ``python -m pytest_pgo_eks.local.controllers``.

For an API server without controllers of its own (envtest's, or the stand-in's while one looks at a
controller in a debugger), or with ``--only`` for the few it lacks.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pytest_pgo_eks.local.apiclient import ApiClient
from pytest_pgo_eks.local.controllers.context import ControllerConfig
from pytest_pgo_eks.local.controllers.manager import NAMES, run_controllers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until interrupted; 2 for an unusable command line or kubeconfig."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
    )
    only = frozenset(options.only.split(",")) if options.only else None
    unknown = sorted((only or frozenset()) - NAMES)
    if unknown:
        known = ", ".join(sorted(NAMES))
        print(f"unknown controllers: {', '.join(unknown)}; known: {known}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="controllers-") as scratch:
        try:
            client, authority = connect(options.kubeconfig, options.context, Path(scratch))
        except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
            print(f"{options.kubeconfig} is no usable kubeconfig: {error!r}", file=sys.stderr)
            return 2
        config = ControllerConfig(
            storage_root=options.storage_root.resolve(), cluster_ca=authority, only=only
        )
        asyncio.run(_serve(client, config))
    return 0


def connect(kubeconfig: Path, context: str | None, scratch: Path) -> tuple[ApiClient, str]:
    """Return a client for a kubeconfig's context, and the PEM of the cluster's CA.

    Tokens and client certificates are understood, in files or in line; ``scratch`` takes the
    files that in-line values need.

    :raises ValueError: the context or what it names is missing.
    """
    config: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    chosen = _named(config["contexts"], context or config["current-context"])["context"]
    cluster = _named(config["clusters"], chosen["cluster"])["cluster"]
    user = _named(config["users"], chosen["user"])["user"]
    ca_file = _file(cluster, "certificate-authority", kubeconfig.parent, scratch)
    if ca_file is None:
        raise ValueError("the cluster has no certificate-authority")
    certificate = _file(user, "client-certificate", kubeconfig.parent, scratch)
    key = _file(user, "client-key", kubeconfig.parent, scratch)
    token_file = user.get("tokenFile")
    client = ApiClient(
        cluster["server"],
        ca_file=ca_file,
        token=user.get("token"),
        token_file=kubeconfig.parent / token_file if token_file else None,
        certificate=(certificate, key) if certificate and key else None,
        user_agent="pytest-pgo-eks-local/controllers",
    )
    return client, ca_file.read_text()


async def _serve(client: ApiClient, config: ControllerConfig) -> None:
    running = asyncio.create_task(run_controllers(client, config=config))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await client.close()


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for entry in entries:
        if entry["name"] == name:
            return entry
    raise ValueError(f"nothing is named {name!r}")


def _file(entry: dict[str, Any], field: str, beside: Path, scratch: Path) -> Path | None:
    if entry.get(f"{field}-data"):
        path = scratch / field
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as out:
            out.write(base64.b64decode(entry[f"{field}-data"]))
        return path
    return beside / entry[field] if entry.get(field) else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pytest_pgo_eks.local.controllers",
        description="Run the stand-in's controllers against an API server.",
    )
    default = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    parser.add_argument("--kubeconfig", type=Path, default=default)
    parser.add_argument("--context", help="default: the kubeconfig's current one")
    parser.add_argument(
        "--storage-root",
        type=Path,
        default=Path(tempfile.gettempdir()) / "pytest-pgo-eks-volumes",
        help="where provisioned volumes get their directories (default: %(default)s)",
    )
    parser.add_argument(
        "--only", help=f"comma-separated; default: all of {', '.join(sorted(NAMES))}"
    )
    parser.add_argument("--verbose", action="store_true", help="every retry too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
