"""The columns and cells of built-in kinds, as ``kubectl get`` shows them.

A column whose name ends in ``*`` is shown with ``-o wide`` only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_pgo_eks.local.apiserver import pod_printer, workload_printers
from pytest_pgo_eks.local.apiserver.cells import age, created, name, pairs, parts, selector
from pytest_pgo_eks.local.apiserver.times import since
from pytest_pgo_eks.local.objects import Obj

Cells = Callable[[Obj], list[Any]]


def _service(obj: Obj) -> list[Any]:
    spec, status = parts(obj)
    kind = spec.get("type", "ClusterIP")
    external = ",".join(spec.get("externalIPs") or [])
    if kind == "LoadBalancer":
        entries = (status.get("loadBalancer") or {}).get("ingress") or []
        found = ",".join(one.get("ip") or one.get("hostname", "") for one in entries)
        external = ",".join(filter(None, [found, external])) or "<pending>"
    elif kind == "ExternalName":
        external = spec.get("externalName", "")
    ports = []
    for port in spec.get("ports") or []:
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        ports.append(f"{port['port']}{node}/{port.get('protocol', 'TCP')}")
    return [
        name(obj),
        kind,
        spec.get("clusterIP") or "<none>",
        external or "<none>",
        ",".join(ports) or "<none>",
        age(obj),
        pairs(spec.get("selector")),
    ]


def _node(obj: Obj) -> list[Any]:
    spec, status = parts(obj)
    ready = [one for one in status.get("conditions") or [] if one.get("type", "") == "Ready"]
    words = ["Ready" if one.get("status", "") == "True" else "NotReady" for one in ready] or [
        "Unknown"
    ]
    if spec.get("unschedulable"):
        words.append("SchedulingDisabled")
    prefix = "node-role.kubernetes.io/"
    labels = obj["metadata"].get("labels") or {}
    roles = sorted(name[len(prefix) :] for name in labels if name.startswith(prefix))
    info = status.get("nodeInfo") or {}
    addresses: dict[str, str] = {}
    for one in status.get("addresses") or []:
        addresses.setdefault(one.get("type", ""), one.get("address", ""))
    return [
        name(obj),
        ",".join(words),
        ",".join(roles) or "<none>",
        age(obj),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", "<none>"),
        addresses.get("ExternalIP", "<none>"),
        info.get("osImage", "<unknown>"),
        info.get("kernelVersion", "<unknown>"),
        info.get("containerRuntimeVersion", "<unknown>"),
    ]


_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def _modes(modes: list[str] | None) -> str:
    return ",".join(_MODES.get(one, one) for one in modes or [])


def _claim(obj: Obj) -> list[Any]:
    spec, status = parts(obj)
    phase = status.get("phase", "")
    if obj["metadata"].get("deletionTimestamp"):
        phase = "Terminating"
    bound = bool(spec.get("volumeName"))
    return [
        name(obj),
        phase,
        spec.get("volumeName", ""),
        (status.get("capacity") or {}).get("storage", "") if bound else "",
        _modes(status.get("accessModes")) if bound else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or "<unset>",
        age(obj),
        spec.get("volumeMode", "<unset>"),
    ]


def _volume(obj: Obj) -> list[Any]:
    spec, status = parts(obj)
    phase = "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", "")
    claim = spec.get("claimRef") or {}
    return [
        name(obj),
        (spec.get("capacity") or {}).get("storage", ""),
        _modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        phase,
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or "<unset>",
        status.get("reason", ""),
        age(obj),
        spec.get("volumeMode", "<unset>"),
    ]


def _event(obj: Obj) -> list[Any]:
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    first = obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp") or obj.get("eventTime")
    series = obj.get("series") or {}
    last = series.get("lastObservedTime") or obj.get("lastTimestamp")
    last = last or obj.get("deprecatedLastTimestamp") or first
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    said = (
        source.get("component") or obj.get("reportingComponent") or obj.get("reportingController")
    )
    where = source.get("host") or obj.get("reportingInstance")
    kind = about.get("kind", "").lower()
    return [
        since(last),
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{kind}/{about.get('name', '')}",
        about.get("fieldPath", ""),
        ", ".join(filter(None, [said, where])),
        (obj.get("message") or obj.get("note") or "").strip(),
        since(first),
        series.get("count") or obj.get("count") or obj.get("deprecatedCount") or 1,
        name(obj),
    ]


def _listed(found: list[str], limit: int = 3) -> str:
    if not found:
        return "<none>"
    more = f" + {len(found) - limit} more..." if len(found) > limit else ""
    return ",".join(found[:limit]) + more


def _endpoints(obj: Obj) -> list[Any]:
    found = []
    for subset in obj.get("subsets") or []:
        addresses = [one.get("ip", "") for one in subset.get("addresses") or []]
        ports = [one.get("port", "") for one in subset.get("ports") or []]
        if not ports:
            found += addresses
        found += [f"{address}:{port}" for port in ports for address in addresses]
    return [name(obj), _listed(found), age(obj)]


def _slice(obj: Obj) -> list[Any]:
    ports = [str(one.get("port", "*")) for one in obj.get("ports") or []]
    found = [
        address for one in obj.get("endpoints") or [] for address in one.get("addresses") or []
    ]
    unset = "<unset>"
    return [
        name(obj),
        obj.get("addressType", ""),
        _listed(ports) if ports else unset,
        _listed(found) if found else unset,
        age(obj),
    ]


def _config_map(obj: Obj) -> list[Any]:
    size = len(obj.get("data") or {}) + len(obj.get("binaryData") or {})
    return [name(obj), size, age(obj)]


def _secret(obj: Obj) -> list[Any]:
    return [name(obj), obj.get("type", ""), len(obj.get("data") or {}), age(obj)]


def _account(obj: Obj) -> list[Any]:
    return [name(obj), len(obj.get("secrets") or []), age(obj)]


def _namespace(obj: Obj) -> list[Any]:
    return [name(obj), (obj.get("status") or {}).get("phase", ""), age(obj)]


def _role_binding(obj: Obj) -> list[Any]:
    ref = obj.get("roleRef") or {}
    named: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for one in obj.get("subjects") or []:
        who = one.get("name", "")
        if one.get("kind") == "ServiceAccount":
            who = f"{one.get('namespace', '')}/{who}"
        named.setdefault(one.get("kind", ""), []).append(who)
    kinds = ("User", "Group", "ServiceAccount")
    return [
        name(obj),
        f"{ref.get('kind', '')}/{ref.get('name', '')}",
        age(obj),
        *(", ".join(named[kind]) for kind in kinds),
    ]


def _budget(obj: Obj) -> list[Any]:
    spec, status = parts(obj)
    low, high = spec.get("minAvailable"), spec.get("maxUnavailable")
    return [
        name(obj),
        "N/A" if low is None else str(low),
        "N/A" if high is None else str(high),
        status.get("disruptionsAllowed", 0),
        age(obj),
    ]


def _lease(obj: Obj) -> list[Any]:
    return [name(obj), (obj.get("spec") or {}).get("holderIdentity", ""), age(obj)]


def _storage_class(obj: Obj) -> list[Any]:
    annotations = obj["metadata"].get("annotations") or {}
    default = annotations.get("storageclass.kubernetes.io/is-default-class") == "true"
    return [
        name(obj) + (" (default)" if default else ""),
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy", "Delete"),
        obj.get("volumeBindingMode", "<unset>"),
        str(bool(obj.get("allowVolumeExpansion"))).lower(),
        age(obj),
    ]


def _policy(obj: Obj) -> list[Any]:
    return [name(obj), selector((obj.get("spec") or {}).get("podSelector")), age(obj)]


def _priority(obj: Obj) -> list[Any]:
    default = str(bool(obj.get("globalDefault"))).lower()
    return [
        name(obj),
        obj.get("value", 0),
        default,
        age(obj),
        obj.get("preemptionPolicy", ""),
    ]


def _revision(obj: Obj) -> list[Any]:
    owners = obj["metadata"].get("ownerReferences") or []
    owner = next((one for one in owners if one.get("controller")), None)
    kind = f"{owner['kind'].lower()}.{owner['apiVersion'].partition('/')[0]}" if owner else ""
    named = f"{kind}/{owner['name']}" if owner else "<none>"
    return [name(obj), named, obj.get("revision", 0), age(obj)]


def _quota(obj: Obj) -> list[Any]:
    spec, status = parts(obj)
    used = status.get("used") or {}
    asked: list[str] = []
    limits: list[str] = []
    for what, value in sorted((spec.get("hard") or {}).items()):
        text = f"{what}: {used.get(what, '0')}/{value}"
        (limits if what.startswith("limits.") else asked).append(text)
    return [name(obj), ", ".join(asked), ", ".join(limits), age(obj)]


_WORK = ("Containers*", "Images*", "Selector*")
_RBAC = "rbac.authorization.k8s.io"
_BOUND = ("Name", "Role", "Age", "Users*", "Groups*", "ServiceAccounts*")
PRINTERS: dict[tuple[str, str], tuple[tuple[str, ...], Cells]] = {
    ("", "pods"): (pod_printer.COLUMNS, pod_printer.cells),
    ("", "services"): (
        ("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "Selector*"),
        _service,
    ),
    ("", "nodes"): (
        (
            *("Name", "Status", "Roles", "Age", "Version", "Internal-IP*", "External-IP*"),
            *("OS-Image*", "Kernel-Version*", "Container-Runtime*"),
        ),
        _node,
    ),
    ("", "persistentvolumeclaims"): (
        (
            *("Name", "Status", "Volume", "Capacity", "Access Modes", "StorageClass"),
            *("VolumeAttributesClass", "Age", "VolumeMode*"),
        ),
        _claim,
    ),
    ("", "persistentvolumes"): (
        (
            *("Name", "Capacity", "Access Modes", "Reclaim Policy", "Status", "Claim"),
            *("StorageClass", "VolumeAttributesClass", "Reason", "Age", "VolumeMode*"),
        ),
        _volume,
    ),
    ("", "events"): (
        (
            *("Last Seen", "Type", "Reason", "Object", "Subobject*", "Source*", "Message"),
            *("First Seen*", "Count*", "Name*"),
        ),
        _event,
    ),
    ("", "endpoints"): (("Name", "Endpoints", "Age"), _endpoints),
    ("", "configmaps"): (("Name", "Data", "Age"), _config_map),
    ("", "secrets"): (("Name", "Type", "Data", "Age"), _secret),
    ("", "serviceaccounts"): (("Name", "Secrets", "Age"), _account),
    ("", "namespaces"): (("Name", "Status", "Age"), _namespace),
    ("", "resourcequotas"): (("Name", "Request", "Limit", "Age"), _quota),
    ("", "limitranges"): (("Name", "Created At"), created),
    ("apps", "deployments"): (
        ("Name", "Ready", "Up-to-date", "Available", "Age", *_WORK),
        workload_printers.deployment,
    ),
    ("apps", "replicasets"): (
        ("Name", "Desired", "Current", "Ready", "Age", *_WORK),
        workload_printers.replica_set,
    ),
    ("apps", "statefulsets"): (
        ("Name", "Ready", "Age", *_WORK[:2]),
        workload_printers.stateful_set,
    ),
    ("apps", "controllerrevisions"): (("Name", "Controller", "Revision", "Age"), _revision),
    ("batch", "jobs"): (
        ("Name", "Status", "Completions", "Duration", "Age", *_WORK),
        workload_printers.job,
    ),
    ("batch", "cronjobs"): (
        (
            *("Name", "Schedule", "Timezone", "Suspend", "Active", "Last Schedule", "Age"),
            *_WORK,
        ),
        workload_printers.cron_job,
    ),
    ("policy", "poddisruptionbudgets"): (
        ("Name", "Min Available", "Max Unavailable", "Allowed Disruptions", "Age"),
        _budget,
    ),
    ("discovery.k8s.io", "endpointslices"): (
        ("Name", "AddressType", "Ports", "Endpoints", "Age"),
        _slice,
    ),
    ("coordination.k8s.io", "leases"): (("Name", "Holder", "Age"), _lease),
    ("storage.k8s.io", "storageclasses"): (
        (
            *("Name", "Provisioner", "ReclaimPolicy", "VolumeBindingMode"),
            *("AllowVolumeExpansion", "Age"),
        ),
        _storage_class,
    ),
    ("networking.k8s.io", "networkpolicies"): (("Name", "Pod-Selector", "Age"), _policy),
    ("scheduling.k8s.io", "priorityclasses"): (
        ("Name", "Value", "Global-Default", "Age", "PreemptionPolicy"),
        _priority,
    ),
    (_RBAC, "roles"): (("Name", "Created At"), created),
    (_RBAC, "clusterroles"): (("Name", "Created At"), created),
    (_RBAC, "rolebindings"): (_BOUND, _role_binding),
    (_RBAC, "clusterrolebindings"): (_BOUND, _role_binding),
    ("apiextensions.k8s.io", "customresourcedefinitions"): (("Name", "Created At"), created),
}
