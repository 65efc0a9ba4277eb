"""What is refused as invalid, and in which words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from local_apiserver.api_bench import Bench, config_map, deployment, on_ours, pod, served, service
from pytest_pgo_eks.local.objects import (
    CLAIM,
    CONFIG_MAP,
    CRON_JOB,
    DEPLOYMENT,
    JOB,
    POD,
    ROLE,
    SECRET,
    SERVICE,
    STATEFUL_SET,
    STORAGE_CLASS,
    Kind,
    Obj,
)

_TEMPLATE: Obj = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}


def _changed(obj: Obj, path: str, value: Any) -> Obj:
    found: Obj = json.loads(json.dumps(obj))
    *before, last = path.split(".")
    inner: Any = found
    for part in before:
        inner = inner[int(part) if part.isdigit() else part]
    if value is None:
        del inner[last]
    else:
        inner[int(last) if last.isdigit() else last] = value
    return found


_INVALID: list[tuple[Kind, Obj, str]] = [
    (
        POD,
        pod("Not_Valid"),
        'Pod "Not_Valid" is invalid: metadata.name: Invalid value: "Not_Valid"',
    ),
    (POD, pod("x", labels={"a": "b c"}), 'metadata.labels: Invalid value: "b c": a valid label'),
    (POD, _changed(pod(), "spec.containers", []), "spec.containers: Required value"),
    (
        POD,
        _changed(pod(), "spec.containers.0.name", None),
        "spec.containers[0].name: Required value",
    ),
    (
        POD,
        _changed(pod(), "spec.containers.0.image", None),
        "spec.containers[0].image: Required value",
    ),
    (
        POD,
        _changed(pod(), "spec.containers.0.volumeMounts", [{"name": "v", "mountPath": "/v"}]),
        'spec.containers[0].volumeMounts[0].name: Not found: "v"',
    ),
    (
        POD,
        _changed(pod(), "spec.restartPolicy", "Sometimes"),
        'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always"',
    ),
    (
        POD,
        _changed(pod(), "spec.containers", [{"name": "a", "image": "x"}] * 2),
        'spec.containers[1].name: Duplicate value: "a"',
    ),
    (
        POD,
        _changed(
            pod(),
            "spec.containers.0.resources",
            {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}},
        ),
        "must be less than or equal to cpu limit of 1",
    ),
    (DEPLOYMENT, _changed(deployment(), "spec.selector", None), "spec.selector: Required value"),
    (
        DEPLOYMENT,
        _changed(deployment(), "spec.template.metadata.labels", {"app": "other"}),
        'spec.template.metadata.labels: Invalid value: {"app":"other"}: `selector` does not match',
    ),
    (
        DEPLOYMENT,
        _changed(deployment(), "spec.template.spec.restartPolicy", "Never"),
        'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
    ),
    (JOB, {"metadata": {"name": "j"}, "spec": {}}, "spec.template.spec.containers: Required value"),
    (
        JOB,
        {
            "metadata": {"name": "j"},
            "spec": {"template": _changed(_TEMPLATE, "spec.restartPolicy", None)},
        },
        'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"',
    ),
    (
        CRON_JOB,
        {
            "metadata": {"name": "c"},
            "spec": {"schedule": "* *", "jobTemplate": {"spec": {"template": _TEMPLATE}}},
        },
        "expected exactly 5 fields",
    ),
    (SERVICE, service("1a"), "a DNS-1035 label must consist of"),
    (SERVICE, service(ports=[]), "spec.ports: Required value"),
    (SERVICE, service(ports=[{"port": 0}]), "must be between 1 and 65535, inclusive"),
    (SERVICE, service(ports=[{"port": 1}, {"port": 2}]), "spec.ports[0].name: Required value"),
    (SERVICE, service(type="Odd"), 'spec.type: Unsupported value: "Odd"'),
    (
        CLAIM,
        {"metadata": {"name": "c"}},
        "spec.accessModes: Required value: at least 1 access mode",
    ),
    (CONFIG_MAP, config_map("c", **{"a b": "c"}), "a valid config key must consist of"),
    (
        CONFIG_MAP,
        _changed(config_map(), "metadata.ownerReferences", [{"name": "x"}]),
        'metadata.ownerReferences.uid: Invalid value: "": must not be empty',
    ),
    (CONFIG_MAP, _changed(config_map(), "metadata.name", None), "name or generateName is required"),
]


@served()
async def test_invalid_objects_are_refused_by_field(bench: Bench) -> None:
    for kind, obj, said in _INVALID:
        with bench.refused(422, "Invalid", "is invalid", said):
            await bench.admin.create(kind, obj, "default")
        assert bench.refusal is not None
        assert bench.refusal.details["causes"]
        assert bench.refusal.details["kind"] == kind.kind


@served()
async def test_several_errors_are_told_together(bench: Bench) -> None:
    broken = _changed(pod(), "spec.containers", [{}])
    with bench.refused(
        422,
        "Invalid",
        'Pod "web" is invalid: [spec.containers[0].name: Required value, '
        "spec.containers[0].image: Required value]",
    ):
        await bench.admin.create(POD, broken, "default")
    assert bench.refusal is not None
    fields = [cause["field"] for cause in bench.refusal.details["causes"]]
    assert fields == ["spec.containers[0].name", "spec.containers[0].image"]


@pytest.mark.parametrize(
    ("obj", "said"),
    [
        (
            _changed(pod(), "spec.containers", "x"),
            "cannot unmarshal string into Go struct field Pod.spec.containers of type []v1.Container",
        ),
        (
            _changed(pod(), "spec.containers.0.image", 5),
            "cannot unmarshal number into Go struct field Pod.spec.containers.image of type string",
        ),
        (_changed(pod(), "metadata.labels", ["a"]), "cannot unmarshal array into Go struct field"),
        (_changed(pod(), "spec.hostNetwork", "yes"), "of type bool"),
        (
            _changed(pod(), "spec.containers.0.resources", {"limits": {"cpu": "much"}}),
            "quantities must match the regular expression",
        ),
        (
            {"kind": "Service"},
            "the kind in the data (Service) does not match the expected kind (Pod)",
        ),
        ({"apiVersion": "v2"}, "the API version in the data (v2) does not match"),
        ([], "the object provided is unrecognized"),
    ],
)
def test_bodies_that_do_not_decode_are_bad_requests(obj: Any, said: str) -> None:
    async def scenario(bench: Bench) -> None:
        with bench.refused(400, "BadRequest", said):
            await bench.admin.request("POST", POD.path("default"), body=obj)

    on_ours(scenario)


@served()
async def test_secrets_hold_base64(bench: Bench) -> None:
    made = {"metadata": {"name": "s"}, "data": {"a": "not base64!"}}
    with bench.refused(400, "BadRequest", "illegal base64 data"):
        await bench.admin.create(SECRET, made, "default")


@served()
async def test_unknown_fields_are_dropped_warned_about_or_refused(bench: Bench) -> None:
    admin = bench.admin
    odd = _changed(pod(), "spec.containers.0.imagine", "x")
    url, headers = admin.url + POD.path("default"), admin._headers()
    async with admin._open().post(url, json=odd, headers=headers) as answer:
        assert answer.status == 201
        assert answer.headers["Warning"] == '299 - "unknown field \\"spec.containers[0].imagine\\""'
        assert "imagine" not in await answer.text()
    odd["metadata"]["name"] = "strict"
    query = {"fieldValidation": "Strict"}
    with bench.refused(
        400, "BadRequest", 'strict decoding error: unknown field "spec.containers[0].imagine"'
    ):
        await admin.request("POST", POD.path("default"), body=odd, query=query)


@served()
async def test_what_may_not_change(bench: Bench) -> None:
    admin = bench.admin
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
    await admin.create(
        STORAGE_CLASS, {"metadata": {"name": "sc", "annotations": annotations}, "provisioner": "x"}
    )
    claim: Obj = {"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    claim["spec"]["resources"] = {"requests": {"storage": "2Gi"}}
    sets = deployment()["spec"] | {"serviceName": "web"}
    held = {"metadata": {"name": "held"}, "immutable": True, "data": {"a": "b"}}
    job = {"metadata": {"name": "j"}, "spec": {"template": _TEMPLATE}}
    await admin.create(POD, pod(), "default")
    await admin.create(DEPLOYMENT, deployment(), "default")
    await admin.create(STATEFUL_SET, {"metadata": {"name": "s"}, "spec": sets}, "default")
    await admin.create(JOB, job, "default")
    await admin.create(CLAIM, claim, "default")
    await admin.create(CONFIG_MAP, held, "default")
    await admin.create(SECRET, {"metadata": {"name": "s"}}, "default")
    label = {"matchLabels": {"x": "y"}}
    container = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "new"}]}}}}
    refusals: list[tuple[Kind, str, Obj, str]] = [
        (
            POD,
            "web",
            {"spec": {"hostNetwork": True}},
            "pod updates may not change fields other than",
        ),
        (
            DEPLOYMENT,
            "web",
            {"spec": {"selector": label, "template": {"metadata": {"labels": {"x": "y"}}}}},
            "field is immutable",
        ),
        (STATEFUL_SET, "s", {"spec": {"serviceName": "other"}}, "updates to statefulset spec for"),
        (JOB, "j", container, "spec.template: Invalid value"),
        (
            CLAIM,
            "c",
            {"spec": {"accessModes": ["ReadOnlyMany"]}},
            "spec is immutable after creation",
        ),
        (CONFIG_MAP, "held", {"data": {"a": "c"}}, "data: Forbidden: field is immutable when"),
        (SECRET, "s", {"type": "other"}, 'type: Invalid value: "other": field is immutable'),
    ]
    for kind, name, patch, said in refusals:
        with bench.refused(422, "Invalid", said):
            await admin.patch(kind, name, "default", patch, type="strategic")
    images = {"spec": {"containers": [{"name": "main", "image": "example/app:2"}]}}
    await admin.patch(POD, "web", "default", images, type="strategic")
    await admin.patch(STATEFUL_SET, "s", "default", {"spec": {"replicas": 5}})
    with bench.refused(405, "MethodNotAllowed"):
        path = POD.path("default", "web", "binding")
        await admin.request("PATCH", path, body={}, content_type="application/merge-patch+json")
    with bench.refused(415, "UnsupportedMediaType"):
        await admin.request(
            "PATCH", POD.path("default", "web"), body={}, content_type="application/x-new"
        )


@served()
async def test_a_claim_grows_when_its_class_allows_it(bench: Bench) -> None:
    admin = bench.admin
    for name, allowed in (("fixed", False), ("elastic", True)):
        made: Obj = {
            "metadata": {"name": name},
            "provisioner": "x",
            "allowVolumeExpansion": allowed,
        }
        await admin.create(STORAGE_CLASS, made)
        claim: Obj = {"metadata": {"name": name}, "spec": {"storageClassName": name}}
        claim["spec"] |= {"accessModes": ["ReadWriteOnce"], "volumeName": "pv"}
        claim["spec"]["resources"] = {"requests": {"storage": "1Gi"}}
        await admin.create(CLAIM, claim, "default")
        bound = {"phase": "Bound", "capacity": {"storage": "1Gi"}}
        await admin.patch(CLAIM, name, "default", {"status": bound}, sub="status")

    def size(text: str) -> Obj:
        return {"spec": {"resources": {"requests": {"storage": text}}}}

    grown = await admin.patch(CLAIM, "elastic", "default", size("2Gi"))
    assert grown["spec"]["resources"]["requests"]["storage"] == "2Gi"
    # What the volume does not hold yet can be taken back.
    await admin.patch(CLAIM, "elastic", "default", size("1536Mi"))
    with bench.refused(422, "Invalid", "field can not be less than"):
        await admin.patch(CLAIM, "elastic", "default", size("1Gi"))
    with bench.refused(
        403, "Forbidden", "the storageclass that provisions the pvc must support resize"
    ):
        await admin.patch(CLAIM, "fixed", "default", size("2Gi"))


@served()
async def test_roles_may_have_names_that_others_may_not(bench: Bench) -> None:
    made = {"metadata": {"name": "system:node:Any_Name"}, "rules": []}
    await bench.admin.create(ROLE, made, "default")
    with bench.refused(422, "Invalid", "may not contain '/'"):
        await bench.admin.create(ROLE, {"metadata": {"name": "a/b"}}, "default")
