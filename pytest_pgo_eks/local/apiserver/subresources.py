"""Subresources that are more than another door to the same object, and the reviews."""

from __future__ import annotations

import datetime as dt
from typing import Any

from pytest_pgo_eks.local.apiserver import ownership, problems
from pytest_pgo_eks.local.apiserver.authentication import AUDIENCES, Authenticator, Identity
from pytest_pgo_eks.local.apiserver.authorization import MASTERS, Attributes, Authorizer
from pytest_pgo_eks.local.apiserver.call import Call
from pytest_pgo_eks.local.apiserver.problems import Problem, bad_request
from pytest_pgo_eks.local.apiserver.removal import Removal
from pytest_pgo_eks.local.apiserver.store import Store
from pytest_pgo_eks.local.apiserver.writing import Writing
from pytest_pgo_eks.local.objects import Obj, matches

_OF_PODS_S = 3607
_EXTENDED_S = 365 * 86400
_SUCCESS: Obj = {
    "kind": "Status",
    "apiVersion": "v1",
    "metadata": {},
    "status": "Success",
    "code": 201,
}


class Subresources:
    """binding, eviction, token, scale, and the authentication and authorization reviews."""

    def __init__(
        self,
        store: Store,
        writing: Writing,
        removal: Removal,
        authenticator: Authenticator,
        authorizer: Authorizer,
    ) -> None:
        self.store = store
        self.writing = writing
        self.removal = removal
        self.authenticator = authenticator
        self.authorizer = authorizer

    def bind(self, call: Call, body: Obj) -> Obj:
        """Put a pod on a node, once.

        :raises Problem: 400 for a Binding of another name, 409 for a pod that has a node or is being
            deleted.
        """
        if (body.get("metadata") or {}).get("name") != call.name:
            raise problems.bad_request("name in URL does not match name in Binding object")
        stored = self.writing.current(call)
        pod = stored.copy()
        target = (body.get("target") or {}).get("name")
        if not target:
            error = problems.required("target.name")
            raise problems.invalid("", "Binding", call.name, [error])
        if pod["metadata"].get("deletionTimestamp"):
            why = f"pod {call.name} is being deleted, cannot be assigned to a host"
            raise problems.conflict("", "pods/binding", call.name, why)
        if pod["spec"].get("nodeName"):
            why = f'pod {call.name} is already assigned to node "{pod["spec"]["nodeName"]}"'
            raise problems.conflict("", "pods/binding", call.name, why)
        pod["spec"]["nodeName"] = target
        for name in ("annotations", "labels"):
            given = (body.get("metadata") or {}).get(name)
            if given:
                pod["metadata"].setdefault(name, {}).update(given)
        conditions = pod.setdefault("status", {}).setdefault("conditions", [])
        _scheduled(conditions)
        if not call.dry_run:
            self.store.collection(call.resource.storage).put(pod)
        return _SUCCESS

    def evict(self, call: Call, body: Obj) -> Obj:
        """Delete a pod if its disruption budget allows one more disruption now.

        :raises Problem: 429 when it does not, 500 for a pod with several budgets.
        """
        stored = self.writing.current(call)
        wanted = body.get("deleteOptions") or {}
        pod = stored.obj
        phase = (pod.get("status") or {}).get("phase")
        budgets = []
        if phase not in {"Succeeded", "Failed", "Pending"} and not pod["metadata"].get(
            "deletionTimestamp"
        ):
            budgets = self._budgets(pod)
        if len(budgets) > 1:
            raise Problem(
                500,
                "InternalError",
                "This pod has more than one PodDisruptionBudget, which the eviction subresource "
                "does not support.",
            )
        dry = call.dry_run or wanted.get("dryRun") == ["All"]
        if budgets:
            self._disrupt(budgets[0], call.name, dry=dry, healthy=_ready(pod))
        self.removal.delete(call, stored, wanted)
        return _SUCCESS

    def _budgets(self, pod: Obj) -> list[Obj]:
        labels = pod["metadata"].get("labels") or {}
        storage = ("policy", "poddisruptionbudgets")
        found = self.store.collection(storage).namespace(pod["metadata"]["namespace"])
        return [
            one.obj for one in found if matches((one.obj.get("spec") or {}).get("selector"), labels)
        ]

    def _disrupt(self, budget: Obj, pod: str, *, dry: bool, healthy: bool) -> None:
        name, status = budget["metadata"]["name"], budget.get("status") or {}
        retry = {"Retry-After": "10"}
        enough = status.get("currentHealthy", 0) >= status.get("desiredHealthy", 0) > 0
        policy = (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy", "IfHealthyBudget")
        if not healthy and (policy == "AlwaysAllow" or enough):
            return
        if status.get("observedGeneration", 0) < budget["metadata"].get("generation", 0):
            what = f"The disruption budget {name} is still being processed by the server."
            raise _too_many(what, retry)
        if status.get("disruptionsAllowed", 0) <= 0:
            what = (
                f"The disruption budget {name} needs {status.get('desiredHealthy', 0)} healthy "
                f"pods and has {status.get('currentHealthy', 0)} currently"
            )
            raise _too_many(what, retry)
        if dry:
            return
        changed = {**budget, "metadata": {**budget["metadata"]}, "status": {**status}}
        changed["status"]["disruptionsAllowed"] = status["disruptionsAllowed"] - 1
        disrupted = {**(status.get("disruptedPods") or {}), pod: ownership.now()}
        changed["status"]["disruptedPods"] = disrupted
        self.store.collection(("policy", "poddisruptionbudgets")).put(changed)

    def token(self, call: Call, body: Obj) -> Obj:
        """Issue a token for a service account (TokenRequest)."""
        account = self.writing.current(call).obj
        spec = body.get("spec") or {}
        seconds = spec.get("expirationSeconds", 3600)
        if seconds < 600:
            error = problems.wrong(
                "spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"
            )
            raise problems.invalid("authentication.k8s.io", "TokenRequest", "", [error])
        bound = self._bound(call, spec.get("boundObjectRef"))
        # As a server does by default: the odd number is what it put into pods itself, and such a
        # token goes on working for a client that has not read the renewed one.
        extended = seconds == _OF_PODS_S and "Pod" in bound
        token, ends = self.authenticator.issue(
            account,
            seconds=_EXTENDED_S if extended else seconds,
            audiences=spec.get("audiences") or (),
            bound=bound,
        )
        when = dt.datetime.fromtimestamp(ends - (_EXTENDED_S - seconds) * extended, dt.UTC)
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": call.name,
                "namespace": call.namespace,
                "creationTimestamp": ownership.now(),
            },
            "spec": {
                "audiences": spec.get("audiences") or list(AUDIENCES[:1]),
                "expirationSeconds": seconds,
                "boundObjectRef": spec.get("boundObjectRef"),
            },
            "status": {"token": token, "expirationTimestamp": f"{when:%Y-%m-%dT%H:%M:%SZ}"},
        }

    def _bound(self, call: Call, ref: Obj | None) -> dict[str, Obj]:
        if not ref:
            return {}
        kind, name = ref.get("kind", ""), ref.get("name", "")
        storage = {"Pod": ("", "pods"), "Secret": ("", "secrets"), "Node": ("", "nodes")}.get(kind)
        if storage is None:
            raise bad_request(f"cannot bind token to object of type {kind}")
        namespace = "" if kind == "Node" else call.namespace
        found = self.store.get(storage, namespace, name)
        if found is None:
            raise problems.not_found("", storage[1], name)
        if kind == "Pod" and found["spec"].get("serviceAccountName") != call.name:
            raise bad_request(
                f'cannot bind token for serviceaccount "{call.name}" to pod running with different '
                "serviceaccount name."
            )
        if ref.get("uid") and ref["uid"] != found["metadata"]["uid"]:
            why = (
                f"the UID in the bound object reference ({ref['uid']}) does not match the UID in "
                "record. The object might have been deleted and then recreated"
            )
            raise problems.conflict("", storage[1], name, why)
        bound: dict[str, Obj] = {kind: found["metadata"]}
        node = (found.get("spec") or {}).get("nodeName") if kind == "Pod" else None
        other = self.store.get(("", "nodes"), "", node) if node else None
        if other is not None:
            bound["Node"] = other["metadata"]
        return bound

    def get_scale(self, call: Call) -> Obj:
        """Return the Scale of a workload or of a custom resource with a scale subresource."""
        return self._scale(call, self.writing.current(call).obj)

    def _scale(self, call: Call, obj: Obj) -> Obj:
        metadata = {
            name: obj["metadata"][name]
            for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
            if name in obj["metadata"]
        }
        if call.resource.scale:
            replicas = _look(obj, call.resource.scale["specReplicasPath"])
            status: Obj = {"replicas": _look(obj, call.resource.scale["statusReplicasPath"]) or 0}
            selector = call.resource.scale.get("labelSelectorPath")
            if selector and _look(obj, selector):
                status["selector"] = _look(obj, selector)
        else:
            replicas = obj["spec"].get("replicas")
            status = {"replicas": (obj.get("status") or {}).get("replicas", 0)}
            labels = (obj["spec"].get("selector") or {}).get("matchLabels") or {}
            status["selector"] = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        spec = {} if replicas is None else {"replicas": replicas}
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": metadata,
            "spec": spec,
            "status": status,
        }

    def set_scale(self, call: Call, scale: Obj) -> Obj:
        """Write the replicas of a Scale into the object."""
        stored = self.writing.current(call)
        replicas = (scale.get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int) or replicas < 0:
            said = "must be greater than or equal to 0"
            error = problems.wrong("spec.replicas", replicas, said)
            raise problems.invalid("autoscaling", "Scale", call.name, [error])
        obj = stored.copy()
        path = (call.resource.scale or {}).get("specReplicasPath", ".spec.replicas")
        *before, last = path.strip(".").split(".")
        inner = obj
        for part in before:
            inner = inner.setdefault(part, {})
        inner[last] = replicas
        version = (scale.get("metadata") or {}).get("resourceVersion")
        if version:
            obj["metadata"]["resourceVersion"] = version
        return self._scale(call, self.writing.replace(call, stored, obj))

    def finalize(self, call: Call, body: Obj) -> Obj:
        """Write a namespace's finalizers; the last one gone, it is removed."""
        stored = self.writing.current(call)
        obj = stored.copy()
        obj["spec"] = {name: value for name, value in (body.get("spec") or {}).items() if value}
        version = (body.get("metadata") or {}).get("resourceVersion")
        if version:
            obj["metadata"]["resourceVersion"] = version
        return self.writing.replace(call, stored, obj)

    def review(self, call: Call, body: Obj) -> Obj:
        """Answer a TokenReview or one of the access reviews."""
        kind = call.resource.kind
        spec = body.get("spec") or {}
        found: Obj = {"kind": kind, "apiVersion": call.resource.api_version}
        found |= {"metadata": {"creationTimestamp": None}, "spec": spec}
        if kind == "TokenReview":
            who = self.authenticator.check(spec.get("token", ""), spec.get("audiences") or ())
            found["status"] = (
                {"authenticated": True, "user": who.info(), "audiences": list(AUDIENCES[:1])}
                if who
                else {"user": {}, "error": "[invalid bearer token, token lookup failed]"}
            )
        elif kind == "SelfSubjectReview":
            found["status"] = {"userInfo": call.who.info()}
        elif kind == "SelfSubjectRulesReview":
            found["status"] = self._rules(call.who, spec.get("namespace", ""))
        else:
            who = call.who
            if not kind.startswith("Self"):
                who = Identity(spec.get("user", ""), tuple(spec.get("groups") or ()))
            found["status"] = self._access(who, spec)
        return found

    def _access(self, who: Identity, spec: Obj) -> Obj:
        asked, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
        if bool(asked) == bool(path):
            error = problems.wrong(
                "spec.resourceAttributes",
                asked,
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )
            raise problems.invalid("authorization.k8s.io", "SelfSubjectAccessReview", "", [error])
        if asked:
            names = ("verb", "group", "resource", "subresource", "namespace", "name")
            what = Attributes(*(asked.get(name, "") for name in names))
        else:
            what = Attributes((path or {}).get("verb", ""), path=(path or {}).get("path", ""))
        return {"allowed": True} if self.authorizer.allows(who, what) else {"allowed": False}

    def _rules(self, who: Identity, namespace: str) -> Obj:
        rules = [rule for where, rule in self.authorizer.rules(who) if where in {"", namespace}]
        if MASTERS in who.groups:
            everything: Obj = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            rules = [everything, {"verbs": ["*"], "nonResourceURLs": ["*"]}, *rules]
        return {
            "resourceRules": [rule for rule in rules if rule.get("resources")],
            "nonResourceRules": [rule for rule in rules if rule.get("nonResourceURLs")],
            "incomplete": False,
        }


def _look(obj: Obj, path: str) -> Any:
    found: Any = obj
    for part in path.strip(".").split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _ready(pod: Obj) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(
        one.get("type", "") == "Ready" and one.get("status", "") == "True" for one in conditions
    )


def _too_many(message: str, headers: dict[str, str]) -> Problem:
    cause = {"reason": "DisruptionBudget", "message": message}
    return Problem(
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
        details={"causes": [cause], "retryAfterSeconds": int(headers["Retry-After"])},
        headers=headers,
    )


def _scheduled(conditions: list[Obj]) -> None:
    conditions[:] = [one for one in conditions if one.get("type", "") != "PodScheduled"]
    conditions.append(
        {
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": ownership.now(),
        }
    )
