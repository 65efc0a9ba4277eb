"""From a Service and its pods to Endpoints and EndpointSlices: decided without I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pytest_pgo_eks.local.controllers.pods import is_ready, is_terminal, is_terminating, node_of
from pytest_pgo_eks.local.objects import Obj, labels_of

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
SERVICE_NAME = "kubernetes.io/service-name"
HEADLESS = "service.kubernetes.io/headless"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
SLICES = "endpointslice-controller.k8s.io"
MIRROR = "endpointslicemirroring-controller.k8s.io"
_ZONE = "topology.kubernetes.io/zone"
_MOST = 100  # endpoints per slice, the real controller's default

Port = tuple[str, str, int, str | None]  # name, protocol, port, appProtocol


def selects(service: Obj, pod: Obj) -> bool:
    """Say whether the Service's selector covers the pod."""
    selector: dict[str, str] = service["spec"].get("selector") or {}
    found = labels_of(pod)
    return bool(selector) and all(found.get(n) == v for n, v in selector.items())


def is_headless(service: Obj) -> bool:
    return bool(service["spec"].get("clusterIP") == "None")


def pod_ip(pod: Obj) -> str | None:
    found: str | None = (pod.get("status") or {}).get("podIP")
    return found


def trigger_time(service: Obj, pods: Iterable[Obj]) -> str:
    """Return when the newest fact behind the endpoints came true."""
    times = [service["metadata"].get("creationTimestamp") or ""]
    for pod in pods:
        if is_terminal(pod):
            continue
        times += [
            condition.get("lastTransitionTime") or ""
            for condition in (pod.get("status") or {}).get("conditions") or []
            if condition["type"] == "Ready"
        ]
        times.append(pod["metadata"].get("deletionTimestamp") or "")
    return max(times)


def ports_for(service: Obj, pod: Obj) -> tuple[Port, ...] | None:
    """Return the ports of the Service as this pod serves them; None: it serves none of them.

    A target port that is a name is looked up among the pod's container ports. A headless Service
    without ports has the empty tuple: its addresses count all the same.
    """
    wanted = service["spec"].get("ports") or []
    if not wanted:
        return () if is_headless(service) else None
    found: list[Port] = []
    for port in wanted:
        target = port.get("targetPort") or port["port"]
        number = target if isinstance(target, int) else _named_port(pod, target, port)
        if number is not None:
            found.append(
                (port.get("name", ""), port.get("protocol", "TCP"), number, port.get("appProtocol"))
            )
    return tuple(found) or None


def _named_port(pod: Obj, name: str, port: Obj) -> int | None:
    sidecars = [
        c for c in pod["spec"].get("initContainers") or [] if c.get("restartPolicy") == "Always"
    ]
    for container in [*(pod["spec"].get("containers") or []), *sidecars]:
        for candidate in container.get("ports") or []:
            if candidate.get("name") == name and candidate.get("protocol", "TCP") == port.get(
                "protocol", "TCP"
            ):
                number: int = candidate["containerPort"]
                return number
    return None


def _target(pod: Obj) -> Obj:
    metadata = pod["metadata"]
    return {
        "kind": "Pod",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


def _hostname(service: Obj, pod: Obj) -> str | None:
    """Return the pod's name in DNS, where the Service is the one its subdomain names."""
    spec = pod["spec"]
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        name: str = spec["hostname"]
        return name
    return None


# ---- Endpoints --------------------------------------------------------------------------------


def endpoints_for(service: Obj, pods: Sequence[Obj]) -> Obj:
    """Return the Endpoints object of a Service with a selector."""
    metadata = service["metadata"]
    labels = {**labels_of(service), "endpoints.kubernetes.io/managed-by": "endpoint-controller"}
    if is_headless(service):
        labels[HEADLESS] = ""
    found: Obj = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": {TRIGGER_TIME: trigger_time(service, pods)},
        },
    }
    subsets = _subsets(service, pods)
    if subsets:
        found["subsets"] = subsets
    return found


def _subsets(service: Obj, pods: Sequence[Obj]) -> list[Obj]:
    every = bool(service["spec"].get("publishNotReadyAddresses"))
    groups: dict[tuple[Port, ...], dict[str, list[Obj]]] = {}
    for pod in sorted(pods, key=lambda p: p["metadata"]["name"]):
        ip, ports = pod_ip(pod), ports_for(service, pod)
        if ip is None or ports is None or is_terminal(pod):
            continue
        if is_terminating(pod) and not every:
            continue
        address: Obj = {"ip": ip}
        hostname = _hostname(service, pod)
        if hostname:
            address["hostname"] = hostname
        address |= {"nodeName": node_of(pod), "targetRef": _target(pod)}
        group = groups.setdefault(ports, {"addresses": [], "notReadyAddresses": []})
        group["addresses" if every or is_ready(pod) else "notReadyAddresses"].append(address)
    subsets = []
    for ports, addresses in sorted(groups.items(), key=repr):
        subset: Obj = {name: found for name, found in addresses.items() if found}
        if ports:
            subset["ports"] = [_endpoint_port(port) for port in ports]
        subsets.append(subset)
    return subsets


def _endpoint_port(port: Port) -> Obj:
    name, protocol, number, app_protocol = port
    found: Obj = {"name": name} if name else {}
    found |= {"port": number, "protocol": protocol}
    if app_protocol:
        found["appProtocol"] = app_protocol
    return found


# ---- EndpointSlices ---------------------------------------------------------------------------


def slices_for(service: Obj, pods: Sequence[Obj], zones: dict[str, str]) -> list[Obj]:
    """Return the slices of a Service with a selector, without names; ``zones`` maps node to zone.

    A Service without any pod has one empty slice, as the real controller keeps one.
    """
    groups: dict[tuple[Port, ...], list[Obj]] = {}
    for pod in sorted(pods, key=lambda p: p["metadata"]["name"]):
        ports = ports_for(service, pod)
        if pod_ip(pod) is None or ports is None or is_terminal(pod):
            continue
        groups.setdefault(ports, []).append(_endpoint(service, pod, zones))
    made: list[Obj] = []
    for ports, endpoints in sorted(groups.items(), key=repr) or [((), [])]:
        for first in range(0, max(1, len(endpoints)), _MOST):
            part = endpoints[first : first + _MOST]
            made.append({"endpoints": part, "ports": [_slice_port(port) for port in ports]})
    labels = {
        **labels_of(service),
        MANAGED_BY: SLICES,
        SERVICE_NAME: service["metadata"]["name"],
    }
    if is_headless(service):
        labels[HEADLESS] = ""
    annotations = {TRIGGER_TIME: trigger_time(service, pods)}
    return [_slice(service, labels, annotations, content) for content in made]


def _endpoint(service: Obj, pod: Obj, zones: dict[str, str]) -> Obj:
    every = bool(service["spec"].get("publishNotReadyAddresses"))
    terminating, ready = is_terminating(pod), is_ready(pod)
    found: Obj = {
        "addresses": [pod_ip(pod)],
        "conditions": {
            "ready": every or (ready and not terminating),
            "serving": ready,
            "terminating": terminating,
        },
        "targetRef": _target(pod),
    }
    hostname = _hostname(service, pod)
    if hostname:
        found["hostname"] = hostname
    if node_of(pod):
        found["nodeName"] = node_of(pod)
        if zones.get(node_of(pod)):
            found["zone"] = zones[node_of(pod)]
    return found


def _slice_port(port: Port) -> Obj:
    name, protocol, number, app_protocol = port
    found: Obj = {"name": name, "protocol": protocol, "port": number}
    if app_protocol:
        found["appProtocol"] = app_protocol
    return found


def _slice(owner: Obj, labels: dict[str, str], annotations: dict[str, str], content: Obj) -> Obj:
    metadata = owner["metadata"]
    made: Obj = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": f"{metadata['name']}-",
            "namespace": metadata["namespace"],
            "labels": labels,
            "ownerReferences": [
                {
                    "apiVersion": owner["apiVersion"],
                    "kind": owner["kind"],
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "addressType": "IPv4",
        **content,
    }
    if annotations:
        made["metadata"]["annotations"] = annotations
    return made


def mirrored_slices(endpoints: Obj) -> list[Obj]:
    """Return the slices that mirror Endpoints which something else writes, Patroni for example.

    Annotations are copied, so a slice follows every renewal of a leader record kept there.
    """
    labels = {
        **labels_of(endpoints),
        MANAGED_BY: MIRROR,
        SERVICE_NAME: endpoints["metadata"]["name"],
    }
    annotations = {
        name: value
        for name, value in (endpoints["metadata"].get("annotations") or {}).items()
        if name != "kubectl.kubernetes.io/last-applied-configuration"
    }
    made = []
    for subset in endpoints.get("subsets") or []:
        found = [
            _mirrored(address, ready=ready)
            for field, ready in (("addresses", True), ("notReadyAddresses", False))
            for address in subset.get(field) or []
            if ":" not in address["ip"]
        ]
        ports = [
            {"name": p.get("name", ""), "protocol": p.get("protocol", "TCP"), "port": p["port"]}
            for p in subset.get("ports") or []
        ]
        if found:
            content = {"endpoints": found, "ports": ports}
            made.append(_slice(endpoints, labels, annotations, content))
    return made


def _mirrored(address: Obj, *, ready: bool) -> Obj:
    found: Obj = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
    for name in ("hostname", "nodeName", "targetRef"):
        if address.get(name):
            found[name] = address[name]
    return found


def zones_of(nodes: Iterable[Obj]) -> dict[str, str]:
    """Map node names to zones."""
    return {node["metadata"]["name"]: labels_of(node).get(_ZONE, "") for node in nodes}


def same_slice(known: Obj, wanted: Obj) -> bool:
    """Say whether a slice needs no write. The trigger time alone is no reason for one."""
    return _slice_facts(known) == _slice_facts(wanted)


def _slice_facts(found: Obj) -> tuple[Any, ...]:
    annotations = dict(found["metadata"].get("annotations") or {})
    annotations.pop(TRIGGER_TIME, None)
    return (
        labels_of(found),
        annotations,
        _by_address(found.get("endpoints")),
        found.get("ports") or [],
    )


def _by_address(endpoints: list[Obj] | None) -> list[Obj]:
    return sorted(endpoints or [], key=lambda e: e["addresses"])
