"""Faults of the network: partitions, lost packets, lost nodes and zones, with real packets.

No Kubernetes API offers these; the stand-in serves them to its administrator, with counters of
the packets that were dropped. A cluster that has none of it lacks the capability, and scenarios
that ask for it are skipped with that reason.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_pgo_eks.errors import Inconclusive, NotFound
from pytest_pgo_eks.faults.bench import Proof
from pytest_pgo_eks.findings import Number
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.kube.wait import eventually
from pytest_pgo_eks.probe.control import Installed
from pytest_pgo_eks.probe.plan import Login

_PATH = "/stand-in/v1/faults"
# Patroni's next loop, a heartbeat or a client's retry is the packet that proves it.
_PROVE_S = 30.0
_REFUSED_S = 3.0
_DELAYED_S = 20.0

Peer = str | Mapping[str, str]


class PacketsDropped:
    """One or more requests to the stand-in's network; proven by packets that each one dropped.

    ``target`` names what is hit, ``requests`` say how (see the stand-in's ``network/faults.py``).
    Several requests are one fault: every one of them has to be proven.
    """

    def __init__(
        self, kube: Kube, kind: str, target: str, requests: Sequence[Mapping[str, Any]]
    ) -> None:
        self.kind = kind
        self.target = target
        self._kube = kube
        self._requests = [dict(request) for request in requests]
        self._ids: list[str] = []

    def inject(self) -> None:
        for request in self._requests:
            self._ids.append(str(self._kube.raw("POST", _PATH, request)["id"]))

    def prove(self) -> Proof:
        def dropped() -> list[int]:
            return [self._dropped(one) for one in self._ids]

        counts = eventually(
            dropped,
            accept=lambda seen: bool(seen) and all(seen),
            within_s=_PROVE_S,
            what=f"packets of {self.target} to be dropped",
            successes=1,
        )
        numbers: dict[str, Number] = {"packets": sum(counts), "rules": len(counts)}
        return Proof(f"{sum(counts)} packets from and to {self.target} were dropped", numbers)

    def undo(self) -> None:
        """Let packets through again; a rule that is gone already (with its cluster) is fine."""
        first: Exception | None = None
        while self._ids:
            try:
                with contextlib.suppress(NotFound):
                    self._kube.raw("DELETE", f"{_PATH}/{self._ids.pop()}")
            except Inconclusive as error:
                first = first or error
        if first:
            raise first

    def _dropped(self, one: str) -> int:
        evidence = self._kube.raw("GET", f"{_PATH}/{one}")["evidence"]
        return int(evidence["packets_in"]) + int(evidence["packets_out"])


def pod_partitioned(
    kube: Kube,
    namespace: str,
    pods: Sequence[str],
    *,
    kind: str = "pod-partitioned",
    peers: Sequence[Peer] | None = None,
    spare: Sequence[Peer] | None = None,
    direction: str = "both",
    action: str = "drop",
) -> PacketsDropped:
    """Cut pods off from everybody, from ``peers`` only, or from everybody but ``spare``.

    Both are ``"api"``, ``{"pod": …}`` and so on.

    ``direction`` ``out`` drops what they send, ``in`` what is sent to them; ``action`` ``reject``
    answers with resets instead, so that everybody knows at once. The kubelet reaches
    them all the same, so that exec still works and probes still answer.
    """
    requests: list[dict[str, Any]] = []
    for pod in pods:
        wanted: dict[str, Any] = {
            "kind": "partition-pod",
            "namespace": namespace,
            "pod": pod,
            "direction": direction,
        }
        if action != "drop":
            wanted["action"] = action
        for name, given in (("peers", peers), ("spare", spare)):
            if given is not None:
                wanted[name] = [
                    peer if isinstance(peer, str) else {"namespace": namespace, **peer}
                    for peer in given
                ]
        requests.append(wanted)
    who = ", ".join(pods)
    return PacketsDropped(kube, kind, who, requests)


def packets_lost(kube: Kube, namespace: str, pod: str, percent: float) -> PacketsDropped:
    """Drop a share of a pod's packets at random, both ways."""
    request = {"kind": "packet-loss", "namespace": namespace, "pod": pod, "percent": percent}
    return PacketsDropped(kube, "packets-lost", f"{pod} ({percent:g} %)", [request])


def node_partitioned(kube: Kube, node: str) -> PacketsDropped:
    """Cut a node off from everybody: its pods go on running, and nobody can reach them."""
    return PacketsDropped(
        kube, "node-partitioned", node, [{"kind": "partition-node", "node": node}]
    )


def node_lost(kube: Kube, node: str) -> PacketsDropped:
    """Take a node's power: it is cut off and everything on it dies without a word."""
    return PacketsDropped(kube, "node-lost", node, [{"kind": "node-loss", "node": node}])


def zone_lost(kube: Kube, zone: str) -> PacketsDropped:
    """Cut a whole zone off from everything outside it."""
    return PacketsDropped(kube, "zone-lost", zone, [{"kind": "zone-loss", "zone": zone}])


class PacketsDelayed:
    """Every packet of a pod later by ``delay_s``, both ways; proven by how long a session takes.

    Needs a kernel that can delay packets. Opening a session and asking it one question takes
    several round trips, so it must have become longer by at least one delay each way.
    """

    kind = "packets-delayed"

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        pod: str,
        probe: Installed,
        login: Login,
        *,
        delay_s: float,
    ) -> None:
        self.target = pod
        self._delay_s = delay_s
        self._request = {"kind": "delay", "namespace": namespace, "pod": pod, "delay_s": delay_s}
        self._kube = kube
        self._probe = probe
        self._login = login
        self._before_s = 0.0
        self._id: str | None = None

    def inject(self) -> None:
        self._before_s = self._took_s()
        if self._before_s == math.inf:
            raise Inconclusive(f"{self.target} answers nobody even without a delay")
        self._id = str(self._kube.raw("POST", _PATH, self._request)["id"])

    def prove(self) -> Proof:
        now_s = eventually(
            self._took_s,
            accept=lambda took: self._before_s + 2 * self._delay_s <= took < math.inf,
            within_s=_PROVE_S,
            what=f"a session at {self.target} to take {2 * self._delay_s:g} s longer",
            successes=1,
            show=lambda took: f"it took {took:.3f} s, {self._before_s:.3f} s before",
        )
        numbers: dict[str, Number] = {
            "delay_s": self._delay_s,
            "before_s": round(self._before_s, 4),
            "now_s": round(now_s, 4),
        }
        told = f"a session at {self.target} takes {now_s:.3f} s, {self._before_s:.3f} s before"
        return Proof(told, numbers)

    def undo(self) -> None:
        if self._id is not None:
            with contextlib.suppress(NotFound):
                self._kube.raw("DELETE", f"{_PATH}/{self._id}")

    def _took_s(self) -> float:
        """Return the quickest of three sessions; none is endless."""
        answers = self._probe.ask(self._login, "SELECT 1", times=3, deadline_s=_DELAYED_S)
        return min((one.took_s for one in answers if one.ok), default=math.inf)


class PolicyIsolated:
    """A NetworkPolicy that lets nothing in to one pod and nothing out of it.

    Proven by new sessions of a client that arrived before and do not any more. What a network
    does to connections that are open already is its own affair.
    """

    kind = "policy-isolated"

    def __init__(
        self, kube: Kube, namespace: str, pod: str, probe: Installed, login: Login
    ) -> None:
        self.target = pod
        self._kube = kube
        self._namespace = namespace
        self._probe = probe
        self._login = login
        self._name = f"pytest-pgo-eks-isolates-{pod}"[:63].rstrip("-")

    def inject(self) -> None:
        if not self._arrives():
            raise Inconclusive(f"{self.target} answers nobody even without a policy")
        self._kube.create(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": {
                    "podSelector": {
                        "matchLabels": {"statefulset.kubernetes.io/pod-name": self.target}
                    },
                    "policyTypes": ["Ingress", "Egress"],
                },
            }
        )

    def prove(self) -> Proof:
        eventually(
            self._arrives,
            accept=lambda arrives: not arrives,
            within_s=_PROVE_S,
            what=f"NetworkPolicy {self._name} to keep sessions from {self.target}",
        )
        return Proof(f"NetworkPolicy {self._name} keeps new sessions from {self.target}")

    def undo(self) -> None:
        with contextlib.suppress(NotFound):
            self._kube.delete("NetworkPolicy", self._name, self._namespace)

    def _arrives(self) -> bool:
        (answer,) = self._probe.ask(self._login, "SELECT 1", deadline_s=_REFUSED_S)
        # A server that refuses was reached all the same.
        return answer.code not in {"deadline", "timeout", "refused", "reset", "lost"}
