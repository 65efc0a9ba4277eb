"""Read what AWS says of one EKS cluster. Every call is a read; nothing is changed."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pytest_pgo_eks.audit.facts import Unread
from pytest_pgo_eks.audit.identity import CSI_ADDON

#: A list that AWS gives in more pages than this is not one of a single cluster.
_PAGES = 100


class AwsReader:
    """Reads facts one by one, each at most once, and keeps why one could not be read.

    ``clients`` returns the boto3 client of a service; ``name`` is the cluster's.
    """

    def __init__(self, clients: Callable[[str], Any], name: str) -> None:
        self._clients = clients
        self._name = name
        self._known: dict[str, Any] = {}
        self._reads: Mapping[str, Callable[[], Any]] = {
            "cluster": self._cluster,
            "version": self._version,
            "nodegroups": self._nodegroups,
            "addons": self._addons,
            "access_entries": self._access_entries,
            "pod_identities": self._pod_identities,
            "log_groups": self._log_groups,
            "log_streams": self._log_streams,
            "oidc_providers": self._oidc_providers,
            "cluster_role": lambda: self._role(self.get("cluster")["roleArn"]),
            "node_roles": self._node_roles,
            "csi_role": self._csi_role,
            "launch_templates": self._launch_templates,
            "instances": self._instances,
            "volumes": self._volumes,
            "encryption_by_default": lambda: bool(
                self._call("ec2", "get_ebs_encryption_by_default")["EbsEncryptionByDefault"]
            ),
            "vpc": self._vpc,
            "subnets": self._subnets,
            "route_tables": lambda: self._of_vpc("describe_route_tables", "RouteTables"),
            "security_groups": lambda: self._of_vpc("describe_security_groups", "SecurityGroups"),
        }

    def read(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Return what could be read, and for everything else the reason."""
        unread: dict[str, str] = {}
        for name in self._reads:
            try:
                self.get(name)
            except Unread as reason:
                unread[name] = str(reason)
        return dict(self._known), unread

    def get(self, name: str) -> Any:
        """Return one fact.

        :raises Unread: AWS refused, or answered what no such fact looks like.
        """
        if name not in self._known:
            self._known[name] = self._reads[name]()
        return self._known[name]

    def buckets(self, postgres: Mapping[str, Any]) -> dict[str, dict[str, bool]]:
        """Return encryption and privacy of every bucket that a PostgresCluster backs up to.

        :raises Unread: AWS did not say.
        """
        repositories = postgres["spec"].get("backups", {}).get("pgbackrest", {}).get("repos", [])
        found = {}
        for repository in repositories:
            if bucket := repository.get("s3", {}).get("bucket"):
                rules = self._call("s3", "get_bucket_encryption", Bucket=bucket)
                block = self._call("s3", "get_public_access_block", Bucket=bucket)
                found[bucket] = {
                    "encrypted": bool(rules["ServerSideEncryptionConfiguration"]["Rules"]),
                    "private": all(block["PublicAccessBlockConfiguration"].values()),
                }
        return found

    def _cluster(self) -> Any:
        return self._call("eks", "describe_cluster", name=self._name)["cluster"]

    def _version(self) -> Any:
        wanted = self.get("cluster")["version"]
        entries = self._every(
            "eks", "describe_cluster_versions", "clusterVersions", clusterVersions=[wanted]
        )
        for entry in entries:
            if entry["clusterVersion"] == wanted:
                return entry
        raise Unread(f"EKS does not know its version {wanted}")

    def _nodegroups(self) -> Any:
        return [
            self._call("eks", "describe_nodegroup", clusterName=self._name, nodegroupName=name)[
                "nodegroup"
            ]
            for name in self._every("eks", "list_nodegroups", "nodegroups", clusterName=self._name)
        ]

    def _addons(self) -> Any:
        return {
            name: self._call("eks", "describe_addon", clusterName=self._name, addonName=name)[
                "addon"
            ]
            for name in self._every("eks", "list_addons", "addons", clusterName=self._name)
        }

    def _access_entries(self) -> Any:
        found = []
        for arn in self._every(
            "eks", "list_access_entries", "accessEntries", clusterName=self._name
        ):
            who = {"clusterName": self._name, "principalArn": arn}
            entry = self._call("eks", "describe_access_entry", **who)["accessEntry"]
            policies = self._every(
                "eks", "list_associated_access_policies", "associatedAccessPolicies", **who
            )
            found.append({**entry, "accessPolicies": list(policies)})
        return found

    def _pod_identities(self) -> Any:
        return list(
            self._every(
                "eks", "list_pod_identity_associations", "associations", clusterName=self._name
            )
        )

    def _log_groups(self) -> Any:
        prefixes = (f"/aws/eks/{self._name}/", f"/aws/containerinsights/{self._name}/")
        return [
            group
            for prefix in prefixes
            for group in self._every(
                "logs", "describe_log_groups", "logGroups", logGroupNamePrefix=prefix
            )
        ]

    def _log_streams(self) -> Any:
        return {
            group["logGroupName"]: list(
                self._every(
                    "logs",
                    "describe_log_streams",
                    "logStreams",
                    logGroupName=group["logGroupName"],
                )
            )
            for group in self.get("log_groups")
        }

    def _oidc_providers(self) -> Any:
        listed = self._call("iam", "list_open_id_connect_providers")
        return [
            {
                **self._call(
                    "iam", "get_open_id_connect_provider", OpenIDConnectProviderArn=each["Arn"]
                ),
                "Arn": each["Arn"],
            }
            for each in listed["OpenIDConnectProviderList"]
        ]

    def _node_roles(self) -> Any:
        arns = {group["nodeRole"] for group in self.get("nodegroups")}
        return [self._role(arn) for arn in sorted(arns)]

    def _csi_role(self) -> Any:
        addon = self.get("addons").get(CSI_ADDON) or {}
        arn = addon.get("serviceAccountRoleArn")
        for each in self.get("pod_identities"):
            if (each["namespace"], each["serviceAccount"]) == (
                "kube-system",
                "ebs-csi-controller-sa",
            ):
                found = self._call(
                    "eks",
                    "describe_pod_identity_association",
                    clusterName=self._name,
                    associationId=each["associationId"],
                )
                arn = found["association"]["roleArn"]
        return self._role(arn) if arn else None

    def _role(self, arn: str) -> dict[str, Any]:
        name = arn.rpartition("/")[2]
        role = dict(self._call("iam", "get_role", RoleName=name)["Role"])
        trust = role["AssumeRolePolicyDocument"]
        if isinstance(trust, str):
            trust = json.loads(urllib.parse.unquote(trust))
        role["AssumeRolePolicyDocument"] = trust
        role["attached"] = [
            policy["PolicyName"]
            for policy in self._every(
                "iam", "list_attached_role_policies", "AttachedPolicies", RoleName=name
            )
        ]
        role["inline"] = list(
            self._every("iam", "list_role_policies", "PolicyNames", RoleName=name)
        )
        return role

    def _launch_templates(self) -> Any:
        found = []
        for group in self.get("nodegroups"):
            template = group.get("launchTemplate")
            if not template:
                continue
            versions = self._call(
                "ec2",
                "describe_launch_template_versions",
                LaunchTemplateId=template["id"],
                Versions=[str(template.get("version", "$Default"))],
            )["LaunchTemplateVersions"]
            found += [
                {**v["LaunchTemplateData"], "Name": v["LaunchTemplateName"]} for v in versions
            ]
        return found

    def _instances(self) -> Any:
        return [
            instance
            for reservation in self._every(
                "ec2",
                "describe_instances",
                "Reservations",
                Filters=[
                    {"Name": f"tag:kubernetes.io/cluster/{self._name}", "Values": ["owned"]},
                    {"Name": "instance-state-name", "Values": ["pending", "running"]},
                ],
            )
            for instance in reservation["Instances"]
        ]

    def _volumes(self) -> Any:
        """Volumes of the nodes, and those that the CSI driver made for claims."""
        nodes = [instance["InstanceId"] for instance in self.get("instances")]
        asked = [{"Name": f"tag:kubernetes.io/cluster/{self._name}", "Values": ["owned"]}]
        found = {
            v["VolumeId"]: v
            for v in self._every("ec2", "describe_volumes", "Volumes", Filters=asked)
        }
        if nodes:
            asked = [{"Name": "attachment.instance-id", "Values": nodes}]
            found |= {
                v["VolumeId"]: v
                for v in self._every("ec2", "describe_volumes", "Volumes", Filters=asked)
            }
        return list(found.values())

    def _vpc(self) -> Any:
        wanted = self.get("cluster")["resourcesVpcConfig"]["vpcId"]
        (found,) = self._call("ec2", "describe_vpcs", VpcIds=[wanted])["Vpcs"]
        return found

    def _subnets(self) -> Any:
        return {s["SubnetId"]: s for s in self._of_vpc("describe_subnets", "Subnets")}

    def _of_vpc(self, operation: str, key: str) -> list[Any]:
        wanted = self.get("cluster")["resourcesVpcConfig"]["vpcId"]
        asked = [{"Name": "vpc-id", "Values": [wanted]}]
        return list(self._every("ec2", operation, key, Filters=asked))

    def _every(self, service: str, operation: str, key: str, **arguments: Any) -> Iterator[Any]:
        """Yield every item of a list, page by page.

        The three services spell the token differently: nextToken, NextToken, Marker.
        """
        for _ in range(_PAGES):
            answer = self._call(service, operation, **arguments)
            yield from answer[key]
            for name in ("nextToken", "NextToken", "Marker"):
                if token := answer.get(name):
                    arguments[name] = token
                    break
            else:
                return
        raise Unread(f"{service} {operation} gives more than {_PAGES} pages")

    def _call(self, service: str, operation: str, **arguments: Any) -> Any:
        """Call AWS.

        :raises Unread: it refused, or did not answer. An HTML page with status 404 is no answer:
            only a typed error may say that something does not exist.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self._clients(service), operation)(**arguments)
        except (ClientError, BotoCoreError) as error:
            raise Unread(f"{service} {operation}: {error}") from error
