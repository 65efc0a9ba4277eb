"""What the API fills in: the defaults of every kind, applied to decoded objects in place."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from pytest_pgo_eks.local.objects import Obj


def _set(obj: Obj, **values: Any) -> None:
    for name, value in values.items():
        obj.setdefault(name, value)


def _probe(probe: Obj) -> None:
    _set(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
    _handler(probe)


def _handler(handler: Obj) -> None:
    if "httpGet" in handler:
        _set(handler["httpGet"], path="/", scheme="HTTP")
    if "grpc" in handler:
        _set(handler["grpc"], service="")


def _pull_policy(image: str) -> str:
    name = image.rpartition("/")[2]
    return "Always" if ":" not in name or name.endswith(":latest") else "IfNotPresent"


def _container(container: Obj) -> None:
    if "@" in container.get("image", ""):
        _set(container, imagePullPolicy="IfNotPresent")
    _set(
        container,
        imagePullPolicy=_pull_policy(container.get("image", "")),
        resources={},
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
    )
    for port in container.get("ports") or []:
        _set(port, protocol="TCP")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            _probe(container[name])
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict):
            _handler(hook)
    for variable in container.get("env") or []:
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference is not None:
            _set(reference, apiVersion="v1")
        resource = (variable.get("valueFrom") or {}).get("resourceFieldRef")
        if resource is not None:
            _set(resource, divisor="0")


def _downward(items: list[Obj]) -> None:
    for item in items:
        if "fieldRef" in item:
            _set(item["fieldRef"], apiVersion="v1")
        if "resourceFieldRef" in item:
            _set(item["resourceFieldRef"], divisor="0")


def _volume(volume: Obj) -> None:
    if len(volume) == 1:
        volume["emptyDir"] = {}
    for name in ("secret", "configMap", "projected", "downwardAPI"):
        if name in volume:
            _set(volume[name], defaultMode=420)
    if "hostPath" in volume:
        _set(volume["hostPath"], type="")
    _downward((volume.get("downwardAPI") or {}).get("items") or [])
    for source in (volume.get("projected") or {}).get("sources") or []:
        if "serviceAccountToken" in source:
            _set(source["serviceAccountToken"], expirationSeconds=3600)
        _downward((source.get("downwardAPI") or {}).get("items") or [])
    template = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
    if template:
        _set(template.setdefault("spec", {}), volumeMode="Filesystem")


def pod_spec(spec: Obj) -> None:
    """Fill in what every pod spec gets, in pods and in templates."""
    _set(
        spec,
        restartPolicy="Always",
        terminationGracePeriodSeconds=30,
        dnsPolicy="ClusterFirst",
        schedulerName="default-scheduler",
        securityContext={},
    )
    if "serviceAccountName" in spec:
        spec["serviceAccount"] = spec["serviceAccountName"]
    elif "serviceAccount" in spec:
        spec["serviceAccountName"] = spec["serviceAccount"]
    for name in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(name) or []:
            _container(container)
    for volume in spec.get("volumes") or []:
        _volume(volume)


def _template(spec: Obj) -> None:
    pod_spec(spec.setdefault("template", {}).setdefault("spec", {}))


def pod(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    pod_spec(spec)
    _set(spec, enableServiceLinks=True)
    for container in (spec.get("containers") or []) + (spec.get("initContainers") or []):
        resources = container["resources"]
        for name, value in (resources.get("limits") or {}).items():
            resources.setdefault("requests", {}).setdefault(name, value)


def _deployment(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    strategy = spec.setdefault("strategy", {})
    _set(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _set(strategy.setdefault("rollingUpdate", {}), maxUnavailable="25%", maxSurge="25%")
    _template(spec)


def _stateful_set(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, replicas=1, revisionHistoryLimit=10, podManagementPolicy="OrderedReady")
    strategy = spec.setdefault("updateStrategy", {})
    _set(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _set(strategy.setdefault("rollingUpdate", {}), partition=0)
    retain = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    _set(retain, whenDeleted="Retain", whenScaled="Retain")
    for claim in spec.get("volumeClaimTemplates") or []:
        _set(claim, apiVersion="v1", kind="PersistentVolumeClaim")
        _claim(claim)
        _set(claim.setdefault("status", {}), phase="Pending")
    _template(spec)


def _replica_set(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, replicas=1)
    _template(spec)


def _job_spec(spec: Obj) -> None:
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    _set(spec, parallelism=1, backoffLimit=6, completionMode="NonIndexed", suspend=False)
    policy = "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed"
    _set(spec, podReplacementPolicy=policy)
    _template(spec)


def _job(obj: Obj) -> None:
    _job_spec(obj.setdefault("spec", {}))


def _cron_job(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, concurrencyPolicy="Allow", suspend=False)
    _set(spec, successfulJobsHistoryLimit=3, failedJobsHistoryLimit=1)
    template = spec.setdefault("jobTemplate", {}).setdefault("spec", {})
    _template(template)


def _service(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, type="ClusterIP", sessionAffinity="None")
    if spec["sessionAffinity"] == "ClientIP":
        affinity = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        _set(affinity, timeoutSeconds=10800)
    for port in spec.get("ports") or []:
        _set(port, protocol="TCP")
        if port.get("targetPort") in (None, 0, "") and "port" in port:
            port["targetPort"] = port["port"]
    if spec["type"] != "ExternalName":
        _set(spec, internalTrafficPolicy="Cluster")
    if spec["type"] in {"NodePort", "LoadBalancer"}:
        _set(spec, externalTrafficPolicy="Cluster")
    if spec["type"] == "LoadBalancer":
        _set(spec, allocateLoadBalancerNodePorts=True)


def _endpoints(obj: Obj) -> None:
    for subset in obj.get("subsets") or []:
        for port in subset.get("ports") or []:
            _set(port, protocol="TCP")


def _endpoint_slice(obj: Obj) -> None:
    for port in obj.get("ports") or []:
        _set(port, name="", protocol="TCP")
    _set(obj, endpoints=[])


def _secret(obj: Obj) -> None:
    _set(obj, type="Opaque")
    plain = obj.pop("stringData", None) or {}
    if plain:
        # Another dict: after a patch this one may still be the stored object's.
        encoded = {name: base64.b64encode(text.encode()).decode() for name, text in plain.items()}
        obj["data"] = {**(obj.get("data") or {}), **encoded}


def _claim(obj: Obj) -> None:
    _set(obj.setdefault("spec", {}), volumeMode="Filesystem")


def _volume_object(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, volumeMode="Filesystem", persistentVolumeReclaimPolicy="Retain")
    if "hostPath" in spec:
        _set(spec["hostPath"], type="")
    if "claimRef" in spec:
        _set(spec["claimRef"], kind="PersistentVolumeClaim", apiVersion="v1")


def _storage_class(obj: Obj) -> None:
    _set(obj, reclaimPolicy="Delete", volumeBindingMode="Immediate")


def _namespace(obj: Obj) -> None:
    name = obj["metadata"].get("name")
    if name:
        labels = obj["metadata"].setdefault("labels", {})
        labels["kubernetes.io/metadata.name"] = name


def _policy(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    kinds = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    _set(spec, policyTypes=kinds)
    for rule in (spec.get("ingress") or []) + (spec.get("egress") or []):
        for port in rule.get("ports") or []:
            _set(port, protocol="TCP")


def _binding(obj: Obj) -> None:
    group = "rbac.authorization.k8s.io"
    if isinstance(obj.get("roleRef"), dict):
        _set(obj["roleRef"], apiGroup=group)
    for subject in obj.get("subjects") or []:
        if subject.get("kind") in {"User", "Group"}:
            _set(subject, apiGroup=group)


def _priority_class(obj: Obj) -> None:
    _set(obj, preemptionPolicy="PreemptLowerPriority")


def _quota(obj: Obj) -> None:
    obj.setdefault("spec", {})


def _definition(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    kind = names.get("kind", "")
    _set(names, singular=kind.lower(), listKind=f"{kind}List")
    _set(spec, conversion={"strategy": "None"})


_RBAC = "rbac.authorization.k8s.io"
DEFAULTS: dict[tuple[str, str], Callable[[Obj], None]] = {
    ("", "pods"): pod,
    ("", "services"): _service,
    ("", "endpoints"): _endpoints,
    ("", "secrets"): _secret,
    ("", "persistentvolumeclaims"): _claim,
    ("", "persistentvolumes"): _volume_object,
    ("", "namespaces"): _namespace,
    ("", "resourcequotas"): _quota,
    ("apps", "deployments"): _deployment,
    ("apps", "statefulsets"): _stateful_set,
    ("apps", "replicasets"): _replica_set,
    ("batch", "jobs"): _job,
    ("batch", "cronjobs"): _cron_job,
    ("discovery.k8s.io", "endpointslices"): _endpoint_slice,
    ("storage.k8s.io", "storageclasses"): _storage_class,
    ("networking.k8s.io", "networkpolicies"): _policy,
    ("scheduling.k8s.io", "priorityclasses"): _priority_class,
    (_RBAC, "clusterrolebindings"): _binding,
    (_RBAC, "rolebindings"): _binding,
    ("apiextensions.k8s.io", "customresourcedefinitions"): _definition,
}
