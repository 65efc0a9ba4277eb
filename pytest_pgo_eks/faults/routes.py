"""Pods whose packets lead nowhere, on real Kubernetes: by a privileged helper on their nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_pgo_eks.errors import ExecProblem, Inconclusive, NotFound, PgoEksError
from pytest_pgo_eks.faults import netlink
from pytest_pgo_eks.faults.bench import Proof
from pytest_pgo_eks.faults.node_pod import Helper
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.kube.wait import eventually

_PROVE_S = 30.0
_POLL_S = 0.5
_PROGRAM = Path(netlink.__file__).read_text("utf-8")

Peer = str | Mapping[str, str]


@dataclass
class _Cut:
    """One pod that is cut off: what its helper said, and has to be told to take it back."""

    pod: str
    uid: str
    helper: Helper
    before: int = 0
    told: Mapping[str, Any] = field(default_factory=dict)


class PodsCutOff:
    """Pods that can send to nobody, to ``peers`` only not, or to nobody but ``spare``.

    Proven by packets for which the kernel found no way out of each pod's network. Nothing that was
    sent to them is answered, so they are cut off both ways; only their own node reaches them all the
    same, so that the kubelet's probes still answer. A new connection of theirs fails at once, one
    that is open hangs.
    """

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        pods: Sequence[str],
        *,
        kind: str,
        image: str,
        peers: Sequence[Peer] | None = None,
        spare: Sequence[Peer] | None = None,
    ) -> None:
        self.kind = kind
        self.target = ", ".join(pods)
        self._kube = kube
        self._namespace = namespace
        self._pods = tuple(pods)
        self._image = image
        self._peers = peers
        self._spare = spare
        self._cuts: list[_Cut] = []
        self._helpers: dict[str, Helper] = {}

    def inject(self) -> None:
        peers = None if self._peers is None else self._addresses(self._peers)
        spare = self._addresses(self._spare or ())
        found = [self._kube.get("Pod", pod, self._namespace) for pod in self._pods]
        for pod in found:
            node = pod["spec"].get("nodeName")
            if not node or not (pod.get("status") or {}).get("hostIP"):
                raise Inconclusive(f"pod {pod['metadata']['name']} is on no node")
            if node not in self._helpers:
                self._helpers[node] = Helper(self._kube, self._namespace, node, self._image)
        for pod in found:
            helper = self._helpers[pod["spec"]["nodeName"]]
            cut = _Cut(pod["metadata"]["name"], pod["metadata"]["uid"], helper)
            spared = [*spare, *([pod["status"]["hostIP"]] if peers is None else [])]
            # Counted as done before it is: a helper that dies in between must be told to undo.
            self._cuts.append(cut)
            cut.told = helper.run(_PROGRAM, do="cut", uid=cut.uid, peers=peers, spare=spared)
            cut.before = int(cut.told["unrouted"])

    def prove(self) -> Proof:
        counts = eventually(
            self._dropped,
            accept=lambda seen: bool(seen) and all(seen),
            within_s=_PROVE_S,
            what=f"packets of {self.target} to find no way out",
            successes=1,
            poll_s=_POLL_S,
            show=lambda seen: f"{seen} packets",
        )
        return Proof(
            f"{sum(counts)} packets of {self.target} found no way out",
            {"packets": sum(counts), "pods": len(counts)},
        )

    def undo(self) -> None:
        """Take the routes back; a pod that was replaced has a network without them."""
        first: PgoEksError | None = None
        while self._cuts:
            cut = self._cuts.pop()
            if not cut.told:
                continue
            told = {key: cut.told[key] for key in ("guard", "routes")}
            try:
                if self._is_there(cut):
                    cut.helper.run(_PROGRAM, do="undo", uid=cut.uid, **told)
            except (ExecProblem, NotFound) as error:
                if self._is_there(cut):
                    first = first or error
        for helper in self._helpers.values():
            helper.remove()
        self._helpers.clear()
        if first:
            raise first

    def _dropped(self) -> list[int]:
        return [
            int(cut.helper.run(_PROGRAM, do="count", uid=cut.uid)["unrouted"]) - cut.before
            for cut in self._cuts
        ]

    def _is_there(self, cut: _Cut) -> bool:
        found = self._kube.find("Pod", cut.pod, self._namespace)
        return found is not None and found["metadata"]["uid"] == cut.uid

    def _addresses(self, peers: Sequence[Peer]) -> list[str]:
        """Return IPv4 addresses: of the API server both as pods call it and as it is behind that."""
        found: list[str] = []
        for peer in peers:
            if peer == "api":
                service = self._kube.get("Service", "kubernetes", "default")
                found.append(service["spec"]["clusterIP"])
                slices = self._kube.list(
                    "EndpointSlice", "default", labels={"kubernetes.io/service-name": "kubernetes"}
                )
                found += [
                    address
                    for one in slices
                    for endpoint in one.get("endpoints") or []
                    for address in endpoint["addresses"]
                ]
            elif isinstance(peer, Mapping) and "pod" in peer:
                pod = self._kube.get("Pod", peer["pod"], peer.get("namespace", self._namespace))
                found.append(pod["status"]["podIP"])
            else:
                raise Inconclusive(f"a helper cannot tell the address of {peer!r}")
        return list(dict.fromkeys(found))
