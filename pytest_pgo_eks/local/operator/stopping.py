"""Deleting a cluster: replicas stop first, the primary last, Patroni's records go before the rest."""

from __future__ import annotations

from pytest_pgo_eks.local.objects import ENDPOINTS, POSTGRES_CLUSTER, STATEFUL_SET, labels_of
from pytest_pgo_eks.local.operator import names
from pytest_pgo_eks.local.operator.context import Pass
from pytest_pgo_eks.local.operator.observe import Instance


async def delete_cluster(work: Pass) -> None:
    """Stop instances in order; with none left, drop the finalizer and let garbage be collected.

    A pod labelled as primary is not stopped while another instance's pod exists.
    """
    cluster, observed = work.cluster, work.observed
    if names.FINALIZER not in (cluster.obj["metadata"].get("finalizers") or []):
        return
    living = [each for each in observed.instances if each.pods]
    for instance in living:
        if len(living) == 1 or _may_stop(instance):
            await _stop(work, instance)
    if living:
        return
    selector = f"{names.CLUSTER}={cluster.name},{names.PATRONI}={cluster.patroni_scope}"
    await work.tools.client.delete_collection(ENDPOINTS, cluster.namespace, labels=selector)
    kept = [f for f in cluster.obj["metadata"]["finalizers"] if f != names.FINALIZER]
    await work.store.patch(POSTGRES_CLUSTER, cluster.obj, {"metadata": {"finalizers": kept}})


def _may_stop(instance: Instance) -> bool:
    return all(labels_of(pod).get(names.ROLE) in (None, names.REPLICA) for pod in instance.pods)


async def _stop(work: Pass, instance: Instance) -> None:
    runner = instance.runner
    if runner is not None and runner["spec"].get("replicas") != 0:
        await work.store.patch(STATEFUL_SET, runner, {"spec": {"replicas": 0}})
