"""A token is taken by the authenticator's rules, and by nobody else, nor later, nor elsewhere."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from eks.authenticator import Refused, verify
from pytest_pgo_eks.clusters.eks import token
from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.secrets import filtered

KEY, SECRET = "AKIDEXAMPLE", "not-a-real-secret"
REGION = "eu-central-1"


def session(**more: Any) -> boto3.Session:
    return boto3.Session(aws_access_key_id=KEY, aws_secret_access_key=SECRET, **more)


def taken(text: str, **changes: Any) -> str:
    right: dict[str, Any] = {
        "cluster": "night",
        "secret": SECRET,
        "now": datetime.now(UTC),
    }
    return verify(text, **{**right, **changes})


def test_it_is_taken() -> None:
    made = token.make(session(), "night", REGION)
    assert taken(made.text) == KEY
    left = made.expires - datetime.now(UTC)
    assert timedelta(minutes=13) < left <= timedelta(minutes=14)


def test_a_session_token_goes_along() -> None:
    made = token.make(session(aws_session_token="S" * 800), "night", REGION)
    assert taken(made.text) == KEY
    assert len(made.text) < token.MAX_BYTES


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cluster": "day"}, "signature"),
        ({"secret": "another"}, "signature"),
        ({"later": timedelta(minutes=16)}, "expired"),
        ({"later": timedelta(minutes=-10)}, "future"),
    ],
)
def test_it_is_good_for_one_cluster_and_a_quarter_of_an_hour(
    changes: dict[str, Any], said: str
) -> None:
    made = token.make(session(), "night", REGION)
    # From now, not from when the tests were collected: that may be minutes ago.
    changes = dict(changes)
    later = changes.pop("later", timedelta())
    with pytest.raises(Refused, match=said):
        taken(made.text, **{"now": datetime.now(UTC) + later, **changes})


def test_a_changed_url_is_refused() -> None:
    made = token.make(session(), "night", REGION)
    text = made.text.removeprefix(token.PREFIX)
    url = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    for old, new, said in (
        ("GetCallerIdentity", "GetSessionToken", "action"),
        ("https://sts.", "https://evil.sts.", "host"),
        ("x-k8s-aws-id", "x-other", "not signed"),
        ("&Version", "&Extra=1&Version", "unknown parameter"),
    ):
        changed = base64.urlsafe_b64encode(url.replace(old, new).encode()).decode().rstrip("=")
        with pytest.raises(Refused, match=said):
            taken(token.PREFIX + changed)


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-east-1", "sts.us-east-1.amazonaws.com"),
        ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_the_regions_own_sts_is_asked(region: str, host: str) -> None:
    text = token.make(session(), "night", region).text.removeprefix(token.PREFIX)
    url = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    assert url.startswith(f"https://{host}/?")


def test_it_never_shows() -> None:
    made = token.make(session(), "night", REGION)
    assert made.text not in repr(made)
    assert made.text not in filtered(f"refused: {made.text}")
    status = made.credential()["status"]
    assert status["token"] == made.text
    assert status["expirationTimestamp"].endswith("Z")


def test_no_credentials_is_one_clear_line() -> None:
    class Nobody:
        def get_credentials(self) -> None:
            return None

    with pytest.raises(UsageProblem, match="no AWS credentials"):
        token.make(Nobody(), "night", REGION)


def test_credentials_that_are_too_long_are_refused_before_the_server_does() -> None:
    with pytest.raises(UsageProblem, match="4096"):
        token.make(session(aws_session_token="S" * 4000), "night", REGION)
