"""Roles and who may take them: the EBS CSI driver, the nodes, the control plane, PGO."""

from __future__ import annotations

from typing import Any

from pytest_pgo_eks.audit.facts import Facts
from pytest_pgo_eks.audit.result import Check, Result, failed, passed, warned

CSI_ADDON = "aws-ebs-csi-driver"
CSI_SUBJECT = "system:serviceaccount:kube-system:ebs-csi-controller-sa"
AUDIENCE = "sts.amazonaws.com"
ROLE_ANNOTATION = "eks.amazonaws.com/role-arn"
_NODE_POLICIES = frozenset(
    {
        "AmazonEKSWorkerNodePolicy",
        "AmazonEKSWorkerNodeMinimalPolicy",
        "AmazonEC2ContainerRegistryReadOnly",
        "AmazonEC2ContainerRegistryPullOnly",
        "AmazonEKS_CNI_Policy",
        "AmazonSSMManagedInstanceCore",
    }
)
#: What the pattern attaches to the role beyond that, and the deviation that says why not.
_ASKED = {"AmazonEKSServicePolicy": "D14", "CloudWatchFullAccess": "D15"}
_CLUSTER_POLICIES = frozenset({"AmazonEKSClusterPolicy", "AmazonEKSVPCResourceController"})


def issuer(facts: Facts) -> str:
    """Return the cluster's OIDC issuer, without its scheme, as IAM writes it."""
    found: str = facts["cluster"]["identity"]["oidc"]["issuer"]
    return found.removeprefix("https://")


def provider_of(facts: Facts) -> dict[str, Any] | None:
    """Return IAM's OIDC provider of the cluster's issuer, None where there is none."""
    wanted = issuer(facts)
    return next(
        (p for p in facts["oidc_providers"] if p["Url"].removeprefix("https://") == wanted), None
    )


def statements(role: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the allowing statements of a role's trust."""
    found = role["AssumeRolePolicyDocument"].get("Statement", [])
    listed = found if isinstance(found, list) else [found]
    return [each for each in listed if each.get("Effect") == "Allow"]


def trust_problem(role: dict[str, Any], issuer: str, subject: str) -> str:
    """Say what is wrong with a role that one ServiceAccount should take; empty where nothing is.

    The trust has to name both the audience and the subject, literally: a missing subject lets every
    ServiceAccount of the cluster take the role (EKS user guide, IAM roles for service accounts).
    """
    web = [s for s in statements(role) if "sts:AssumeRoleWithWebIdentity" in _listed(s["Action"])]
    if not web:
        return "no ServiceAccount may take the role"
    for statement in web:
        conditions = statement.get("Condition") or {}
        exact = conditions.get("StringEquals") or {}
        loose = conditions.get("StringLike") or {}
        if wild := [f"{k} like {v}" for k, v in loose.items() if "*" in str(v) or "?" in str(v)]:
            return f"a wildcard in its trust: {', '.join(wild)}"
        told = {**exact, **loose}
        if _listed(told.get(f"{issuer}:aud")) != [AUDIENCE]:
            return f"its trust does not demand the audience {AUDIENCE}"
        subjects = _listed(told.get(f"{issuer}:sub"))
        if subjects != [subject]:
            return f"its trust names the subjects {subjects}, expected {subject} alone"
        federated = _listed((statement.get("Principal") or {}).get("Federated"))
        if not all(arn.endswith(f":oidc-provider/{issuer}") for arn in federated) or not federated:
            return f"its trust names another issuer: {federated}"
    return ""


def pod_identity(facts: Facts) -> bool:
    """Whether the CSI driver gets its role by EKS Pod Identity."""
    addon = facts["addons"].get(CSI_ADDON) or {}
    return bool(addon.get("podIdentityAssociations")) or any(
        each.get("namespace") == "kube-system"
        and each.get("serviceAccount") == "ebs-csi-controller-sa"
        for each in facts["pod_identities"]
    )


def federation(facts: Facts) -> Result:
    role = facts["csi_role"]
    if pod_identity(facts):
        if role is None:
            return failed("the CSI driver's pod identity names a role that does not exist")
        services = [s.get("Principal", {}).get("Service") for s in statements(role)]
        if services != ["pods.eks.amazonaws.com"]:
            return failed("the CSI role's trust is not pod identity's alone", f"{services}")
        return passed("the CSI driver's role is for EKS Pod Identity alone", role["Arn"])
    provider = provider_of(facts)
    if provider is None:
        return failed("IAM has no OIDC provider of the cluster's issuer", issuer(facts))
    if AUDIENCE not in provider.get("ClientIDList", []):
        return failed("the OIDC provider lacks the audience", f"{provider.get('ClientIDList')}")
    if role is None:
        return failed("the CSI driver has no role of its own")
    if problem := trust_problem(role, issuer(facts), CSI_SUBJECT):
        return failed(f"{role['RoleName']}: {problem}")
    return passed("the CSI role is for the driver's ServiceAccount alone", role["Arn"])


def node_role(facts: Facts) -> Result:
    addon = facts["addons"].get(CSI_ADDON) or {}
    if facts["csi_role"] is None:
        return failed("the CSI driver works with the nodes' role", f"{addon.get('addonArn')}")
    csi = facts["csi_role"]["Arn"]
    seen, extra, inline = [], [], []
    for role in facts["node_roles"]:
        seen.append(f"{role['RoleName']}: {', '.join(role['attached'])}")
        extra += [p for p in role["attached"] if p not in _NODE_POLICIES]
        inline += role["inline"]
        if role["Arn"] == csi:
            return failed("the CSI driver works with the nodes' role", csi)
    if extra:
        return failed(f"every pod of a node inherits {', '.join(sorted(set(extra)))}", *seen)
    if inline:
        return warned(f"nodes have policies of their own: {', '.join(inline)}", *seen)
    return passed("nodes carry no policy that workloads need", *seen)


def service_accounts(facts: Facts) -> Result:
    outside = [
        f"{_of(account)}: {annotation}"
        for account in facts["service_accounts"]
        if (annotation := (account["metadata"].get("annotations") or {}).get(ROLE_ANNOTATION))
        and account["metadata"]["namespace"] != "kube-system"
    ]
    if outside:
        # The pattern puts the CSI driver's role on PGO, which could never assume it.
        asked = "D10" if all("/pgo:" in line for line in outside) else None
        return failed(
            "ServiceAccounts that need nothing of AWS name a role", *outside, asked_for_by=asked
        )
    poolers = [
        pod["metadata"]["name"]
        for pod in facts["pods"]
        if (pod["metadata"].get("labels") or {}).get("postgres-operator.crunchydata.com/role")
        == "pgbouncer"
        and pod["spec"].get("automountServiceAccountToken") is not False
    ]
    if poolers:
        return warned("PgBouncer's pods hold a token of the API that they do not need", *poolers)
    return passed("no ServiceAccount around PostgreSQL names a role of AWS")


def cluster_role(facts: Facts) -> Result:
    role = facts["cluster_role"]
    extra = sorted(set(role["attached"]) - _CLUSTER_POLICIES)
    seen = f"{role['RoleName']}: {', '.join(role['attached'])}"
    if extra:
        asked = next((_ASKED[p] for p in extra), None) if set(extra) <= _ASKED.keys() else None
        return failed(
            f"the control plane's role has more than it needs: {', '.join(extra)}",
            seen,
            asked_for_by=asked,
        )
    if role["inline"]:
        return warned(f"it has policies of its own: {', '.join(role['inline'])}", seen)
    return passed("the control plane's role has what it needs alone", seen)


def _listed(value: object) -> list[str]:
    if value is None:
        return []
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _of(thing: dict[str, Any]) -> str:
    return f"{thing['metadata']['namespace']}/{thing['metadata']['name']}"


CHECKS = (
    Check(
        "A6",
        "only the CSI driver may take the CSI role",
        "S4, S5, S16: IAM roles for service accounts",
        federation,
        "EKS user guide, IAM roles for service accounts",
    ),
    Check(
        "A7",
        "nodes carry no right that a workload uses",
        "S5, S16: IAM roles for service accounts",
        node_role,
        "EKS best practices, identity and access management",
    ),
    Check(
        "A16",
        "only what talks to AWS has a role there",
        "S7: the role's ARN on the operator's ServiceAccount",
        service_accounts,
        "EKS best practices, identity and access management",
    ),
    Check(
        "A17",
        "the control plane's role is minimal",
        "S1: three policies on the cluster's role",
        cluster_role,
        "EKS user guide, cluster IAM role",
    ),
)
