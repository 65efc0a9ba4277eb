"""Applying an operator's objects, remembering which of them are ours, and removing exactly those."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pytest_pgo_eks.errors import ApiProblem, ClusterProblem, Conflict, Inconclusive, NotFound
from pytest_pgo_eks.kube import Kube, eventually
from pytest_pgo_eks.pgo import names
from pytest_pgo_eks.progress import Progress, silent

Object = dict[str, Any]
# Whoever needs something comes after it; the operator itself last.
_FIRST = ("Namespace", "CustomResourceDefinition", "ServiceAccount", "ClusterRole", "Role")
_LAST = ("Deployment",)
_GONE_S = 120.0


@dataclass(frozen=True)
class Made:
    """One object that an installation created; ``uid`` is empty until it has been."""

    kind: str
    name: str
    namespace: str | None
    uid: str = ""


@dataclass(frozen=True)
class Installed:
    """What an installation created, in the order of creation. What was there before is not in it.

    ``kubeconfig`` and ``context`` lead a later process to the cluster.
    """

    made: tuple[Made, ...] = ()
    kubeconfig: str = ""
    context: str | None = None

    def write(self, path: Path) -> None:
        """Keep it where a later process finds it."""
        draft = path.with_name(f".{path.name}.tmp")
        draft.write_text(json.dumps(asdict(self), indent=1), "utf-8")
        draft.replace(path)

    @classmethod
    def read(cls, path: Path) -> Installed:
        found = json.loads(path.read_text("utf-8"))
        return cls(**{**found, "made": tuple(Made(**one) for one in found["made"])})

    def plus(self, one: Made) -> Installed:
        return replace(self, made=(*self.made, one))


def install(
    kube: Kube,
    objects: Sequence[Object],
    record: Path,
    *,
    within_s: float,
    progress: Progress | None = None,
) -> Installed:
    """Apply the objects in an order that works; ``record`` is kept up to date before each creation.

    A definition that is there already stays as it is unless it lacks a version that is needed: it
    belongs to somebody else's operator as well.

    :raises Conflict: somebody else owns a field of an object that is there already.
    :raises Inconclusive: a definition is not established in time.
    """
    done = Installed.read(record) if record.exists() else Installed()
    with (progress or silent()).phase("installing the operator") as phase:
        for one in _ordered(objects):
            meta = one["metadata"]
            name, namespace = meta["name"], meta.get("namespace")
            kind = f"{one['apiVersion']}/{one['kind']}" if "/" in one["apiVersion"] else one["kind"]
            phase.say(f"{one['kind']} {name}")
            before = kube.find(kind, name, namespace)
            if before is None:
                # Known before it exists: a process that dies here leaves no orphan behind.
                done.plus(Made(kind, name, namespace)).write(record)
                uid = kube.apply(one)["metadata"]["uid"]
                done = done.plus(Made(kind, name, namespace, uid))
                done.write(record)
            elif one["kind"] == "CustomResourceDefinition" and _spared(before, one, done.made):
                continue
            elif one["kind"] != "Namespace":
                kube.apply(one)
        _until_established(kube, objects, within_s)
    return done


def uninstall(kube: Kube, record: Path, *, progress: Progress | None = None) -> list[str]:
    """Remove what the record names, and the record; return what was kept, with the reason.

    Definitions stay while anybody uses them: removing one removes every cluster it describes.

    :raises ClusterProblem: something could not be removed.
    """
    if not record.exists():
        return []
    kept: list[str] = []
    left: list[str] = []
    with (progress or silent()).phase("removing the operator") as phase:
        for one in reversed(Installed.read(record).made):
            phase.say(f"{one.kind} {one.name}")
            if one.kind.endswith("/CustomResourceDefinition") and (
                reason := _in_use(kube, one.name)
            ):
                kept.append(f"{one.name}: {reason}")
                continue
            try:
                _remove(kube, one)
            except ApiProblem as problem:
                left.append(f"{one.kind} {one.name}: {problem}")
    if left:
        raise ClusterProblem(f"the operator was not removed whole: {'; '.join(left)}")
    record.unlink()
    return kept


def _remove(kube: Kube, one: Made) -> None:
    with contextlib.suppress(NotFound):
        try:
            kube.delete(one.kind, one.name, one.namespace, uid=one.uid or None)
        except Conflict:
            return  # another object of that name: not ours
        if one.kind == "Namespace":
            return  # its end takes as long as that of everything in it
        eventually(
            lambda: kube.find(one.kind, one.name, one.namespace),
            accept=lambda found: found is None or found["metadata"]["uid"] != one.uid,
            within_s=_GONE_S,
            what=f"{one.kind} {one.name} to be gone",
            show=lambda found: "still there" if found else "gone",
            successes=1,
        )


def _spared(there: Object, wanted: Object, ours: Sequence[Made]) -> bool:
    """Say whether a definition is somebody else's and good enough as it is."""
    if any(one.uid == there["metadata"]["uid"] for one in ours):
        return False
    served = {one["name"] for one in there["spec"].get("versions") or [] if one.get("served")}
    needed = {one["name"] for one in wanted["spec"].get("versions") or [] if one.get("served")}
    return needed <= served


def _in_use(kube: Kube, definition: str) -> str | None:
    found = kube.find("CustomResourceDefinition", definition)
    if found is None:
        return None
    kind = found["spec"]["names"]["kind"]
    try:
        objects = kube.list(f"{found['spec']['group']}/{_version(found)}/{kind}")
    except ApiProblem as problem:
        return f"nobody can say whether it is used: {problem}"
    if objects:
        where = ", ".join(
            f"{one['metadata'].get('namespace', '')}/{one['metadata']['name']}"
            for one in objects[:3]
        )
        return f"in use by {where}"
    others = kube.list("apps/v1/Deployment", labels=names.CONTROL_PLANE)
    if others:
        return f"another operator runs in namespace {others[0]['metadata']['namespace']}"
    return None


def _version(definition: Object) -> str:
    served = [one["name"] for one in definition["spec"]["versions"] if one.get("served")]
    return str(served[0])


def _until_established(kube: Kube, objects: Iterable[Object], within_s: float) -> None:
    wanted = [
        one["metadata"]["name"] for one in objects if one["kind"] == "CustomResourceDefinition"
    ]

    def missing() -> list[str]:
        found = {name: kube.find("CustomResourceDefinition", name) for name in wanted}
        return [name for name, one in found.items() if one is None or not _established(one)]

    try:
        eventually(
            missing,
            accept=lambda lacking: not lacking,
            within_s=within_s,
            what="the definitions to be established",
            show=", ".join,
            successes=1,
        )
    except ApiProblem as problem:
        raise Inconclusive(f"the operator's definitions cannot be seen: {problem}") from problem


def _established(definition: Object) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def _ordered(objects: Sequence[Object]) -> list[Object]:
    def place(one: Object) -> int:
        kind = one["kind"]
        if kind in _FIRST:
            return _FIRST.index(kind)
        return len(_FIRST) + (1 + _LAST.index(kind) if kind in _LAST else 0)

    return sorted(objects, key=place)
