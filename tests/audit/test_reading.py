"""Reading from AWS: pages, refusals, and the members that checks rely on."""

from __future__ import annotations

import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from audit.sound import NAME
from pytest_pgo_eks.audit.facts import Unread
from pytest_pgo_eks.audit.read_aws import AwsReader
from pytest_pgo_eks.audit.read_kubernetes import verifies
from pytest_pgo_eks.clusters.base import ClusterHandle


class Answers:
    """Clients that answer what a test wrote down, and refuse every other call."""

    def __init__(self, answers: dict[str, list[Any]]) -> None:
        self.answers = answers
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, service: str) -> Any:
        answers, calls = self.answers, self.calls

        class Client:
            def __getattr__(self, operation: str) -> Any:
                def call(**arguments: Any) -> Any:
                    calls.append((f"{service}.{operation}", arguments))
                    listed = answers.get(f"{service}.{operation}")
                    if not listed:
                        raise refused("AccessDeniedException", operation)
                    return listed.pop(0) if len(listed) > 1 else listed[0]

                return call

        return Client()


def refused(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, operation)


CLUSTER = {
    "cluster": {
        "name": NAME,
        "version": "1.36",
        "roleArn": "arn:aws:iam::1:role/path/plane",
        "resourcesVpcConfig": {"vpcId": "vpc-1"},
    }
}


def test_lists_are_read_to_their_last_page() -> None:
    clients = Answers(
        {
            "eks.list_nodegroups": [
                {"nodegroups": ["a"], "nextToken": "more"},
                {"nodegroups": ["b"]},
            ],
            "eks.describe_nodegroup": [
                {"nodegroup": {"nodegroupName": "a", "nodeRole": "arn:r"}},
                {"nodegroup": {"nodegroupName": "b", "nodeRole": "arn:r"}},
            ],
        }
    )
    groups = AwsReader(clients, NAME).get("nodegroups")
    assert [group["nodegroupName"] for group in groups] == ["a", "b"]
    listed = [arguments for name, arguments in clients.calls if name == "eks.list_nodegroups"]
    assert [arguments.get("nextToken") for arguments in listed] == [None, "more"]


def test_a_list_without_end_is_not_believed() -> None:
    clients = Answers({"eks.list_addons": [{"addons": [], "nextToken": "again"}]})
    with pytest.raises(Unread, match="100 pages"):
        AwsReader(clients, NAME).get("addons")


def test_a_refusal_keeps_its_reason_and_spoils_nothing_else() -> None:
    clients = Answers({"eks.describe_cluster": [CLUSTER]})
    known, unread = AwsReader(clients, NAME).read()
    assert list(known) == ["cluster"]
    assert "AccessDeniedException" in unread["addons"]
    assert "describe_vpcs" in unread["vpc"]
    assert sum(name == "eks.describe_cluster" for name, _ in clients.calls) == 1


def test_a_trust_arrives_as_text_or_as_a_document() -> None:
    text = urllib.parse.quote('{"Statement": [{"Effect": "Allow"}]}')
    clients = Answers(
        {
            "eks.describe_cluster": [CLUSTER],
            "iam.get_role": [
                {"Role": {"RoleName": "plane", "Arn": "a", "AssumeRolePolicyDocument": text}}
            ],
            "iam.list_attached_role_policies": [
                {"AttachedPolicies": [{"PolicyName": "One"}], "IsTruncated": True, "Marker": "m"},
                {"AttachedPolicies": [{"PolicyName": "Two"}], "IsTruncated": False},
            ],
            "iam.list_role_policies": [{"PolicyNames": []}],
        }
    )
    role = AwsReader(clients, NAME).get("cluster_role")
    assert role["AssumeRolePolicyDocument"] == {"Statement": [{"Effect": "Allow"}]}
    assert role["attached"] == ["One", "Two"]
    assert ("iam.get_role", {"RoleName": "plane"}) in clients.calls


def test_buckets_of_a_cluster_without_any_need_no_call() -> None:
    clients = Answers({})
    assert AwsReader(clients, NAME).buckets({"spec": {}}) == {}
    assert not clients.calls


def test_a_bucket_is_open_where_one_block_is_missing() -> None:
    block = {"BlockPublicAcls": True, "RestrictPublicBuckets": False}
    clients = Answers(
        {
            "s3.get_bucket_encryption": [{"ServerSideEncryptionConfiguration": {"Rules": [{}]}}],
            "s3.get_public_access_block": [{"PublicAccessBlockConfiguration": block}],
        }
    )
    repos = [{"name": "repo1", "s3": {"bucket": "b"}}, {"name": "repo2", "volume": {}}]
    postgres = {"spec": {"backups": {"pgbackrest": {"repos": repos}}}}
    found = AwsReader(clients, NAME).buckets(postgres)
    assert found == {"b": {"encrypted": True, "private": False}}


@pytest.mark.parametrize(
    ("server", "verified"),
    [
        ("{server: 'https://x', certificate-authority-data: YQ==}", True),
        ("{server: 'https://x', insecure-skip-tls-verify: true}", False),
        ("{server: 'http://x'}", False),
    ],
)
def test_whether_the_client_verifies(tmp_path: Path, server: str, verified: bool) -> None:
    config = tmp_path / "kubeconfig"
    config.write_text(
        "current-context: c\n"
        "contexts: [{name: other, context: {cluster: q}}, {name: c, context: {cluster: k}}]\n"
        f"clusters: [{{name: k, cluster: {server}}}]\n",
        "utf-8",
    )
    assert verifies(ClusterHandle("n", "eks", config)) is verified
