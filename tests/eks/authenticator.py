"""The server's side of a token, offline: the rules of aws-iam-authenticator and the signature itself.

Written from the rules, not with botocore's signer, so that both would have to be wrong the same way.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote, urlsplit

ALLOWED = {
    "action",
    "version",
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
}


class Refused(Exception):
    """The token would not be let in."""


def _need(truth: object, said: str) -> None:
    if not truth:
        raise Refused(said)


def verify(token: str, *, cluster: str, secret: str, now: datetime) -> str:
    """Return the access key that signed the token.

    :raises Refused: a rule is broken; the text says which.
    """
    _need(len(token) <= 4096, "too long")
    _need(token.startswith("k8s-aws-v1."), "prefix")
    text = token.removeprefix("k8s-aws-v1.")
    _need("=" not in text, "padding")
    url = urlsplit(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode())
    _need(url.scheme == "https", "scheme")
    host = url.netloc
    _need(
        host.startswith("sts.") and host.endswith((".amazonaws.com", ".amazonaws.com.cn")), "host"
    )
    _need(url.path == "/", "path")
    pairs = parse_qsl(url.query, keep_blank_values=True, strict_parsing=True)
    told = {name.lower(): value for name, value in pairs}
    _need(len(told) == len(pairs), "a parameter twice")
    _need(told.keys() <= ALLOWED, "an unknown parameter")
    _need(told.get("action") == "GetCallerIdentity", "action")
    headers = told["x-amz-signedheaders"].split(";")
    _need("x-k8s-aws-id" in headers, "the cluster is not signed")
    _need(0 <= int(told["x-amz-expires"]) <= 900, "expires")
    date = datetime.strptime(told["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    _need(date + timedelta(minutes=15) > now, "expired")
    _need(date < now + timedelta(minutes=5), "from the future")
    values = {"host": host, "x-k8s-aws-id": cluster}
    _need(set(headers) == set(values), "other headers are signed")
    _need(
        hmac.compare_digest(
            _signature(pairs, headers, values, told, secret), told["x-amz-signature"]
        ),
        "signature",
    )
    return told["x-amz-credential"].partition("/")[0]


def _signature(
    pairs: list[tuple[str, str]],
    headers: list[str],
    values: dict[str, str],
    told: dict[str, str],
    secret: str,
) -> str:
    """Signature version 4 of a presigned GET without a body (AWS General Reference)."""
    kept = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in pairs
        if name.lower() != "x-amz-signature"
    )
    request = "\n".join(
        [
            "GET",
            "/",
            "&".join(f"{name}={value}" for name, value in kept),
            *[f"{name}:{values[name]}" for name in sorted(headers)],
            "",
            ";".join(sorted(headers)),
            hashlib.sha256(b"").hexdigest(),
        ]
    )
    _, day, region, service, last = told["x-amz-credential"].split("/")
    scope = f"{day}/{region}/{service}/{last}"
    digest = hashlib.sha256(request.encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{told['x-amz-date']}\n{scope}\n{digest}"
    signing = f"AWS4{secret}".encode()
    for part in (day, region, service, last):
        signing = hmac.new(signing, part.encode(), hashlib.sha256).digest()
    return hmac.new(signing, to_sign.encode(), hashlib.sha256).hexdigest()
