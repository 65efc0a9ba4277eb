"""The control plane: its endpoint, version, keys, logs, and who may talk to it."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Any

import yaml

from pytest_pgo_eks.audit.facts import Facts
from pytest_pgo_eks.audit.result import (
    Check,
    Result,
    failed,
    not_applicable,
    passed,
    warned,
)

_ANYWHERE = frozenset({"0.0.0.0/0", "::/0"})
_LOGS = ("api", "audit", "authenticator")
_ADMIN = "AmazonEKSClusterAdminPolicy"
#: Below this many days of standard support the next upgrade should be on somebody's calendar.
_DAYS_LEFT = 30
#: Since this version EKS encrypts all API data with a key of its own.
_ENCRYPTED_SINCE = (1, 28)
#: What the pattern's text asks for.
_PATTERN_VERSION = "1.29"
#: Tags that a cluster made for a run carries, and that an owner of one for good should set.
OWNER_TAGS = ("owner", "expires-at")


def endpoint(facts: Facts) -> Result:
    network = facts["cluster"]["resourcesVpcConfig"]
    public, private = network["endpointPublicAccess"], network["endpointPrivateAccess"]
    ranges = network.get("publicAccessCidrs") or ["0.0.0.0/0"]
    seen = f"public {public} from {', '.join(ranges)}; private {private}"
    if public and _ANYWHERE.intersection(ranges):
        return failed("the API endpoint answers the whole internet", seen)
    if not private:
        return warned("nodes reach the API server through its public endpoint only", seen)
    return passed("the API endpoint is private or restricted to named ranges", seen)


def supported_version(facts: Facts) -> Result:
    entry, version = facts["version"], facts["cluster"]["version"]
    status = entry.get("versionStatus") or entry.get("status", "")
    end = _day(entry.get("endOfStandardSupportDate"))
    seen = f"{version}: {status}, standard support until {end or 'an unknown day'}"
    if status.upper().replace("-", "_") != "STANDARD_SUPPORT" or (end and end < facts.today):
        asked = "D1" if version == _PATTERN_VERSION else None
        return failed("the Kubernetes version is out of standard support", seen, asked_for_by=asked)
    if end and (end - facts.today).days < _DAYS_LEFT:
        return warned(f"standard support ends in {(end - facts.today).days} days", seen)
    return passed("the Kubernetes version is in standard support", seen)


def secrets_key(facts: Facts) -> Result:
    cluster = facts["cluster"]
    keys = [
        each["provider"]["keyArn"]
        for each in cluster.get("encryptionConfig") or []
        if "secrets" in each.get("resources", [])
    ]
    if keys:
        return passed("Secrets are encrypted with a key of the account", *keys)
    if tuple(map(int, cluster["version"].split("."))) >= _ENCRYPTED_SINCE:
        return passed(
            "all API data is encrypted with a key of EKS; a key of the account is optional",
            f"version {cluster['version']}, no encryptionConfig",
        )
    return failed("Secrets are not encrypted", f"version {cluster['version']}, no encryptionConfig")


def logs(facts: Facts) -> Result:
    cluster = facts["cluster"]
    enabled = {
        kind
        for setup in cluster.get("logging", {}).get("clusterLogging", [])
        if setup.get("enabled")
        for kind in setup.get("types", [])
    }
    seen = f"enabled: {', '.join(sorted(enabled)) or 'none'}"
    if missing := [kind for kind in _LOGS if kind not in enabled]:
        return failed(f"control-plane logs are off: {', '.join(missing)}", seen)
    name = f"/aws/eks/{cluster['name']}/cluster"
    group = next((g for g in facts["log_groups"] if g["logGroupName"] == name), None)
    if group is None:
        return failed(f"the log group {name} does not exist", seen)
    if not group.get("retentionInDays"):
        return warned(f"the log group {name} keeps everything for ever", seen)
    return passed(
        "API, audit and authenticator logs are kept for a stated time",
        seen,
        f"{name}: {group['retentionInDays']} days",
    )


def access(facts: Facts) -> Result:
    mode = facts["cluster"].get("accessConfig", {}).get("authenticationMode", "CONFIG_MAP")
    entries = facts["access_entries"] if "API" in mode else []
    seen = [f"mode {mode}"] + [
        f"{entry['principalArn']}: {', '.join(_policies(entry)) or 'no policy'}"
        for entry in entries
    ]
    masters, powerless = _mapped(facts["aws_auth"])
    if masters:
        return failed(
            "aws-auth makes identities cluster administrators: " + ", ".join(masters), *seen
        )
    if mode == "CONFIG_MAP":
        return warned("access is granted by the aws-auth ConfigMap alone", *seen)
    if powerless:
        # D6: a user name without a group has no right at all.
        return warned("aws-auth maps identities to no group: " + ", ".join(powerless), *seen)
    return passed("access is granted by access entries", *seen)


def verified(facts: Facts) -> Result:
    if not facts["verified_tls"]:
        return failed("the client does not verify the certificate of the API server")
    name = facts["cluster"]["name"]
    return passed(
        "the API server is verified against the cluster's own authority",
        f"tokens are signed for {name} alone",
    )


def kept_and_tagged(facts: Facts) -> Result:
    cluster = facts["cluster"]
    tags = cluster.get("tags") or {}
    protected = bool(cluster.get("deletionProtection"))
    seen = f"deletion protection {protected}; tags: {', '.join(sorted(tags)) or 'none'}"
    missing = [name for name in OWNER_TAGS if not any(t.endswith(name) for t in tags)]
    if facts.profile != "adopted":
        if missing:
            return failed(f"the run's cluster lacks tags: {', '.join(missing)}", seen)
        return passed("the run's cluster says whose it is and when it goes", seen)
    if not protected:
        return warned("the cluster could be deleted by one call", seen)
    if missing:
        return warned(f"the cluster lacks tags: {', '.join(missing)}", seen)
    return passed("the cluster is protected and says whose it is", seen)


def backup_target(facts: Facts) -> Result:
    buckets = facts["buckets"]
    if not buckets:
        return not_applicable("no backup repository in S3 is configured")
    seen = [f"{name}: {state}" for name, state in sorted(buckets.items())]
    bad = [n for n, state in buckets.items() if not (state["encrypted"] and state["private"])]
    if bad:
        return failed(f"backups go to a bucket that is open or not encrypted: {bad}", *seen)
    return passed("backups go to private, encrypted buckets", *seen)


def _policies(entry: dict[str, Any]) -> list[str]:
    return [policy["policyArn"].rpartition("/")[2] for policy in entry.get("accessPolicies", [])]


def _mapped(aws_auth: dict[str, Any] | None) -> tuple[list[str], list[str]]:
    """Return the identities that aws-auth makes masters, and those it gives no group."""
    masters, powerless = [], []
    data = (aws_auth or {}).get("data") or {}
    for key in ("mapRoles", "mapUsers"):
        for each in yaml.safe_load(data.get(key) or "[]") or []:
            who, groups = each.get("rolearn") or each.get("userarn"), each.get("groups") or []
            if "system:masters" in groups:
                masters.append(str(who))
            if not groups:
                powerless.append(str(who))
    return masters, powerless


def _day(value: object) -> date | None:
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    return date.fromisoformat(str(value)[:10]) if value else None


def addon_values(addon: dict[str, Any]) -> dict[str, Any]:
    """Return an addon's configuration; EKS keeps it as JSON or as YAML, which contains JSON."""
    text = addon.get("configurationValues") or "{}"
    found = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    return found if isinstance(found, dict) else {}


CHECKS = (
    Check(
        "A1",
        "the API endpoint is not open to everybody",
        "S16: restrict the endpoint",
        endpoint,
        "Security Hub EKS.1",
    ),
    Check(
        "A2",
        "the Kubernetes version is supported",
        "S16: keep versions compatible and supported",
        supported_version,
        "Security Hub EKS.2",
    ),
    Check(
        "A3",
        "Secrets are encrypted in the control plane",
        "S15: encryption",
        secrets_key,
        "Security Hub EKS.3",
    ),
    Check(
        "A4",
        "control-plane logs are on and kept for a stated time",
        "S16, S17: monitoring and log capture",
        logs,
        "Security Hub EKS.8",
    ),
    Check(
        "A5",
        "nobody is an administrator by an old map",
        "S15: access control",
        access,
        "EKS user guide, access entries",
    ),
    Check(
        "A18",
        "the API server is verified",
        "S16: TLS between nodes and API server",
        verified,
        "EKS user guide, cluster authentication",
    ),
    Check(
        "A19",
        "the cluster says whose it is and cannot vanish by mistake",
        "S16: infrastructure as code",
        kept_and_tagged,
        "EKS API reference, deletionProtection",
    ),
    Check(
        "A20",
        "backups go where nobody else reads",
        "S15, S16: backup and restore",
        backup_target,
        "Security Hub S3.1, S3.17",
    ),
)
