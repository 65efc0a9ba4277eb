"""CustomResourceDefinitions: checking them, and serving what they define."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_pgo_eks.local.apiserver import ownership, problems
from pytest_pgo_eks.local.apiserver.problems import FieldError, required, wrong
from pytest_pgo_eks.local.apiserver.resources import STATUS, Registry, Resource
from pytest_pgo_eks.local.apiserver.structural import compile_root
from pytest_pgo_eks.local.objects import Obj

_GROUP = "apiextensions.k8s.io"
_KIND = "CustomResourceDefinition"


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
        where = f"spec.versions[{at}].schema.openAPIV3Schema"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            yield required(where, "schemas are required")
        elif schema.get("type") != "object":
            yield (
                required(f"{where}.type", "must be object at the root")
                if not schema.get("type")
                else wrong(f"{where}.type", schema["type"], "must be object at the root")
            )
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
