"""Role-based access control over the Role and ClusterRole objects in the store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pytest_pgo_eks.local.apiserver.authentication import Identity
from pytest_pgo_eks.local.apiserver.problems import Problem, forbidden, qualified
from pytest_pgo_eks.local.apiserver.store import Change, Store
from pytest_pgo_eks.local.objects import Obj

GROUP = "rbac.authorization.k8s.io"
_ROLES = (GROUP, "roles")
_CLUSTER_ROLES = (GROUP, "clusterroles")
_BINDINGS = (GROUP, "rolebindings")
_CLUSTER_BINDINGS = (GROUP, "clusterrolebindings")
MASTERS = "system:masters"


@dataclass(frozen=True)
class Attributes:
    """What is asked for: a verb on a resource, or on a ``path`` that is none."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


class Authorizer:
    """Answers whether an identity may do something. Decisions are kept until a role changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._decided: dict[tuple[str, tuple[str, ...], Attributes], bool] = {}
        self._rules: dict[tuple[str, tuple[str, ...]], list[tuple[str, Obj]]] = {}
        store.listeners.append(self._changed)

    def _changed(self, change: Change) -> None:
        if str(change.now.obj.get("apiVersion", "")).startswith(GROUP):
            self._decided.clear()
            self._rules.clear()

    def allows(self, who: Identity, what: Attributes) -> bool:
        if MASTERS in who.groups:
            return True
        key = (who.name, who.groups, what)
        found = self._decided.get(key)
        if found is None:
            if len(self._decided) > 5000:
                self._decided.clear()
            found = any(
                (not where or where == what.namespace) and _covers(rule, what)
                for where, rule in self.rules(who)
            )
            self._decided[key] = found
        return found

    def rules(self, who: Identity) -> list[tuple[str, Obj]]:
        """Return (namespace or ``""`` for everywhere, rule) for everything granted."""
        key = (who.name, who.groups)
        found = self._rules.get(key)
        if found is None:
            found = self._rules[key] = list(self._granted(who))
        return found

    def _granted(self, who: Identity) -> Iterator[tuple[str, Obj]]:
        for stored in self._store.collection(_CLUSTER_BINDINGS):
            if _binds(stored.obj, who, ""):
                yield from (("", rule) for rule in self._role(stored.obj["roleRef"], ""))
        for stored in self._store.collection(_BINDINGS):
            namespace = stored.obj["metadata"]["namespace"]
            if _binds(stored.obj, who, namespace):
                rules = self._role(stored.obj["roleRef"], namespace)
                yield from ((namespace, rule) for rule in rules)

    def _role(self, ref: Obj, namespace: str) -> list[Obj]:
        if ref["kind"] == "ClusterRole":
            found = self._store.get(_CLUSTER_ROLES, "", ref["name"])
        else:
            found = self._store.get(_ROLES, namespace, ref["name"])
        rules: list[Obj] = (found or {}).get("rules") or []
        return rules

    def require(self, who: Identity, what: Attributes) -> None:
        """Refuse what is not allowed.

        :raises Problem: 403 in the words of the real server.
        """
        if self.allows(who, what):
            return
        if what.path:
            why = f'User "{who.name}" cannot {what.verb} path "{what.path}"'
            raise Problem(403, "Forbidden", f"forbidden: {why}", details={})
        resource = what.resource + (f"/{what.subresource}" if what.subresource else "")
        where = f'in the namespace "{what.namespace}"' if what.namespace else "at the cluster scope"
        why = (
            f'User "{who.name}" cannot {what.verb} resource "{resource}" '
            f'in API group "{what.group}" {where}'
        )
        raise forbidden(what.group, what.resource, what.name, why)

    def require_grant(self, who: Identity, role: Obj, plural: str) -> None:
        """Refuse a role with more rights than its author has (no escalation).

        :raises Problem: 403 naming the rules that the author lacks.
        """
        metadata = role["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        if self.allows(who, Attributes("escalate", GROUP, plural, "", namespace, name)):
            return
        lacking = [
            rule
            for rule in role.get("rules") or []
            if not all(self._has(who, one) for one in _questions(rule, namespace))
        ]
        if lacking:
            said = "\n".join(_shown(rule) for rule in lacking)
            why = f'user "{who.name}" (groups={list(who.groups)}) is attempting to grant RBAC permissions '
            raise forbidden(GROUP, plural, name, f"{why}not currently held:\n{said}")

    def _has(self, who: Identity, what: Attributes) -> bool:
        return self.allows(who, what)

    def require_bind(self, who: Identity, binding: Obj, plural: str) -> None:
        """Refuse a binding to a role with more rights than the binder has.

        :raises Problem: 403 as for ``require_grant``.
        """
        ref, metadata = binding.get("roleRef") or {}, binding["metadata"]
        namespace = metadata.get("namespace", "")
        kind = "clusterroles" if ref.get("kind") == "ClusterRole" else "roles"
        what = Attributes("bind", GROUP, kind, "", namespace, ref.get("name", ""))
        if self.allows(who, what):
            return
        role: Obj = {"metadata": metadata, "rules": self._role(ref, namespace)}
        self.require_grant(who, role, plural)


def _questions(rule: Obj, namespace: str) -> Iterator[Attributes]:
    for verb in rule.get("verbs") or []:
        for path in rule.get("nonResourceURLs") or []:
            yield Attributes(verb, path=path)
        for group in rule.get("apiGroups") or []:
            for resource in rule.get("resources") or []:
                plural, _, sub = resource.partition("/")
                what = Attributes(verb, group, plural, sub, namespace)
                names = rule.get("resourceNames") or [""]
                yield from (replace(what, name=name) for name in names)


def _shown(rule: Obj) -> str:
    parts = [
        f"{word}:{rule[name]}"
        for word, name in (
            ("APIGroups", "apiGroups"),
            ("Resources", "resources"),
            ("ResourceNames", "resourceNames"),
            ("NonResourceURLs", "nonResourceURLs"),
            ("Verbs", "verbs"),
        )
        if rule.get(name)
    ]
    return "{" + ", ".join(parts) + "}"


def _binds(binding: Obj, who: Identity, namespace: str) -> bool:
    for subject in binding.get("subjects") or []:
        kind, name = subject.get("kind"), subject.get("name")
        if kind == "User" and name == who.name:
            return True
        if kind == "Group" and name in who.groups:
            return True
        if kind == "ServiceAccount":
            where = subject.get("namespace") or namespace
            if who.name == f"system:serviceaccount:{where}:{name}":
                return True
    return False


def _in(wanted: str, listed: Any) -> bool:
    return bool(listed) and (wanted in listed or "*" in listed)


def _covers(rule: Obj, what: Attributes) -> bool:
    if not _in(what.verb, rule.get("verbs")):
        return False
    if what.path:
        return any(
            what.path == one or (one.endswith("*") and what.path.startswith(one[:-1]))
            for one in rule.get("nonResourceURLs") or []
        )
    if not _in(what.group, rule.get("apiGroups")):
        return False
    listed = rule.get("resources") or []
    if what.subresource:
        wanted = f"{what.resource}/{what.subresource}"
        if not (_in(wanted, listed) or f"*/{what.subresource}" in listed):
            return False
    elif not _in(what.resource, listed):
        return False
    names = rule.get("resourceNames")
    return not names or what.name in names


def resource_name(what: Attributes) -> str:
    """Return ``pods/exec`` or ``deployments.apps/scale``, for messages."""
    name = qualified(what.group, what.resource)
    return f"{name}/{what.subresource}" if what.subresource else name
