"""Whether NetworkPolicies are enforced: shown by two pods, not concluded from a version.

One pod listens, the other tries to connect all the time. It has to succeed, then a policy that
denies everything has to stop it and keep it stopped, and without the policy it has to succeed again.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import Any

from pytest_pgo_eks.errors import ApiProblem, Inconclusive, NotFound, WaitTimeout
from pytest_pgo_eks.kube import Kube, eventually, holds
from pytest_pgo_eks.kube.hardening import pod_spec

Object = dict[str, Any]

_PORT = 8080
_TRY_S = 0.5
# A policy takes effect asynchronously: within a second on most clusters, ten on busy ones.
_EFFECT_S = 20.0
_HOLDS_S = 1.0
_HOPELESS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError")

_LISTEN = f"""
import socket
with socket.create_server(("", {_PORT})) as server:
    while True:
        server.accept()[0].close()
"""
_CONNECT = f"""
import socket, sys
try:
    socket.create_connection((sys.argv[1], {_PORT}), {_TRY_S}).close()
except OSError as error:
    print(type(error).__name__)
else:
    print("connected")
"""
_WAIT = "import signal; signal.pause()"


def problem(kube: Kube, namespace: str, *, image: str, within_s: float) -> str | None:
    """Return None where policies are enforced, else what was seen. Leaves nothing behind."""
    name = f"pgo-policy-{secrets.token_hex(3)}"
    listener, caller = f"{name}-listener", f"{name}-caller"
    try:
        for pod, program in ((listener, _LISTEN), (caller, _WAIT)):
            kube.create(_pod(namespace, pod, program, image))
        address = _running(kube, namespace, listener, within_s)
        _running(kube, namespace, caller, within_s)
        return _seen(kube, namespace, listener, caller, address)
    except (Inconclusive, OSError) as error:
        return f"it could not be tried: {str(error).splitlines()[0]}"
    finally:
        for kind, each in (("NetworkPolicy", name), ("Pod", listener), ("Pod", caller)):
            grace = 0 if kind == "Pod" else None
            with contextlib.suppress(NotFound, ApiProblem):
                kube.delete(kind, each, namespace, grace_s=grace)


def _seen(kube: Kube, namespace: str, listener: str, caller: str, address: str) -> str | None:
    name = listener.removesuffix("-listener")

    def tried() -> str:
        command = ["python3", "-c", _CONNECT, address]
        done = kube.exec(namespace, caller, command, deadline_s=15.0)
        return done.stdout.decode().strip() or done.stderr.decode()[-200:]

    try:
        eventually(
            tried,
            accept=lambda said: said == "connected",
            within_s=_EFFECT_S,
            what="one pod to reach another without a policy",
            successes=1,
        )
    except WaitTimeout as late:
        return f"two pods do not reach each other even without a policy: {late.last_seen}"
    kube.create(_policy(namespace, name, listener))
    try:
        eventually(
            tried,
            accept=lambda said: said != "connected",
            within_s=_EFFECT_S,
            what="a policy that denies everything to stop a connection",
            successes=1,
        )
        holds(
            tried,
            accept=lambda said: said != "connected",
            for_s=_HOLDS_S,
            what="the policy to keep connections stopped",
        )
    except WaitTimeout:
        return f"a policy that denies everything stopped nothing within {_EFFECT_S:g} s"
    kube.delete("NetworkPolicy", name, namespace)
    try:
        eventually(
            tried,
            accept=lambda said: said == "connected",
            within_s=_EFFECT_S,
            what="connections to come back without the policy",
            successes=1,
        )
    except WaitTimeout:
        return "connections did not come back when the policy was gone: something else stopped them"
    return None


def _running(kube: Kube, namespace: str, pod: str, within_s: float) -> str:
    found = eventually(
        lambda: kube.get("Pod", pod, namespace).get("status") or {},
        accept=lambda status: status.get("phase") == "Running" and bool(status.get("podIP")),
        within_s=within_s,
        what=f"pod {pod} to run",
        fail=_hopeless,
        show=lambda status: _waiting(status) or str(status.get("phase")),
        successes=1,
    )
    return str(found["podIP"])


def _waiting(status: Object) -> str | None:
    for one in status.get("containerStatuses") or ():
        if told := (one.get("state") or {}).get("waiting"):
            return f"{told.get('reason')}: {told.get('message', '')}"
    return None


def _hopeless(status: Object) -> str | None:
    told = _waiting(status) or ""
    return told if told.startswith(_HOPELESS) else None


def _pod(namespace: str, name: str, program: str, image: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": pod_spec("python", image, ["python3", "-c", program], grace_s=0),
    }


def _policy(namespace: str, name: str, listener: str) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "podSelector": {"matchLabels": {"app": listener}},
            "policyTypes": ["Ingress"],
        },
    }
