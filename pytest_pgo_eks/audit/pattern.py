"""Rows S1 to S7, S17 and S18 of the AWS pattern, asked of a cluster that stands.

The other rows (PGO, the PostgresCluster, writing and reading, the claims) hold on every provider:
their scenarios are in the other feature folders and carry the rows' tags.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from pytest_pgo_eks.audit.facts import Facts
from pytest_pgo_eks.audit.identity import (
    CSI_ADDON,
    CSI_SUBJECT,
    ROLE_ANNOTATION,
    issuer,
    pod_identity,
    provider_of,
    statements,
    trust_problem,
)
from pytest_pgo_eks.audit.network import ZONE
from pytest_pgo_eks.audit.result import (
    Check,
    Result,
    deviates,
    failed,
    not_applicable,
    passed,
    warned,
)

_POLICIES = ("AmazonEKSClusterPolicy", "AmazonEKSServicePolicy", "CloudWatchFullAccess")
_CSI_POLICIES = (
    "AmazonEBSCSIDriverPolicy",
    "AmazonEBSCSIDriverPolicyV2",
    "AmazonEBSCSIDriverEKSClusterScopedPolicy",
)
_VERSION = "1.29"
_INSIGHTS = "amazon-cloudwatch-observability"
#: A run tags what it makes; an adopted cluster must not carry such a tag of this run.
OWN_TAG = "pgo-eks/"


def cluster_role(facts: Facts) -> Result:
    role = facts["cluster_role"]
    trusted = [s.get("Principal", {}).get("Service") for s in statements(role)]
    attached = role["attached"]
    seen = (f"trust: {trusted}", f"policies: {', '.join(attached)}")
    if not any("eks.amazonaws.com" in str(each) for each in trusted):
        return failed("the control plane's role is not trusted by EKS", *seen)
    if _POLICIES[0] not in attached:
        return failed(f"{_POLICIES[0]} is not attached", *seen)
    if missing := [p for p in _POLICIES[1:] if p not in attached]:
        return deviates(
            "D14" if _POLICIES[1] in missing else "D15",
            f"{' and '.join(missing)} not attached: the control plane needs neither",
            *seen,
        )
    return passed("the role is trusted by EKS and has the three policies", *seen)


def version(facts: Facts) -> Result:
    found = facts["cluster"]["version"]
    if facts["cluster"]["status"] != "ACTIVE":
        return failed(f"the cluster is {facts['cluster']['status']}")
    if found != _VERSION:
        return deviates(
            "D1",
            f"{found} instead of {_VERSION}, which can no longer be created",
            f"platform {facts['cluster'].get('platformVersion')}",
        )
    return passed(f"the cluster is ACTIVE on {found}")


def network(facts: Facts) -> Result:
    config = facts["cluster"]["resourcesVpcConfig"]
    zones = sorted({facts["subnets"][s]["AvailabilityZone"] for s in config["subnetIds"]})
    seen = f"VPC {facts['vpc']['CidrBlock']}, zones {', '.join(zones)}"
    if len(zones) < facts.expected_zones:
        return failed(f"the cluster spans {len(zones)} of {facts.expected_zones} zones", seen)
    return passed(f"the cluster spans {len(zones)} zones", seen)


def authentication(facts: Facts) -> Result:
    mode = facts["cluster"].get("accessConfig", {}).get("authenticationMode", "CONFIG_MAP")
    if mode == "API_AND_CONFIG_MAP":
        return passed("access entries and aws-auth are both honoured", mode)
    if mode == "API":
        return passed("access entries alone are honoured, which is stricter", mode)
    return failed("only aws-auth is honoured", mode)


def node_groups(facts: Facts) -> Result:
    groups = facts["nodegroups"]
    seen = [
        f"{g['nodegroupName']}: {g['status']}, {', '.join(g.get('instanceTypes') or ['?'])}, "
        f"{g['scalingConfig']['desiredSize']} nodes"
        for g in groups
    ]
    if not groups:
        return failed("EKS knows no node group of the cluster")
    if bad := [g["nodegroupName"] for g in groups if g["status"] != "ACTIVE"]:
        return failed(f"node groups are not ACTIVE: {', '.join(bad)}", *seen)
    return deviates("D2", f"{len(groups)} managed node groups instead of self-managed ones", *seen)


def nodes_ready(facts: Facts) -> Result:
    ready: Counter[str] = Counter()
    seen, bad = [], []
    for node in facts["nodes"]:
        name = node["metadata"]["name"]
        zone = node["metadata"].get("labels", {}).get(ZONE, "no zone")
        state = {c["type"]: c["status"] for c in node["status"].get("conditions", [])}
        seen.append(f"{name}: {zone}, Ready {state.get('Ready')}")
        if state.get("Ready") == "True":
            ready[zone] += 1
        else:
            bad.append(name)
    if bad:
        return failed(f"{len(bad)} nodes are not Ready", *seen)
    if len(ready) < facts.expected_zones:
        return failed(f"nodes are Ready in {len(ready)} of {facts.expected_zones} zones", *seen)
    return passed(f"{ready.total()} nodes are Ready in {len(ready)} zones", *seen)


def oidc(facts: Facts) -> Result:
    provider = provider_of(facts)
    if provider is not None:
        return passed("IAM knows the cluster's issuer", provider["Arn"])
    if pod_identity(facts):
        return not_applicable("the CSI driver gets its role by EKS Pod Identity, without an issuer")
    return failed("IAM has no OIDC provider of the cluster's issuer", issuer(facts))


def csi_role(facts: Facts) -> Result:
    role = facts["csi_role"]
    if role is None:
        return failed("the EBS CSI driver has no role")
    seen = (role["Arn"], f"policies: {', '.join(role['attached'])}")
    if not set(role["attached"]) & set(_CSI_POLICIES):
        return failed("no policy of the EBS CSI driver is attached to its role", *seen)
    if pod_identity(facts):
        return passed("the role is given to the driver by EKS Pod Identity", *seen)
    if problem := trust_problem(role, issuer(facts), CSI_SUBJECT):
        return failed(problem, *seen)
    return passed("the driver's ServiceAccount alone may take the role", *seen)


def csi_addon(facts: Facts) -> Result:
    addon = facts["addons"].get(CSI_ADDON)
    if addon is None:
        return failed(f"the addon {CSI_ADDON} is not installed")
    seen = f"{addon['addonVersion']}: {addon['status']}"
    if addon["status"] != "ACTIVE":
        issues = [f"{i.get('code')}: {i.get('message')}" for i in _issues(addon)]
        return failed(f"the addon is {addon['status']}", seen, *issues)
    role, wanted = addon.get("serviceAccountRoleArn"), (facts["csi_role"] or {}).get("Arn")
    if not pod_identity(facts) and (role is None or role != wanted):
        return failed(f"the addon uses the role {role}", seen)
    return passed("the EBS CSI driver is ACTIVE with its role", seen, str(role or "Pod Identity"))


def operator_annotation(facts: Facts) -> Result:
    annotated = [
        account["metadata"]["name"]
        for account in facts["service_accounts"]
        if account["metadata"]["namespace"] != "kube-system"
        and ROLE_ANNOTATION in (account["metadata"].get("annotations") or {})
    ]
    if annotated:
        return warned(
            "ServiceAccounts carry the annotation, and the role's trust names the driver's alone",
            *annotated,
        )
    return deviates("D10", "PGO's ServiceAccount names no role: it needs nothing of AWS")


def logs_arrive(facts: Facts) -> Result:
    name = f"/aws/eks/{facts['cluster']['name']}/cluster"
    streams = facts["log_streams"].get(name, [])
    if not any(group["logGroupName"] == name for group in facts["log_groups"]):
        return failed(f"there is no log group {name}")
    kinds = sorted({_kind(s["logStreamName"]) for s in streams if s.get("lastEventTimestamp")})
    if "kube-apiserver" not in kinds:
        return failed(f"nothing of the API server has arrived in {name}", f"streams: {kinds}")
    return passed("control-plane logs arrive", *kinds)


def instance_logs(facts: Facts) -> Result:
    if _INSIGHTS not in facts["addons"]:
        return not_applicable(f"the addon {_INSIGHTS} is not installed")
    name = f"/aws/containerinsights/{facts['cluster']['name']}/application"
    streams = [s["logStreamName"] for s in facts["log_streams"].get(name, [])]
    pods = [pod["metadata"]["name"] for pod in facts.instance_pods]
    silent = [pod for pod in pods if not any(pod in stream for stream in streams)]
    if silent or not pods:
        return failed(f"no log of {', '.join(silent) or 'any instance'} in {name}")
    return passed(f"the logs of {len(pods)} instances arrive", name)


def adopted(facts: Facts) -> Result:
    if facts.profile != "adopted":
        return not_applicable("the cluster was made for this run")
    own = [tag for tag in facts["cluster"].get("tags") or {} if tag.startswith(OWN_TAG)]
    if own:
        return failed("an adopted cluster carries tags of a run", *own)
    return passed("the cluster is somebody's own and carries nothing of a run")


def _issues(addon: dict[str, Any]) -> list[dict[str, Any]]:
    return list((addon.get("health") or {}).get("issues") or [])


def _kind(stream: str) -> str:
    """``kube-apiserver-audit-0123abcd…`` and ``kube-apiserver-0123…`` are two kinds."""
    return stream.rpartition("-")[0]


CHECKS = (
    Check("S1", "the control plane's role", "S1: trust and three policies", cluster_role),
    Check("S2.1", "the cluster's version", "S2: version 1.29", version),
    Check("S2.2", "the cluster's network", "S2: three zones, 192.168.0.0/16", network),
    Check("S2.3", "the way of access", "S2: API_AND_CONFIG_MAP", authentication),
    Check("S2.4", "the node groups", "S2: ng-1, ng-2, ng-3", node_groups),
    Check("S3", "the nodes", "S3: kubectl get nodes", nodes_ready),
    Check("S4", "the OIDC provider", "S4: associate it", oidc),
    Check("S5", "the CSI driver's role", "S5: policy and ServiceAccount", csi_role),
    Check("S6", "the CSI driver's addon", "S6: create it with the role", csi_addon),
    Check("S7", "the operator's ServiceAccount", "S7: annotate it", operator_annotation),
    Check("S17.1", "control-plane logs", "S17: CloudWatch Logs", logs_arrive),
    Check("S17.2", "instance logs", "S17: CloudWatch Logs", instance_logs),
    Check("S18", "an adopted cluster", "S18: works on a cluster that exists", adopted),
)
