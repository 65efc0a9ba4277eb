"""A kube-apiserver of somebody else's: where it is, and who we are to it, from a kubeconfig."""

from __future__ import annotations

import base64
import binascii
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from pytest_pgo_eks.local.state import InputProblem

_CONNECT_S = 5.0


@dataclass(frozen=True)
class Upstream:
    """Address and credentials. ``tls_name`` is what the server's certificate is checked against."""

    host: str
    port: int
    tls_name: str
    ca: str
    token: str | None
    certificate: str | None
    key: str | None

    def require(self) -> None:
        """Connect once.

        :raises InputProblem: nobody is there.
        """
        try:
            socket.create_connection((self.host, self.port), _CONNECT_S).close()
        except OSError as error:
            raise InputProblem(
                f"--apiserver: nobody answers at {self.host}:{self.port} ({error})"
            ) from error


def read(url: str, kubeconfig: Path) -> Upstream:
    """Take address and credentials from ``--apiserver`` and the kubeconfig's current context.

    :raises InputProblem: one of them cannot be used.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.path not in {"", "/"}:
        raise InputProblem(f"--apiserver {url}: an https URL without a path is needed")
    try:
        config = yaml.safe_load(kubeconfig.read_text())
        context = _named(config, "contexts", config["current-context"])["context"]
        cluster = _named(config, "clusters", context["cluster"])["cluster"]
        user = _named(config, "users", context["user"])["user"]
        ca = _data(cluster, "certificate-authority", kubeconfig)
        certificate = _data(user, "client-certificate", kubeconfig)
        key = _data(user, "client-key", kubeconfig)
    except OSError as error:
        raise InputProblem(f"--kubeconfig: {error.filename}: {error.strerror}") from error
    except (yaml.YAMLError, KeyError, TypeError, StopIteration, binascii.Error) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputProblem(f"--kubeconfig {kubeconfig} is no usable kubeconfig: {why}") from error
    if not ca:
        raise InputProblem(f"--kubeconfig {kubeconfig}: the cluster has no certificate authority")
    if not (user.get("token") or (certificate and key)):
        raise InputProblem(
            f"--kubeconfig {kubeconfig}: the user has neither a token nor a client certificate "
            "(plugins that fetch one cannot run inside the cluster)"
        )
    return Upstream(
        parts.hostname,
        parts.port or 443,
        cluster.get("tls-server-name") or parts.hostname,
        ca,
        user.get("token"),
        certificate,
        key,
    )


def _named(config: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in config[kind] if item["name"] == name)
    return found


def _data(section: dict[str, Any], name: str, kubeconfig: Path) -> str | None:
    if f"{name}-data" in section:
        return base64.b64decode(section[f"{name}-data"]).decode()
    if name in section:
        return Path(kubeconfig.parent, section[name]).read_text()
    return None
