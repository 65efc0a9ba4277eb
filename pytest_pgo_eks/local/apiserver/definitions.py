"""CustomResourceDefinitions: checking them, and serving what they define."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_pgo_eks.local.apiserver import ownership, problems
from pytest_pgo_eks.local.apiserver.call import Call
from pytest_pgo_eks.local.apiserver.front import Front
from pytest_pgo_eks.local.apiserver.problems import FieldError, required, wrong
from pytest_pgo_eks.local.apiserver.removal import Removal
from pytest_pgo_eks.local.apiserver.resources import STATUS, Registry, Resource
from pytest_pgo_eks.local.apiserver.schema_rules import structural_errors
from pytest_pgo_eks.local.apiserver.store import Change, Store
from pytest_pgo_eks.local.apiserver.structural import compile_root
from pytest_pgo_eks.local.objects import Obj

_GROUP = "apiextensions.k8s.io"
_KIND = "CustomResourceDefinition"
STORAGE = (_GROUP, "customresourcedefinitions")
_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


def _errors(definition: Obj, old: Obj | None) -> Iterator[FieldError]:
    spec = definition["spec"]
    names = spec.get("names") or {}
    for name in ("plural", "kind"):
        if not names.get(name):
            yield required(f"spec.names.{name}")
    if not spec.get("group"):
        yield required("spec.group")
    if spec.get("scope") not in ("Namespaced", "Cluster"):
        yield problems.unsupported("spec.scope", spec.get("scope"), ("Cluster", "Namespaced"))
    wanted = f"{names.get('plural')}.{spec.get('group')}"
    if definition["metadata"].get("name") != wanted:
        said = 'must be spec.names.plural+"."+spec.group'
        yield wrong("metadata.name", definition["metadata"].get("name"), said)
    versions = spec.get("versions") or []
    if sum(bool(one.get("storage")) for one in versions) != 1:
        said = "must have exactly one version marked as storage version"
        yield wrong("spec.versions", [one.get("name") for one in versions], said)
    for at, version in enumerate(versions):
        # A schema that all versions share is judged as one, under the name it has inside.
        alone = len(versions) == 1
        inside = "spec.validation" if alone else f"spec.versions[{at}].schema"
        where = f"spec.versions[{at}].schema.openAPIV3Schema"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            yield required(where, "")
        elif schema.get("type") != "object":
            yield (
                required(f"{where}.type", "must be object at the root")
                if not schema.get("type")
                else wrong(f"{where}.type", schema["type"], "must be object at the root")
            )
        else:
            yield from structural_errors(schema, f"{inside}.openAPIV3Schema")
    if old is not None and old["spec"].get("scope") != spec.get("scope"):
        yield wrong("spec.scope", spec.get("scope"), "field is immutable")


def prepare(definition: Obj, old: Obj | None) -> None:
    """Check a definition and fill in the status that establishes it.

    :raises Problem: 422 for a definition that cannot be served.
    """
    wrong_fields = list(_errors(definition, old))
    if wrong_fields:
        name = definition["metadata"].get("name", "")
        raise problems.invalid(_GROUP, _KIND, name, wrong_fields)
    spec = definition["spec"]
    status = {**((old or {}).get("status") or {})}
    known = {one["type"]: one for one in status.get("conditions") or []}
    for kind, reason, message in (
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    ):
        known.setdefault(
            kind,
            {
                "type": kind,
                "status": "True",
                "reason": reason,
                "message": message,
                "lastTransitionTime": ownership.now(),
            },
        )
    stored = next(one["name"] for one in spec["versions"] if one.get("storage"))
    versions = status.get("storedVersions") or []
    metadata = definition["metadata"]
    if old is None:
        rest = [one for one in metadata.get("finalizers") or [] if one != _FINALIZER]
        metadata["finalizers"] = [*rest, _FINALIZER]
    definition["status"] = {
        "acceptedNames": spec["names"],
        "conditions": list(known.values()),
        "storedVersions": versions if stored in versions else [*versions, stored],
    }


def serve(definition: Obj, registry: Registry) -> None:
    """Make the registry serve every served version of a definition."""
    spec = definition["spec"]
    names = spec["names"]
    registry.remove_custom(spec["group"], names["plural"])
    # The storage version first: it is the one that lists prefer.
    for version in sorted(spec["versions"], key=lambda one: not one.get("storage")):
        if not version.get("served"):
            continue
        subresources = version.get("subresources") or {}
        doors: dict[str, tuple[str, tuple[str, ...]]] = {}
        if "status" in subresources:
            doors["status"] = (names["kind"], STATUS)
        if "scale" in subresources:
            doors["scale"] = ("Scale", STATUS)
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        registry.add(
            Resource(
                spec["group"],
                version["name"],
                names["kind"],
                names["plural"],
                compile_root(schema, names["kind"]),
                namespaced=spec["scope"] == "Namespaced",
                singular=names.get("singular", ""),
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                subresources=doors,
                generation=True,
                list_kind=names.get("listKind", ""),
                stored_as=storage_version(definition),
                custom=True,
                columns=version.get("additionalPrinterColumns") or [],
                scale=subresources.get("scale"),
                selectable=tuple(one["jsonPath"] for one in version.get("selectableFields") or []),
            )
        )


def storage_version(definition: Obj) -> str:
    """Return the apiVersion in which objects are stored."""
    spec = definition["spec"]
    version = next(one["name"] for one in spec["versions"] if one.get("storage"))
    return f"{spec['group']}/{version}"


class Cleanup:
    """Removes what a definition defined: first the objects, then the definition, then the URLs.

    Objects with finalizers keep their definition until whoever set them has taken them away.
    """

    def __init__(self, store: Store, registry: Registry, removal: Removal, front: Front) -> None:
        self._store = store
        self._registry = registry
        self._removal = removal
        self._front = front
        store.listeners.append(self._changed)

    def _changed(self, change: Change) -> None:
        obj = change.now.obj
        if obj.get("kind") == _KIND and obj["apiVersion"].startswith(_GROUP):
            if change.type == "DELETED":
                self._forget(obj)
            elif obj["metadata"].get("deletionTimestamp"):
                self._empty(obj)
        elif change.type == "DELETED" and "." in obj["apiVersion"]:
            self._maybe_last(obj)

    def _empty(self, definition: Obj) -> None:
        spec = definition["spec"]
        resource = self._registry.by_group_kind(spec["group"], spec["names"]["kind"])
        collection = self._store.collection((spec["group"], spec["names"]["plural"]))
        for stored in list(collection):
            if resource is not None and not stored.obj["metadata"].get("deletionTimestamp"):
                metadata = stored.obj["metadata"]
                call = Call(resource, metadata.get("namespace", ""), metadata["name"])
                self._removal.delete(call, stored, {})
        self._finish(definition["metadata"]["name"])

    def _maybe_last(self, obj: Obj) -> None:
        group = obj["apiVersion"].partition("/")[0]
        resource = self._registry.by_group_kind(group, obj["kind"])
        if resource is not None and resource.custom:
            self._finish(f"{resource.plural}.{group}")

    def _finish(self, name: str) -> None:
        """Remove a definition that is being deleted and has no objects any more."""
        found = self._store.collection(STORAGE).get("", name)
        if found is None or not found.obj["metadata"].get("deletionTimestamp"):
            return
        spec = found.obj["spec"]
        if len(self._store.collection((spec["group"], spec["names"]["plural"]))):
            return
        metadata = dict(found.obj["metadata"])
        rest = [one for one in metadata.pop("finalizers", []) if one != _FINALIZER]
        if rest:
            metadata["finalizers"] = rest
            if rest != found.obj["metadata"]["finalizers"]:
                self._store.collection(STORAGE).put({**found.obj, "metadata": metadata})
            return
        self._store.collection(STORAGE).remove({**found.obj, "metadata": metadata})

    def _forget(self, definition: Obj) -> None:
        spec = definition["spec"]
        self._registry.remove_custom(spec["group"], spec["names"]["plural"])
        self._store.drop((spec["group"], spec["names"]["plural"]))
        self._front.changed()
