"""What the API fills in, and what admission adds."""

from __future__ import annotations

from typing import Any

import pytest

from local_apiserver.api_bench import Bench, deployment, pod, served, service
from pytest_pgo_eks.local.apiserver.quantity import amount, canonical
from pytest_pgo_eks.local.objects import (
    CLAIM,
    CRON_JOB,
    DEPLOYMENT,
    JOB,
    NAMESPACE,
    NETWORK_POLICY,
    NODE,
    POD,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
    STORAGE_CLASS,
    Obj,
)


@served()
async def test_a_pod_gets_what_every_pod_gets(bench: Bench) -> None:
    made = pod()
    made["spec"]["containers"][0] |= {
        "ports": [{"containerPort": 80}],
        "readinessProbe": {"httpGet": {"port": "web"}},
        "resources": {"limits": {"cpu": 1, "memory": "1024Mi"}},
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
    }
    made["spec"]["volumes"] = [{"name": "v"}, {"name": "s", "secret": {"secretName": "x"}}]
    found = await bench.admin.create(POD, made, "default")
    spec = found["spec"]
    expected = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "serviceAccountName": "default",
        "serviceAccount": "default",
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
        "priority": 0,
        "securityContext": {},
    }
    assert {name: spec[name] for name in expected} == expected
    container = spec["containers"][0]
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert container["resources"] == {
        "limits": {"cpu": "1", "memory": "1Gi"},
        "requests": {"cpu": "1", "memory": "1Gi"},
    }
    assert container["readinessProbe"] == {
        "httpGet": {"path": "/", "port": "web", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert spec["volumes"][0]["emptyDir"] == {}
    assert spec["volumes"][1]["secret"]["defaultMode"] == 420
    assert found["status"] == {"phase": "Pending", "qosClass": "Guaranteed"}
    assert {one["key"]: one["tolerationSeconds"] for one in spec["tolerations"]} == {
        "node.kubernetes.io/not-ready": 300,
        "node.kubernetes.io/unreachable": 300,
    }


@served()
async def test_a_pod_mounts_its_service_account_token(bench: Bench) -> None:
    made = pod()
    made["spec"]["initContainers"] = [{"name": "first", "image": "x"}]
    spec = (await bench.admin.create(POD, made, "default"))["spec"]
    volume = spec["volumes"][0]
    assert volume["name"].startswith("kube-api-access-")
    sources = volume["projected"]["sources"]
    assert sources[0] == {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}
    assert sources[1]["configMap"]["name"] == "kube-root-ca.crt"
    for container in spec["containers"] + spec["initContainers"]:
        assert container["volumeMounts"] == [
            {
                "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                "name": volume["name"],
                "readOnly": True,
            }
        ]
    made = pod("without")
    made["spec"]["automountServiceAccountToken"] = False
    assert "volumes" not in (await bench.admin.create(POD, made, "default"))["spec"]
    account = {"metadata": {"name": "quiet"}, "automountServiceAccountToken": False}
    await bench.admin.create(SERVICE_ACCOUNT, account, "default")
    made = pod("quiet")
    made["spec"]["serviceAccountName"] = "quiet"
    assert "volumes" not in (await bench.admin.create(POD, made, "default"))["spec"]
    made["metadata"]["name"], made["spec"]["serviceAccountName"] = "lost", "lost"
    with bench.refused(403, "Forbidden", 'serviceaccount "lost" not found'):
        await bench.admin.create(POD, made, "default")


@served()
async def test_services_get_addresses_and_ports(bench: Bench) -> None:
    admin = bench.admin
    plain = (await admin.create(SERVICE, service("plain"), "default"))["spec"]
    assert plain["clusterIP"].startswith("10.96.")
    assert plain["clusterIPs"] == [plain["clusterIP"]]
    assert plain["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert (plain["type"], plain["sessionAffinity"]) == ("ClusterIP", "None")
    assert (plain["ipFamilies"], plain["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    headless = (await admin.create(SERVICE, service("headless", clusterIP="None"), "default"))[
        "spec"
    ]
    assert (headless["clusterIP"], headless["clusterIPs"]) == ("None", ["None"])
    named = service("named", ports=[{"port": 1, "targetPort": "web", "protocol": "UDP"}])
    ports = (await admin.create(SERVICE, named, "default"))["spec"]["ports"]
    assert ports == [{"port": 1, "protocol": "UDP", "targetPort": "web"}]
    node = (await admin.create(SERVICE, service("node", type="NodePort"), "default"))["spec"]
    assert 30000 <= node["ports"][0]["nodePort"] <= 32767
    kept = await admin.replace(SERVICE, {**service("node", type="NodePort")})
    assert kept["spec"]["clusterIP"] == node["clusterIP"]
    assert kept["spec"]["ports"] == node["ports"]
    back = await admin.patch(SERVICE, "node", "default", {"spec": {"type": "ClusterIP"}})
    assert "nodePort" not in back["spec"]["ports"][0]
    made = service("outside", type="ExternalName", externalName="example.com", ports=[])
    external = await admin.create(SERVICE, made, "default")
    assert "clusterIP" not in external["spec"]
    with bench.refused(422, "Invalid", "the provided network does not match the current range"):
        await admin.create(SERVICE, service("far", clusterIP="192.0.2.1"), "default")
    with bench.refused(422, "Invalid", "may not change once set"):
        await admin.patch(SERVICE, "plain", "default", {"spec": {"clusterIP": "10.96.9.9"}})


@served()
async def test_workloads_get_their_defaults(bench: Bench) -> None:
    admin = bench.admin
    found = (await admin.create(DEPLOYMENT, deployment(replicas=None), "default"))["spec"]
    assert (found["replicas"], found["revisionHistoryLimit"]) == (1, 10)
    assert found["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
    }
    assert found["template"]["spec"]["terminationGracePeriodSeconds"] == 30
    assert "serviceAccountName" not in found["template"]["spec"]
    claim: Obj = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    claim["spec"]["resources"] = {"requests": {"storage": "1Gi"}}
    sets = deployment()["spec"] | {"serviceName": "web", "volumeClaimTemplates": [claim]}
    made = {"metadata": {"name": "web"}, "spec": sets}
    found = (await admin.create(STATEFUL_SET, made, "default"))["spec"]
    assert found["podManagementPolicy"] == "OrderedReady"
    assert found["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    template = found["volumeClaimTemplates"][0]
    assert template["kind"] == "PersistentVolumeClaim"
    assert template["spec"]["volumeMode"] == "Filesystem"


@served()
async def test_jobs_get_their_selector_and_labels(bench: Bench) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}
    job = {"metadata": {"name": "once"}, "spec": {"template": template}}
    found = await bench.admin.create(JOB, job, "default")
    uid = found["metadata"]["uid"]
    assert found["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert found["spec"]["template"]["metadata"]["labels"] == {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": "once",
        "controller-uid": uid,
        "job-name": "once",
    }
    assert (found["spec"]["completions"], found["spec"]["backoffLimit"]) == (1, 6)
    spec = {"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}}
    cron = await bench.admin.create(CRON_JOB, {"metadata": {"name": "c"}, "spec": spec}, "default")
    assert cron["spec"]["concurrencyPolicy"] == "Allow"
    assert (cron["spec"]["successfulJobsHistoryLimit"], cron["spec"]["suspend"]) == (3, False)


@served()
async def test_claims_get_the_default_class_and_are_protected(bench: Bench) -> None:
    admin = bench.admin
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}}

    async def claimed(name: str, **more: Any) -> Obj:
        made = {"metadata": {"name": name}, "spec": {**spec, **more}}
        return await admin.create(CLAIM, made, "default")

    early = await claimed("early")
    assert "storageClassName" not in early["spec"]
    assert early["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    for name, default in (("slow", "false"), ("fast", "true")):
        annotations = {"storageclass.kubernetes.io/is-default-class": default}
        made = {"metadata": {"name": name, "annotations": annotations}, "provisioner": "x"}
        await admin.create(STORAGE_CLASS, made)
    found = await claimed("late")
    assert found["spec"]["storageClassName"] == "fast"
    assert found["spec"]["resources"]["requests"] == {"storage": "1Gi"}
    assert found["status"] == {"phase": "Pending"}
    assert (await claimed("chosen", storageClassName="slow"))["spec"]["storageClassName"] == "slow"
    assert (await claimed("none", storageClassName=""))["spec"]["storageClassName"] == ""
    await admin.patch(CLAIM, "early", "default", {"spec": {"storageClassName": "fast"}})


@served()
async def test_secrets_policies_namespaces_and_nodes(bench: Bench) -> None:
    admin = bench.admin
    made: Obj = {"metadata": {"name": "s"}, "stringData": {"a": "b"}, "data": {"c": "ZA=="}}
    secret = await admin.create(SECRET, made, "default")
    assert (secret["type"], secret["data"]) == ("Opaque", {"a": "Yg==", "c": "ZA=="})
    assert "stringData" not in secret
    patched = await admin.patch(SECRET, "s", "default", {"stringData": {"e": "f"}})
    assert patched["data"] == {"a": "Yg==", "c": "ZA==", "e": "Zg=="}
    assert patched["metadata"]["resourceVersion"] != secret["metadata"]["resourceVersion"]
    cases: list[tuple[list[Obj], list[str]]]
    cases = [([], ["Ingress"]), ([{}], ["Ingress", "Egress"])]
    for egress, kinds in cases:
        spec = {"podSelector": {}, "egress": egress}
        made = {"metadata": {"name": f"p{len(egress)}"}, "spec": spec}
        assert (await admin.create(NETWORK_POLICY, made, "default"))["spec"]["policyTypes"] == kinds
    space = await admin.create(NAMESPACE, {"metadata": {"name": "n"}})
    assert space["metadata"]["labels"] == {"kubernetes.io/metadata.name": "n"}
    assert (space["spec"], space["status"]) == ({"finalizers": ["kubernetes"]}, {"phase": "Active"})
    status = {"capacity": {"cpu": "2000m", "memory": "2097152Ki"}}
    node = await admin.create(NODE, {"metadata": {"name": "n"}, "status": status})
    assert node["status"]["capacity"] == {"cpu": "2", "memory": "2Gi"}


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("1", "1"),
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1.5Gi", "1536Mi"),
        ("1024Mi", "1Gi"),
        ("1023Mi", "1023Mi"),
        ("1000Mi", "1000Mi"),
        ("1048576", "1048576"),
        ("1e3", "1e3"),
        ("12e6", "12e6"),
        ("2000", "2k"),
        ("0", "0"),
        ("100n", "100n"),
        ("0.1m", "100u"),
        ("-1", "-1"),
        (".5Gi", "512Mi"),
    ],
)
def test_quantities_have_one_form(given: str, stored: str) -> None:
    assert canonical(given) == stored
    assert amount(canonical(given)) == amount(given)


@pytest.mark.parametrize("text", ["", "1 Gi", "Gi", "1Gib", "0x1", "1.2.3", "--1"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quantities must match"):
        canonical(text)
