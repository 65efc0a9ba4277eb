"""Create, get, list, update, patch: versions, conflicts, generations, dry runs."""

from __future__ import annotations

import re

from local_apiserver.api_bench import Bench, config_map, deployment, pod, served, service
from pytest_pgo_eks.local.objects import (
    CONFIG_MAP,
    DEPLOYMENT,
    ENDPOINTS,
    EVENT,
    LEASE,
    NAMESPACE,
    POD,
    SERVICE,
    Kind,
    Obj,
)


@served()
async def test_create_sets_what_only_the_server_may_set(bench: Bench) -> None:
    made = config_map(a="1")
    made["metadata"] |= {
        "uid": "mine",
        "creationTimestamp": "2001-01-01T00:00:00Z",
    }
    found = await bench.admin.create(CONFIG_MAP, made, "default")
    metadata = found["metadata"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", metadata["uid"])
    assert metadata["creationTimestamp"] > "2020"
    assert "generation" not in metadata  # kinds without one
    assert metadata["namespace"] == "default"
    assert found == await bench.admin.get(CONFIG_MAP, "settings", "default")


@served()
async def test_generated_names_differ_and_keep_their_start(bench: Bench) -> None:
    names = set()
    for _ in range(3):
        made = pod()
        made["metadata"] = {"generateName": "job-"}
        names.add((await bench.admin.create(POD, made, "default"))["metadata"]["name"])
    assert len(names) == 3
    assert all(re.fullmatch(r"job-[a-z0-9]{5}", name) for name in names)


@served()
async def test_refusals_have_the_words_of_the_real_server(bench: Bench) -> None:
    admin = bench.admin
    await admin.create(CONFIG_MAP, config_map(), "default")
    with bench.refused(409, "AlreadyExists", 'configmaps "settings" already exists'):
        await admin.create(CONFIG_MAP, config_map(), "default")
    with bench.refused(404, "NotFound", 'deployments.apps "none" not found'):
        await admin.get(DEPLOYMENT, "none", "default")
    assert bench.refusal is not None
    assert bench.refusal.details == {"name": "none", "group": "apps", "kind": "deployments"}
    with bench.refused(404, "NotFound", 'namespaces "nowhere" not found'):
        await admin.create(POD, pod(), "nowhere")
    with bench.refused(404, "NotFound", "the server could not find the requested resource"):
        await admin.list(Kind("v1", "Thing", "things"), "default")
    with bench.refused(404, "", "404 page not found"):
        await admin.list(Kind("example.org/v1", "Thing", "things"), "default")
    with bench.refused(400, "BadRequest", "does not match the namespace sent on the request"):
        await admin.create(CONFIG_MAP, config_map("other"), "kube-system")
    with bench.refused(405, "MethodNotAllowed"):
        await admin.request("PUT", CONFIG_MAP.path("default"), body=config_map())


@served()
async def test_an_update_of_an_old_version_conflicts(bench: Bench) -> None:
    admin = bench.admin
    first = await admin.create(CONFIG_MAP, config_map(a="1"), "default")
    second = await admin.replace(CONFIG_MAP, {**first, "data": {"a": "2"}})
    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    message = (
        'Operation cannot be fulfilled on configmaps "settings": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    with bench.refused(409, "Conflict", message):
        await admin.replace(CONFIG_MAP, {**first, "data": {"a": "3"}})
    with bench.refused(409, "Conflict", message):
        patch = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}, "data": {}}
        await admin.patch(CONFIG_MAP, "settings", "default", patch)
    with bench.refused(409, "Conflict", "Precondition failed: UID in precondition: other"):
        metadata = {**second["metadata"], "uid": "other"}
        await admin.replace(CONFIG_MAP, {**second, "metadata": metadata})
    metadata = {"name": "settings", "namespace": "default"}
    unconditional = await admin.replace(CONFIG_MAP, {**config_map(a="4"), "metadata": metadata})
    assert unconditional["data"] == {"a": "4"}


@served()
async def test_an_update_that_changes_nothing_is_no_new_version(bench: Bench) -> None:
    first = await bench.admin.create(DEPLOYMENT, deployment(), "default")
    again = await bench.admin.replace(DEPLOYMENT, first)
    patched = await bench.admin.patch(DEPLOYMENT, "web", "default", {"spec": {"replicas": 2}})
    assert again == patched == first


@served()
async def test_leases_are_created_by_put_and_cannot_be_replaced_blindly(bench: Bench) -> None:
    lease = {"metadata": {"name": "node-1", "namespace": "kube-node-lease"}, "spec": {}}
    made = await bench.admin.replace(LEASE, lease)
    assert made["metadata"]["uid"]
    with bench.refused(
        422,
        "Invalid",
        "metadata.resourceVersion: Invalid value: 0: must be specified for an update",
    ):
        await bench.admin.replace(LEASE, lease)
    with bench.refused(404, "NotFound"):
        await bench.admin.replace(CONFIG_MAP, config_map("new"))


@served()
async def test_generation_counts_changes_of_the_spec_only(bench: Bench) -> None:
    admin = bench.admin
    generations = [(await admin.create(DEPLOYMENT, deployment(), "default"))["metadata"]]
    for sub, patch in (
        ("", {"metadata": {"labels": {"a": "b"}}}),
        ("status", {"status": {"replicas": 1}}),
        ("", {"spec": {"replicas": 3}}),
        ("", {"spec": {"replicas": 3}}),
        ("", {"spec": {"template": {"metadata": {"labels": {"more": "x"}}}}}),
    ):
        found = await admin.patch(DEPLOYMENT, "web", "default", patch, sub=sub)
        generations.append(found["metadata"])
    assert [one["generation"] for one in generations] == [1, 1, 1, 2, 2, 3]
    made = await admin.create(SERVICE, service(), "default")
    assert "generation" not in made["metadata"]


@served()
async def test_status_and_object_are_two_doors(bench: Bench) -> None:
    admin = bench.admin
    await admin.create(DEPLOYMENT, {**deployment(), "status": {"replicas": 9}}, "default")
    assert (await admin.get(DEPLOYMENT, "web", "default"))["status"] == {}
    both = {"spec": {"replicas": 5}, "status": {"replicas": 4}}
    through_status = await admin.patch(DEPLOYMENT, "web", "default", both, sub="status")
    assert (through_status["spec"]["replicas"], through_status["status"]) == (2, {"replicas": 4})
    through_object = await admin.patch(
        DEPLOYMENT, "web", "default", {"spec": {"replicas": 5}, "status": {"replicas": 7}}
    )
    assert (through_object["spec"]["replicas"], through_object["status"]) == (5, {"replicas": 4})


@served()
async def test_a_dry_run_answers_and_stores_nothing(bench: Bench) -> None:
    admin = bench.admin
    version = bench.server.store.version
    path, dry = CONFIG_MAP.path("default"), {"dryRun": "All"}
    made = await admin.request("POST", path, body=config_map(a="1"), query=dry)
    assert made["metadata"]["uid"]
    assert await admin.find(CONFIG_MAP, "settings", "default") is None
    assert bench.server.store.version == version
    await admin.create(CONFIG_MAP, config_map(a="1"), "default")
    patched = await admin.request(
        "PATCH",
        f"{path}/settings",
        body={"data": {"a": "2"}},
        query=dry,
        content_type="application/merge-patch+json",
    )
    assert patched["data"] == {"a": "2"}
    await admin.request("DELETE", f"{path}/settings", query=dry)
    assert (await admin.get(CONFIG_MAP, "settings", "default"))["data"] == {"a": "1"}
    with bench.refused(400, "BadRequest", "dryRun"):
        await admin.request("POST", path, body=config_map("x"), query={"dryRun": "Some"})


@served()
async def test_lists_come_in_pages_and_in_order(bench: Bench) -> None:
    admin = bench.admin
    for name in ("c", "a", "e", "b", "d"):
        await admin.create(CONFIG_MAP, config_map(name), "default")
    path = CONFIG_MAP.path("default")
    names: list[str] = []
    query = {"limit": "2"}
    pages = 0
    while True:
        page = await admin.request("GET", path, query=query)
        names += [item["metadata"]["name"] for item in page["items"]]
        pages += 1
        token = page["metadata"].get("continue")
        if not token:
            break
        query = {"limit": "2", "continue": token}
    assert names == ["a", "b", "c", "d", "e"]
    assert pages == 3
    with bench.refused(400, "BadRequest", "continue key is not valid"):
        await admin.request("GET", path, query={"continue": "nonsense"})


@served()
async def test_selectors_choose_by_labels_and_fields(bench: Bench) -> None:
    admin = bench.admin
    for name, labels in (("a", {"x": "1"}), ("b", {"x": "2", "y": ""}), ("c", {})):
        await admin.create(POD, pod(name, labels=labels), "default")
    target = {"metadata": {"name": "b"}, "target": {"name": "n"}}
    await admin.request("POST", POD.path("default", "b", "binding"), body=target)

    async def names(**selectors: str) -> str:
        listed = await admin.list(POD, "default", **selectors)
        return "".join(item["metadata"]["name"] for item in listed.items)

    assert await names(labels="x") == "ab"
    assert await names(labels="!x") == "c"
    assert await names(labels="x=1") == "a"
    assert await names(labels="x!=1") == "bc"
    assert await names(labels="x in (1,2),y") == "b"
    assert await names(labels="x notin (1)") == "bc"
    assert await names(labels="x>1") == "b"
    assert await names(fields="metadata.name=b") == "b"
    assert await names(fields="metadata.name!=b") == "ac"
    assert await names(fields="spec.nodeName=n") == "b"
    assert await names(fields="spec.nodeName=,status.phase=Pending") == "ac"
    assert await names(fields="metadata.name=b,spec.nodeName=other") == ""
    with bench.refused(400, "BadRequest", "field label not supported: spec.color"):
        await names(fields="spec.color=red")
    with bench.refused(400, "BadRequest", "unable to parse requirement"):
        await names(labels="x in 1")


@served()
async def test_events_are_the_same_objects_in_both_groups(bench: Bench) -> None:
    admin = bench.admin
    about = {"kind": "Pod", "name": "p", "namespace": "default", "uid": "u"}
    new = Kind("events.k8s.io/v1", "Event", "events")
    made = await admin.create(
        new,
        {
            "metadata": {"name": "first"},
            "regarding": about,
            "note": "hello",
            "reason": "Said",
            "type": "Normal",
            "action": "Say",
            "reportingController": "me",
            "reportingInstance": "me-1",
            "eventTime": "2026-01-01T00:00:00.500000Z",
        },
        "default",
    )
    assert (made["apiVersion"], made["note"]) == ("events.k8s.io/v1", "hello")
    assert made["eventTime"] == "2026-01-01T00:00:00.500000Z"
    old = await admin.get(EVENT, "first", "default")
    assert (old["apiVersion"], old["message"], old["involvedObject"]) == ("v1", "hello", about)
    for field in ("involvedObject.name=p", "reason=Said", "type=Normal", "involvedObject.uid=u"):
        assert len((await admin.list(EVENT, "default", fields=field)).items) == 1
    assert (await admin.list(EVENT, "default", fields="involvedObject.name=q")).items == []


@served(events_s=1000.0)
async def test_old_events_are_forgotten(bench: Bench) -> None:
    for name, when in (("old", "2020-01-01T00:00:00Z"), ("new", None)):
        event: Obj = {"metadata": {"name": name}, "involvedObject": {"kind": "Pod"}}
        event["lastTimestamp"] = when
        await bench.admin.create(EVENT, event, "default")
    bench.server.sweep_events()
    left = (await bench.admin.list(EVENT, "default")).items
    assert [event["metadata"]["name"] for event in left] == ["new"]


@served(endpoints=[("10.9.8.7", 1234)])
async def test_the_cluster_has_what_every_cluster_has(bench: Bench) -> None:
    admin = bench.admin
    names = [item["metadata"]["name"] for item in (await admin.list(NAMESPACE)).items]
    assert names == ["default", "kube-node-lease", "kube-public", "kube-system"]
    kubernetes = await admin.get(SERVICE, "kubernetes", "default")
    assert kubernetes["spec"]["clusterIP"] == "10.96.0.1"
    endpoints = await admin.get(ENDPOINTS, "kubernetes", "default")
    assert endpoints["subsets"][0]["addresses"] == [{"ip": "10.9.8.7"}]
    assert endpoints["subsets"][0]["ports"][0]["port"] == 1234
    assert "stand-in" in (await admin.request("GET", "/version"))["gitVersion"]
