"""Create, update and patch: from a request's body to the next stored version."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from pytest_pgo_eks.local.apiserver import (
    admission,
    doors,
    intake,
    ownership,
    patches,
    problems,
    structural,
    validation,
)
from pytest_pgo_eks.local.apiserver.call import Call
from pytest_pgo_eks.local.apiserver.problems import Problem, bad_request
from pytest_pgo_eks.local.apiserver.resources import Resource
from pytest_pgo_eks.local.apiserver.store import Store, Stored
from pytest_pgo_eks.local.objects import Obj

_RBAC = "rbac.authorization.k8s.io"
# PUT creates these when they are missing, as their strategies in the real server say.
_CREATED_BY_UPDATE = {
    ("", "endpoints"),
    ("", "events"),
    ("coordination.k8s.io", "leases"),
    (_RBAC, "roles"),
    (_RBAC, "rolebindings"),
    (_RBAC, "clusterroles"),
    (_RBAC, "clusterrolebindings"),
}
# These cannot be replaced without saying which version is meant.
_VERSIONED = {
    ("coordination.k8s.io", "leases"),
    ("policy", "poddisruptionbudgets"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
}
_KEPT = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")
# Node registration carries the first status; every other kind with a status starts without one.
_STATUS_AT_CREATION = {("", "nodes"), ("", "pods"), ("", "persistentvolumeclaims")}
_FIRST_STATUS: dict[tuple[str, str], Obj] = {
    ("", "namespaces"): {"phase": "Active"},
    ("", "services"): {"loadBalancer": {}},
    ("", "persistentvolumes"): {"phase": "Pending"},
    ("apps", "statefulsets"): {"replicas": 0, "availableReplicas": 0},
    ("apps", "replicasets"): {"replicas": 0},
}
_PATCH_TYPES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
)

Patch = tuple[str, Any]


def _rest(obj: Obj) -> Obj:
    return {name: value for name, value in obj.items() if name not in {"metadata", "apiVersion"}}


class Writing:
    """Create, update and patch. Hooks run on every create, update or removal that is stored.

    ``authorize`` is asked about new roles and bindings; ``stored`` hears of kinds that change the
    server itself (CustomResourceDefinitions).
    """

    def __init__(self, store: Store, allocators: admission.Allocators) -> None:
        self.store = store
        self.allocators = allocators
        self.check_role: Callable[[Call, Obj], None] = lambda _call, _obj: None
        self.fill_token: Callable[[Obj], None] = lambda _secret: None
        self.define: Callable[[Obj, Obj | None], None] = lambda _obj, _old: None
        self.finish: Callable[[Call, Stored, Obj], Obj | None] = lambda _c, _s, _o: None

    def create(self, call: Call, body: Any) -> Obj:
        """Create an object and return it."""
        return self._create(call, intake.decode(call, body))

    def _create(self, call: Call, obj: Obj, managed: list[Obj] | None = None) -> Obj:
        resource, metadata = call.resource, obj["metadata"]
        if metadata.get("resourceVersion"):
            raise Problem(
                500, "InternalError", "resourceVersion should not be set on objects to be created"
            )
        self._place(call, metadata)
        generated = not metadata.get("name") and metadata.get("generateName")
        if generated:
            metadata["name"] = metadata["generateName"][:58] + admission.suffix()
        for name in ("selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
            metadata.pop(name, None)
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = ownership.now()
        if managed is None:
            # Before admission: nobody owns what the server itself adds.
            managed = ownership.updated(
                None, obj, resource.type, call.writer, has_status=resource.has_status
            )
        self._admit(call, obj)
        if resource.generation:
            metadata["generation"] = 1
        self._first_status(resource, obj)
        self._validate(call, obj, None)
        name, namespace = metadata["name"], metadata.get("namespace", "")
        if self.store.collection(resource.storage).get(namespace, name) is not None:
            raise problems.already_exists(resource.group, resource.plural, name)
        return self._put(call, obj, None, managed)

    def _place(self, call: Call, metadata: Obj) -> None:
        if not call.resource.namespaced:
            metadata.pop("namespace", None)
            return
        if metadata.get("namespace", call.namespace) != call.namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the "
                "request"
            )
        metadata["namespace"] = call.namespace
        found = self.store.get(("", "namespaces"), "", call.namespace)
        if found is None:
            raise problems.not_found("", "namespaces", call.namespace)
        if found["metadata"].get("deletionTimestamp"):
            why = (
                f"unable to create new content in namespace {call.namespace} because it is being "
                "terminated"
            )
            problem = problems.forbidden(
                call.resource.group, call.resource.plural, metadata.get("name", ""), why
            )
            causes = [
                {
                    "reason": "NamespaceTerminating",
                    "message": f"namespace {call.namespace} is being terminated",
                    "field": "metadata.namespace",
                }
            ]
            problem.details = {**(problem.details or {}), "causes": causes}
            raise problem

    def _admit(self, call: Call, obj: Obj) -> None:
        storage = call.resource.storage
        if storage == ("", "pods"):
            admission.admit_pod(obj, self.store)
        elif storage == ("", "persistentvolumeclaims"):
            admission.admit_claim(obj, self.store)
        elif storage == ("batch", "jobs"):
            admission.admit_job(obj)
        elif storage == ("", "namespaces"):
            obj["spec"] = {"finalizers": ["kubernetes"]}
        elif storage == ("", "services"):
            self._address(call, obj, None)
        elif obj.get("type") == admission.TOKEN_SECRET:
            self.fill_token(obj)
        if storage[0] == _RBAC:
            self.check_role(call, obj)

    def _address(self, call: Call, obj: Obj, old: Obj | None) -> None:
        wrong = self.allocators.fill(obj, old)
        if wrong:
            raise problems.invalid("", "Service", obj["metadata"].get("name") or call.name, wrong)

    @staticmethod
    def _first_status(resource: Resource, obj: Obj) -> None:
        if not resource.has_status or resource.storage in _STATUS_AT_CREATION:
            return
        obj.pop("status", None)
        if not resource.custom:
            first = _FIRST_STATUS.get(resource.storage)
            obj["status"] = dict(first) if first else {}

    def _validate(self, call: Call, obj: Obj, old: Obj | None) -> None:
        resource = call.resource
        wrong = validation.errors(resource, obj, old)
        if resource.custom and not (old and _rest(old) == _rest(obj)):
            wrong += structural.validate(obj, resource.type)
        if wrong:
            name = obj["metadata"].get("name", "")
            raise problems.invalid(resource.group, resource.kind, name, wrong)

    def _put(self, call: Call, obj: Obj, old: Obj | None, managed: list[Obj]) -> Obj:
        if managed:
            obj["metadata"]["managedFields"] = managed
        else:
            obj["metadata"].pop("managedFields", None)
        storage = call.resource.storage
        if call.dry_run:
            obj["metadata"].setdefault("resourceVersion", "")
            if not obj["metadata"]["resourceVersion"]:
                del obj["metadata"]["resourceVersion"]
            return obj
        if storage == ("apiextensions.k8s.io", "customresourcedefinitions"):
            self.define(obj, old)
        return self.store.collection(storage).put(obj).obj

    def current(self, call: Call) -> Stored:
        """Return the stored object that the call names.

        :raises Problem: 404.
        """
        found = self.store.collection(call.resource.storage).get(call.namespace, call.name)
        if found is None:
            raise call.not_found()
        return found

    def update(self, call: Call, body: Any) -> tuple[Obj, bool]:
        """Replace an object (or its status); return it and whether it was created."""
        obj = intake.decode(call, body)
        metadata = obj["metadata"]
        if metadata.setdefault("name", call.name) != call.name:
            raise bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL "
                f"({call.name})"
            )
        if call.resource.namespaced and metadata.get("namespace", call.namespace) != call.namespace:
            raise bad_request(
                f"the namespace of the object ({metadata['namespace']}) does not match the "
                f"namespace on the URL ({call.namespace})"
            )
        stored = self.store.collection(call.resource.storage).get(call.namespace, call.name)
        if stored is None:
            creatable = call.resource.storage in _CREATED_BY_UPDATE and not call.subresource
            if not creatable or metadata.get("resourceVersion"):
                raise call.not_found()
            return self._create(call, obj), True
        if not metadata.get("resourceVersion") and (
            call.resource.custom or call.resource.storage in _VERSIONED
        ):
            error = problems.wrong("metadata.resourceVersion", 0, "must be specified for an update")
            resource = call.resource
            raise problems.invalid(resource.group, resource.kind, call.name, [error])
        return self.replace(call, stored, obj), False

    def replace(
        self, call: Call, stored: Stored, obj: Obj, managed: list[Obj] | None = None
    ) -> Obj:
        """Store ``obj`` (decoded, private to the caller) as the next version of ``stored``.

        ``managed`` is given by server-side apply; otherwise the change is booked on the caller.

        :raises Problem: 409 for another resourceVersion or uid, 422 for an invalid object.
        """
        old, resource, metadata = stored.obj, call.resource, obj["metadata"]
        self._preconditions(call, old, metadata)
        for name in _KEPT:
            if name in old["metadata"]:
                metadata[name] = old["metadata"][name]
            else:
                metadata.pop(name, None)
        metadata["name"] = old["metadata"]["name"]
        if resource.namespaced:
            metadata["namespace"] = old["metadata"]["namespace"]
        obj = doors.through_door(call, old, obj)
        metadata = obj["metadata"]
        metadata["resourceVersion"] = old["metadata"]["resourceVersion"]
        doors.generation(resource, old, obj)
        if resource.storage == ("", "services") and call.subresource != "status":
            self._address(call, obj, old)
        if resource.storage == ("", "persistentvolumeclaims") and not call.subresource:
            admission.admit_growth(obj, old, self.store)
        if resource.storage[0] == _RBAC and not call.subresource:
            self.check_role(call, obj)
        self._finalizers(call, old, metadata)
        self._validate(call, obj, old)
        if managed is None:
            managed = ownership.updated(
                old, obj, resource.type, call.writer, has_status=resource.has_status
            )
        if doors.same(old, obj, managed):
            return old
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            ended = self.finish(
                call, stored, {**obj, "metadata": {**metadata, "managedFields": managed}}
            )
            if ended is not None:
                return ended
        return self._put(call, obj, old, managed)

    @staticmethod
    def _preconditions(call: Call, old: Obj, metadata: Obj) -> None:
        resource = call.resource
        version = metadata.get("resourceVersion")
        if version and version not in {"0", old["metadata"]["resourceVersion"]}:
            raise problems.conflict(resource.group, resource.plural, call.name)
        uid = metadata.get("uid")
        if uid and uid != old["metadata"]["uid"]:
            why = (
                f"Precondition failed: UID in precondition: {uid}, UID in object meta: "
                f"{old['metadata']['uid']}"
            )
            raise problems.conflict(resource.group, resource.plural, call.name, why)

    @staticmethod
    def _finalizers(call: Call, old: Obj, metadata: Obj) -> None:
        if not old["metadata"].get("deletionTimestamp"):
            return
        known = old["metadata"].get("finalizers") or []
        fresh = [one for one in metadata.get("finalizers") or [] if one not in known]
        if fresh:
            listed = ", ".join(f'"{one}"' for one in fresh)
            error = problems.denied(
                "metadata.finalizers",
                "no new finalizers can be added if the object is being deleted, found new "
                f"finalizers []string{{{listed}}}",
            )
            resource = call.resource
            raise problems.invalid(resource.group, resource.kind, call.name, [error])

    def patch(self, call: Call, content_type: str, patch: Any) -> tuple[Obj, bool]:
        """Patch an object; return it and whether it was created (server-side apply only).

        :raises Problem: 409 for conflicts, 415 for a patch type that is not supported.
        """
        resource = call.resource
        stored = self.store.collection(resource.storage).get(call.namespace, call.name)
        if content_type == "application/apply-patch+yaml":
            return self._apply(call, stored, patch)
        if stored is None:
            raise call.not_found()
        base = intake.shown_as(resource, stored.obj)
        if content_type == "application/merge-patch+json":
            if not isinstance(patch, dict):
                raise bad_request("the merge patch must be an object")
            changed = patches.merge(base, patch)
        elif content_type == "application/json-patch+json":
            changed = patches.json_patch(base, patch)
        elif content_type == "application/strategic-merge-patch+json" and not resource.custom:
            changed = patches.strategic(base, patch, resource.type)
        else:
            allowed = (
                _PATCH_TYPES
                if resource.custom
                else (*_PATCH_TYPES, "application/strategic-merge-patch+json")
            )
            raise problems.unsupported_media_type(content_type, allowed)
        obj = intake.decode(call, changed, base)
        return self.replace(call, stored, obj), False

    def _apply(self, call: Call, stored: Stored | None, config: Any) -> tuple[Obj, bool]:
        resource = call.resource
        if not call.query.get("fieldManager"):
            error = problems.required("fieldManager", "is required for apply patch")
            raise problems.invalid("meta.k8s.io", "PatchOptions", "", [error])
        if not isinstance(config, dict) or not config.get("apiVersion") or not config.get("kind"):
            raise bad_request("invalid object type: apiVersion and kind must be set")
        given = config.get("metadata") or {}
        if not isinstance(given, dict):
            raise bad_request("metadata must be an object")
        if given.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        if given.get("name", call.name) != call.name:
            raise bad_request(
                f"the name of the object ({given['name']}) does not match the name on the URL "
                f"({call.name})"
            )
        if stored is None and call.subresource:
            raise call.not_found()
        config = intake.configuration(call, config)
        base = intake.shown_as(resource, stored.obj) if stored else None
        new, managed = ownership.applied(
            base,
            config,
            resource.type,
            call.writer,
            force=call.flag("force"),
            has_status=resource.has_status,
        )
        quiet = Call(
            resource, call.namespace, call.name, call.subresource, {"fieldValidation": "Ignore"}
        )
        obj = intake.decode(quiet, new, base)
        if stored is None:
            obj["metadata"]["name"] = call.name
            for name in ("uid", "resourceVersion"):
                if obj["metadata"].pop(name, None):
                    raise problems.conflict(
                        resource.group,
                        resource.plural,
                        call.name,
                        f"{name} mismatch: the object does not exist",
                    )
            return self._create(call, obj, managed), True
        obj["metadata"].setdefault("resourceVersion", stored.obj["metadata"]["resourceVersion"])
        return self.replace(call, stored, obj, managed), False
