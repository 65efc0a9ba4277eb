"""From a kubeconfig and a context to a server that answers; or one line that says what to change."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from pytest_pgo_eks.clusters import certificates
from pytest_pgo_eks.errors import ApiProblem, UsageProblem
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.settings import Settings, nearest

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_FIRST_ANSWER_S = 8.0


@dataclass(frozen=True)
class Access:
    """A way to a cluster: a kubeconfig of the user's, or one made for a pod's service account."""

    kubeconfig: Path
    context: str
    cluster: str
    server: str
    user: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"Access({self.context!r} of {self.kubeconfig}, {self.server})"


def find(
    settings: Settings,
    state: Path,
    environment: Mapping[str, str] | None = None,
    account: Path = SERVICE_ACCOUNT,
) -> Access:
    """Return the access that the settings name, or what kubectl would use.

    In a pod without any kubeconfig that is the pod's own service account; the kubeconfig for it is
    written below ``state`` and names the token's file, so a rotated token is read again.

    :raises UsageProblem: there is none, or it has no such context.
    """
    env = os.environ if environment is None else environment
    path, where = settings.kubeconfig, "--pgo-kubeconfig"
    if path is None and env.get("KUBECONFIG"):
        where = "KUBECONFIG"
        files = [one for one in env["KUBECONFIG"].split(os.pathsep) if one]
        if len(files) > 1:
            raise UsageProblem(
                f"KUBECONFIG names {len(files)} files; name the one to use with --pgo-kubeconfig"
            )
        path = Path(files[0]).expanduser()
    if path is None and env.get("KUBERNETES_SERVICE_HOST") and (account / "token").exists():
        path, where = _of_service_account(env, account, state), "the pod's service account"
    if path is None:
        path, where = Path.home() / ".kube" / "config", "kubectl's own file"
    if not path.is_file():
        raise UsageProblem(
            f"{where}: there is no kubeconfig {path}; name one with --pgo-kubeconfig=FILE "
            "(kubectl config view --raw --minify shows what it needs)"
        )
    return _read(path.absolute(), settings.context)


def _of_service_account(env: Mapping[str, str], account: Path, state: Path) -> Path:
    host, port = env["KUBERNETES_SERVICE_HOST"], env.get("KUBERNETES_SERVICE_PORT", "443")
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    name = "in-cluster"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": name,
                "cluster": {"server": server, "certificate-authority": str(account / "ca.crt")},
            }
        ],
        "users": [{"name": name, "user": {"tokenFile": str(account / "token")}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    path = state / "in-cluster.kubeconfig"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document), "utf-8")
    return path


def _read(path: Path, context: str | None) -> Access:
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
        contexts = {one["name"]: one["context"] or {} for one in found.get("contexts") or ()}
        clusters = {one["name"]: one["cluster"] or {} for one in found.get("clusters") or ()}
        users = {one["name"]: one["user"] or {} for one in found.get("users") or ()}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"kubeconfig {path} cannot be read: {error}") from None
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        raise UsageProblem(
            f"kubeconfig {path} is none: a YAML file with clusters, users and contexts is needed"
        ) from None
    chosen = context or found.get("current-context")
    if not chosen:
        raise UsageProblem(
            f"kubeconfig {path} has no current context; name one with --pgo-context: "
            f"{', '.join(contexts) or 'it has none'}"
        )
    if chosen not in contexts:
        raise UsageProblem(
            f"kubeconfig {path} has no context {chosen!r}{nearest(chosen, contexts)}; "
            f"it has {', '.join(contexts) or 'none'}"
        )
    told = contexts[chosen]
    cluster = clusters.get(told.get("cluster", ""), {})
    if not cluster.get("server"):
        raise UsageProblem(
            f"kubeconfig {path}: context {chosen!r} leads to cluster {told.get('cluster')!r}, "
            "of which the file names no server"
        )
    user = users.get(told.get("user", ""), {})
    return Access(path, chosen, str(told["cluster"]), str(cluster["server"]), user)


def connect(access: Access) -> Kube:
    """Return a client that has been answered.

    :raises UsageProblem: the server cannot be reached, or does not accept the credentials.
    """
    problem = _stale(access)
    if problem:
        raise UsageProblem(f"{_who(access)}: {problem}")
    # The library logs what an exec plugin wrote, and goes on without credentials.
    kube = Kube(access.kubeconfig, access.context, request_s=_FIRST_ANSWER_S)
    try:
        # Any identity may ask what it may do; an anonymous one, or an expired one, may not.
        kube.raw(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}},
            },
        )
    except ApiProblem as error:
        kube.close()
        raise UsageProblem(f"{_who(access)}: {explained(access, error)}") from None
    kube.request_s = 30.0
    return kube


def explained(access: Access, error: ApiProblem) -> str:
    """Return what an API problem of the first request means, and what to do."""
    said = " ".join(str(error).split()).partition("selfsubjectaccessreviews: ")[2] or str(error)
    if error.status == 401 or "system:anonymous" in said:
        return (
            f"the server does not accept the credentials ({_kind_of(access.user)}): they expired, "
            "or belong to another cluster; renew them (log in again) and try "
            f"kubectl --context {access.context} auth whoami"
        )
    if error.status:
        return f"the server answers, but refuses: {said}"
    if "certificate has expired" in said:
        return f"the certificate of the server {access.server} has expired; renew it"
    if "CERTIFICATE_VERIFY_FAILED" in said or "TLS failed" in said or "hostname" in said:
        return (
            f"the server {access.server} is not the one the kubeconfig trusts ({said}); "
            "fetch the kubeconfig again"
        )
    return (
        f"the server {access.server} cannot be reached ({said}); is the cluster up, and is a VPN, "
        "a proxy or a firewall in between?"
    )


def _who(access: Access) -> str:
    return f"context {access.context!r} of {access.kubeconfig}"


def _kind_of(user: Mapping[str, Any]) -> str:
    if "exec" in user:
        return f"from the program {user['exec'].get('command')}"
    if "token" in user or "tokenFile" in user:
        return "a token"
    if "client-certificate" in user or "client-certificate-data" in user:
        return "a client certificate"
    return "none in the kubeconfig"


def _stale(access: Access) -> str | None:
    """Return what is wrong with the credentials as far as the file alone tells."""
    user = access.user
    if isinstance(user.get("exec"), Mapping):
        command = str(user["exec"].get("command", ""))
        here = access.kubeconfig.parent / command
        if shutil.which(command) is None and not ("/" in command and here.exists()):
            return f"it needs the program {command!r}, which is not on PATH; install it"
    pem = _certificate(user, access.kubeconfig.parent)
    end = certificates.ends(pem) if pem else None
    if end is not None and end < datetime.now(UTC):
        return f"its client certificate expired on {end:%Y-%m-%d %H:%M} UTC; fetch a new kubeconfig"
    return None


def _certificate(user: Mapping[str, Any], base: Path) -> str | None:
    try:
        if data := user.get("client-certificate-data"):
            return base64.b64decode(data).decode("ascii")
        if path := user.get("client-certificate"):
            return (base / str(path)).read_text("ascii")
    except (OSError, ValueError):
        return None
    return None
