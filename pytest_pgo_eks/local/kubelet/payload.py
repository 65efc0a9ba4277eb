"""The files of configMap, secret, downwardAPI and projected volumes, rendered from objects."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_pgo_eks.local.kubelet.environment import Lookup, data_of
from pytest_pgo_eks.local.kubelet.references import Place, field, resource
from pytest_pgo_eks.local.objects import Obj

DEFAULT_MODE = 0o644
RENDERED = ("configMap", "secret", "downwardAPI", "projected")


class NotYet(Exception):
    """A volume's source does not exist (yet): the pod waits, and FailedMount says this."""


@dataclass(frozen=True)
class Content:
    """One file of a volume."""

    data: bytes
    mode: int


@dataclass(frozen=True)
class Needs:
    """What rendering looks up. ``token`` returns a service account token for a token source."""

    secret: Lookup
    config_map: Lookup
    token: TokenLookup
    place: Place


TokenLookup = Mapping[tuple[str, int], str]


def token_key(source: Mapping[str, Any]) -> tuple[str, int]:
    """Return what tells one requested token from another: (audience, seconds)."""
    return source.get("audience") or "", int(source.get("expirationSeconds") or 3600)


def token_sources(pod: Obj) -> list[Mapping[str, Any]]:
    """Return the serviceAccountToken sources of all projected volumes of a pod."""
    return [
        source["serviceAccountToken"]
        for volume in pod["spec"].get("volumes") or []
        for source in (volume.get("projected") or {}).get("sources") or []
        if source.get("serviceAccountToken")
    ]


def references(pod: Obj) -> tuple[set[str], set[str]]:
    """Return the names of the Secrets and ConfigMaps that the pod's volumes show."""
    secrets, config_maps = set(), set()
    for volume in pod["spec"].get("volumes") or []:
        projected = (volume.get("projected") or {}).get("sources") or []
        for source in (volume, *projected):
            if source.get("secret"):
                secrets.add(source["secret"].get("secretName") or source["secret"].get("name"))
            if source.get("configMap"):
                config_maps.add(source["configMap"]["name"])
    return secrets, config_maps


def render(pod: Obj, volume: Mapping[str, Any], needs: Needs) -> dict[str, Content]:
    """Return the volume's files by relative path.

    :raises NotYet: a source or one of its named keys does not exist and is not optional.
    :raises Unresolvable: a field that can never be resolved.
    """
    if volume.get("projected"):
        source = volume["projected"]
        mode = _mode(source, DEFAULT_MODE)
        files: dict[str, Content] = {}
        for part in source.get("sources") or []:
            files |= _part(pod, part, needs, mode)
        return files
    kind = next(kind for kind in RENDERED if volume.get(kind) is not None)
    return _part(pod, volume, needs, _mode(volume[kind], DEFAULT_MODE))


def _part(pod: Obj, part: Mapping[str, Any], needs: Needs, mode: int) -> dict[str, Content]:
    if part.get("secret"):
        name = part["secret"].get("secretName") or part["secret"]["name"]
        return _keys(part["secret"], "secret", name, needs.secret(name), mode)
    if part.get("configMap"):
        name = part["configMap"]["name"]
        return _keys(part["configMap"], "configmap", name, needs.config_map(name), mode)
    if part.get("downwardAPI") is not None:
        return _downward(pod, part["downwardAPI"], needs, mode)
    if part.get("serviceAccountToken"):
        source = part["serviceAccountToken"]
        token = needs.token.get(token_key(source))
        if token is None:
            raise NotYet("failed to fetch token: none has been issued yet")
        return {_path(source["path"]): Content(token.encode(), mode)}
    return {}


def _keys(
    source: Mapping[str, Any], what: str, name: str, obj: Obj | None, mode: int
) -> dict[str, Content]:
    optional = bool(source.get("optional"))
    if obj is None:
        if optional:
            return {}
        raise NotYet(f'{what} "{name}" not found')
    content = data_of(obj)
    items = source.get("items")
    if items is None:
        return {key: Content(data, mode) for key, data in content.items()}
    files = {}
    for item in items:
        if item["key"] in content:
            files[_path(item["path"])] = Content(content[item["key"]], _mode(item, mode, "mode"))
        elif not optional:
            raise NotYet(f"references non-existent {what} key: {item['key']}")
    return files


def _downward(pod: Obj, source: Mapping[str, Any], needs: Needs, mode: int) -> dict[str, Content]:
    files = {}
    for item in source.get("items") or []:
        if item.get("fieldRef"):
            text = field(pod, item["fieldRef"]["fieldPath"], needs.place)
        else:
            text = resource(pod, "", item["resourceFieldRef"], needs.place)
        files[_path(item["path"])] = Content(text.encode(), _mode(item, mode, "mode"))
    return files


def _mode(source: Mapping[str, Any], default: int, key: str = "defaultMode") -> int:
    # As asked, without the group bits that fsGroup adds on Kubernetes: there the files belong to
    # root, here to the container's own user, and PostgreSQL refuses a key of its own user that
    # the group may read.
    found = source.get(key)
    return default if found is None else int(found)


def _path(path: str) -> str:
    clean = posixpath.normpath(path)
    if clean.startswith(("/", "..")):
        raise NotYet(f"a volume's file must stay inside it: {path}")
    return clean
