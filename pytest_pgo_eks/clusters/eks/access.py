"""The way to the API server: a kubeconfig that holds no secret, and asks for a token when it is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pytest_pgo_eks.errors import ApiProblem, UsageProblem
from pytest_pgo_eks.kube import Kube

PROGRAM = ("-m", "pytest_pgo_eks.clusters.eks")
#: What of AWS's settings a token command has to see, wherever it is run from. No key is among them.
_PASSED_ON = ("AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")


def kubeconfig(cluster: Mapping[str, Any], region: str) -> dict[str, Any]:
    """Return a kubeconfig for a cluster as DescribeCluster shows it.

    Its exec plugin is this package's own token command: nothing of the aws program is needed, and no
    token is ever on disk.
    """
    name = cluster["name"]
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": name,
                "cluster": {
                    "server": cluster["endpoint"],
                    "certificate-authority-data": cluster["certificateAuthority"]["data"],
                },
            }
        ],
        "users": [
            {
                "name": name,
                "user": {
                    "exec": {
                        "apiVersion": "client.authentication.k8s.io/v1",
                        "command": sys.executable,
                        "args": [*PROGRAM, "token", "--cluster", name, "--region", region],
                        "env": [
                            {"name": key, "value": os.environ[key]}
                            for key in _PASSED_ON
                            if os.environ.get(key)
                        ]
                        or None,
                        "interactiveMode": "Never",
                        "provideClusterInfo": False,
                    }
                },
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }


def write(found: Mapping[str, Any], path: Path) -> Path:
    """Write a kubeconfig that only its owner may read, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        yaml.safe_dump(dict(found), file, sort_keys=False)
    draft.replace(path)
    return path


def prove(path: Path, name: str, runner: str) -> str:
    """Prove that the API server knows us; return its version.

    A client that sends no token is known as nobody: the server's answer about who asks tells.

    :raises UsageProblem: it does not let us in; the line says how to be let in.
    """
    with Kube(path, request_s=30.0) as kube:
        try:
            version = kube.server_version()
            kube.list("Node")
        except ApiProblem as problem:
            if problem.status in (401, 403):
                raise UsageProblem(
                    f"the API server of {name} does not let {runner} in ({problem.status}): give it "
                    "an access entry (aws eks create-access-entry) with "
                    "AmazonEKSClusterAdminPolicy, or an entry in the ConfigMap aws-auth"
                ) from None
            raise UsageProblem(
                f"the API server of {name} does not answer: {problem}; a private endpoint is reached "
                "from inside its VPC only, a public one from its publicAccessCidrs"
            ) from None
    return version
