"""The bearer token of EKS: a signed question to STS that the API server asks in the client's name.

Nothing of the aws program is needed. The rules are those of aws-iam-authenticator, which EKS runs:
a presigned GET of ``sts:GetCallerIdentity`` with the cluster's name as a signed header, in URL-safe
base64 without padding behind ``k8s-aws-v1.``; the server takes it for fifteen minutes from its date,
whatever expiry the URL names (https://github.com/kubernetes-sigs/aws-iam-authenticator).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.secrets import Secret

PREFIX = "k8s-aws-v1."
CLUSTER_HEADER = "x-k8s-aws-id"
#: The server's own limit for a token, and how long it takes one after its date.
MAX_BYTES = 4096
LIFETIME = timedelta(minutes=15)
#: Said to clients, so that none is refused for a clock that is a little late.
_TOLD = timedelta(minutes=14)
_URL_EXPIRES_S = 60


@dataclass(frozen=True)
class Token:
    """A bearer token and the moment from which clients should ask for another."""

    text: Secret
    expires: datetime

    def credential(self) -> dict[str, Any]:
        """Return it as kubectl's exec plugins print it (client.authentication.k8s.io/v1)."""
        return {
            "apiVersion": "client.authentication.k8s.io/v1",
            "kind": "ExecCredential",
            "spec": {"interactive": False},
            "status": {
                "token": str(self.text),
                "expirationTimestamp": self.expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        }


def make(session: Any, cluster: str, region: str) -> Token:
    """Sign a token with the present credentials of a ``boto3.Session``; it is never written down.

    Credentials of a role are read anew for each token: it dies with the session behind it.

    :raises UsageProblem: there are no credentials, or AWS would not take the token's length.
    """
    from botocore.signers import RequestSigner

    credentials = session.get_credentials()
    if credentials is None:
        raise UsageProblem(
            "no AWS credentials were found; log in (aws sso login), or set AWS_PROFILE"
        )
    sts = session.client("sts", region_name=region, endpoint_url=_endpoint(session, region))
    signer = RequestSigner(
        sts.meta.service_model.service_id, region, "sts", "v4", credentials, session.events
    )
    signed_at = datetime.now(UTC)
    url = signer.generate_presigned_url(
        {
            "method": "GET",
            "url": f"{sts.meta.endpoint_url}/?Action=GetCallerIdentity&Version=2011-06-15",
            "body": {},
            "headers": {CLUSTER_HEADER: cluster},
            "context": {},
        },
        region_name=region,
        expires_in=_URL_EXPIRES_S,
        operation_name="",
    )
    text = PREFIX + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")
    if len(text) > MAX_BYTES:
        raise UsageProblem(
            f"the token for {cluster} has {len(text)} characters and EKS takes {MAX_BYTES}: the "
            "session token of these credentials is too long; use a role with fewer session tags"
        )
    return Token(Secret(text), signed_at + _TOLD)


def _endpoint(session: Any, region: str) -> str:
    """Return the region's own STS: the global one is in another region's hands, and some
    accounts have it switched off."""
    partition = session.get_partition_for_region(region)
    suffix = "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com"
    return f"https://sts.{region}.{suffix}"
