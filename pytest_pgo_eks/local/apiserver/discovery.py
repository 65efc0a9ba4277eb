"""What is served: /version, /api, /apis, and the aggregated form that kubectl asks for."""

from __future__ import annotations

import platform
from collections.abc import Iterator

from pytest_pgo_eks.local.apiserver.resources import Registry, Resource
from pytest_pgo_eks.local.objects import Obj

VERSION = "v1.34.0+stand-in"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def version() -> Obj:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return {
        "major": "1",
        "minor": "34",
        "emulationMajor": "1",
        "emulationMinor": "34",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "33",
        "gitVersion": VERSION,
        "gitCommit": "0" * 40,
        "gitTreeState": "clean",
        "buildDate": "2025-08-27T10:09:04Z",
        "goVersion": "none (stand-in)",
        "compiler": "none",
        "platform": f"linux/{machine}",
    }


def core_versions(address: str) -> Obj:
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def groups(registry: Registry) -> Obj:
    found = [group(name, versions) for name, versions in registry.groups().items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def group(name: str, versions: list[str]) -> Obj:
    listed = [{"groupVersion": f"{name}/{one}", "version": one} for one in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def one_group(registry: Registry, name: str) -> Obj | None:
    versions = registry.groups().get(name)
    if not versions:
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **group(name, versions)}


def _of(registry: Registry, group_name: str, version_name: str) -> Iterator[Resource]:
    for one in sorted(registry, key=lambda resource: resource.plural):
        if one.group == group_name and one.version == version_name:
            yield one


# Subresources whose kind belongs to another group.
_FOREIGN = {
    "Scale": ("autoscaling", "v1"),
    "Eviction": ("policy", "v1"),
    "TokenRequest": ("authentication.k8s.io", "v1"),
}


def resources(registry: Registry, group_name: str, version_name: str) -> Obj | None:
    """Return an APIResourceList, or None for a version that is not served."""
    listed: list[Obj] = []
    for one in _of(registry, group_name, version_name):
        entry: Obj = {
            "name": one.plural,
            "singularName": one.singular,
            "namespaced": one.namespaced,
            "kind": one.kind,
            "verbs": list(one.verbs),
        }
        if one.short_names:
            entry["shortNames"] = list(one.short_names)
        if one.categories:
            entry["categories"] = list(one.categories)
        listed.append(entry)
        for name, (kind, verbs) in sorted(one.subresources.items()):
            below: Obj = {
                "name": f"{one.plural}/{name}",
                "singularName": "",
                "namespaced": one.namespaced,
                "kind": kind,
                "verbs": list(verbs),
            }
            if kind in _FOREIGN:
                below["group"], below["version"] = _FOREIGN[kind]
            listed.append(below)
    if not listed:
        return None
    where = f"{group_name}/{version_name}" if group_name else version_name
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": where,
        "resources": listed,
    }


def _kind(one: Resource, kind: str) -> Obj:
    group_name, version_name = _FOREIGN.get(kind, (one.group, one.version))
    return {"group": group_name, "version": version_name, "kind": kind}


def _aggregated(one: Resource) -> Obj:
    found: Obj = {
        "resource": one.plural,
        "responseKind": _kind(one, one.kind),
        "scope": "Namespaced" if one.namespaced else "Cluster",
        "singularResource": one.singular,
        "verbs": list(one.verbs),
    }
    if one.short_names:
        found["shortNames"] = list(one.short_names)
    if one.categories:
        found["categories"] = list(one.categories)
    if one.subresources:
        found["subresources"] = [
            {"subresource": name, "responseKind": _kind(one, kind), "verbs": list(verbs)}
            for name, (kind, verbs) in sorted(one.subresources.items())
        ]
    return found


def aggregated(registry: Registry, *, core: bool) -> Obj:
    """Return the APIGroupDiscoveryList of /api (``core``) or of /apis."""
    items = []
    for name, versions in registry.groups().items():
        if bool(name) is core:
            continue
        items.append(
            {
                "metadata": {"name": name} if name else {},
                "versions": [
                    {
                        "version": one,
                        "resources": [_aggregated(each) for each in _of(registry, name, one)],
                        "freshness": "Current",
                    }
                    for one in versions
                ],
            }
        )
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }
