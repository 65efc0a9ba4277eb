"""The probe in a real pod of the stand-in cluster: copied in, asked, watching, removed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_pgo_eks.history.history import History
from pytest_pgo_eks.probe import pod
from pytest_pgo_eks.probe.plan import Login

if TYPE_CHECKING:
    from pytest_pgo_eks.clusters.base import ClusterHandle

NAMESPACE = "probe-tests"


@pytest.mark.cluster
def test_a_pod_is_made_used_and_removed(standin: ClusterHandle, tmp_path: Path) -> None:
    from pytest_pgo_eks.kube import Kube

    with Kube(standin.kubeconfig) as kube:
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        agent = pod.ensure(kube, NAMESPACE, within_s=60)
        assert pod.ensure(kube, NAMESPACE, within_s=5).pod == agent.pod
        # A name that only the cluster's DNS knows; what answers there speaks no PostgreSQL.
        api = Login.at("kubernetes.default", 443, user="x", database="x", tls="require")
        nowhere = Login.at("no-such-service", user="x", database="x")
        known, unknown = agent.ask_all([(api, "SELECT 1"), (nowhere, "SELECT 1")], deadline_s=5)
        assert known.code in {"lost", "protocol", "reset"}
        assert unknown.code == "name"
        with agent.start([], tmp_path / "h.jsonl.gz", watch={"namespace": NAMESPACE}) as probe:
            seen = 0
            for _ in range(40):
                seen = probe.stream.wait(seen, 0.25)
                if any(e["kind"] == "cluster" for e in History.of(probe.lines()).events):
                    break
            labels = {"postgres-operator.crunchydata.com/role": "master"}
            kube.patch("Pod", agent.pod, NAMESPACE, {"metadata": {"labels": labels}})
            for _ in range(40):
                seen = probe.stream.wait(seen, 0.25)
                if "→ master" in str(History.of(probe.lines()).events):
                    break
            probe.mark("the label was changed")
        agent.close()
        pod.remove(kube, NAMESPACE)
        kube.delete("Namespace", NAMESPACE)
    history = History.load(tmp_path / "h.jsonl.gz")
    assert history.end == "stopped"
    told = [e["what"] for e in history.events if e["kind"] == "cluster"]
    assert f"pod {agent.pod}: role nothing → master" in told
    assert not [e for e in history.events if e["kind"] == "watch-lost"]
