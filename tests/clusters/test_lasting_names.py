"""What was there before is recognised, although its pods are others by now."""

from __future__ import annotations

from pytest_pgo_eks.clusters.premises import _lasting_name


def test_a_deployments_pod_is_known_by_its_replica_set() -> None:
    def pod(name: str) -> dict[str, object]:
        owner = {"kind": "ReplicaSet", "name": "pgo-548bcf57b9", "controller": True}
        meta = {"name": name, "generateName": "pgo-548bcf57b9-", "ownerReferences": [owner]}
        return {"metadata": meta}

    assert _lasting_name(pod("pgo-548bcf57b9-tfpqv")) == _lasting_name(pod("pgo-548bcf57b9-wghmj"))


def test_every_other_object_is_known_by_its_own_name() -> None:
    job = {"metadata": {"name": "hippo-backup-abcd-1", "generateName": "hippo-backup-abcd-"}}
    assert _lasting_name(job) == "hippo-backup-abcd-1"
