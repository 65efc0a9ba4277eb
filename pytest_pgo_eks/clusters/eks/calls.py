"""Calls to AWS: typed refusals, patience with throttling, credentials that may be renewed.

An error page is no answer: only an error code that the service's own model knows may say that
something does not exist.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from pytest_pgo_eks.errors import ClusterProblem, UsageProblem
from pytest_pgo_eks.kube.wait import SYSTEM_CLOCK
from pytest_pgo_eks.settings import nearest

_THROTTLED = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "RequestThrottled",
        "LimitExceededException.Throttled",
        "InternalError",
        "InternalFailure",
        "ServiceUnavailable",
        "ServiceUnavailableException",
    }
)
EXPIRED = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "AuthFailure",
    }
)
DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "UnauthorizedAccess"}
)
_MISSING = frozenset(
    {
        "ResourceNotFoundException",
        "NoSuchEntity",
        "NoSuchResourceException",
        "NatGatewayNotFound",
        "Gateway.NotAttached",
        "LoadBalancerNotFound",
        "TargetGroupNotFound",
        "ChangeSetNotFound",
    }
)
_TRIES = 8
_FIRST_TRIES = 2
_FIRST_S = 1.0
_LONGEST_S = 20.0
#: A list that AWS gives in more pages than this does not end.
_PAGES = 2000
_TOKENS = (
    ("nextToken", "nextToken"),
    ("NextToken", "NextToken"),
    ("PaginationToken", "PaginationToken"),
    ("NextMarker", "Marker"),
    ("Marker", "Marker"),
)


class AwsRefused(ClusterProblem):
    """AWS refused a call; ``code`` and ``said`` are its own words."""

    def __init__(self, service: str, operation: str, code: str, said: str) -> None:
        super().__init__(f"{service} {operation}: {code}: {said}")
        self.service = service
        self.operation = operation
        self.code = code
        self.said = said

    @property
    def missing(self) -> bool:
        """Whether the service says that what was asked for does not exist."""
        typed = self.code in _MISSING or (
            self.code.startswith("Invalid") and self.code.endswith(".NotFound")
        )
        gone = self.code == "ValidationError" and (
            "does not exist" in self.said or "not found" in self.said
        )
        return typed or gone


class Clients(Protocol):
    """Gives the boto3 client of a service, always the same one."""

    def __call__(self, service: str) -> Any: ...


class Time(Protocol):
    """The waits' clock, and the wall's."""

    def now(self) -> float: ...
    def pause(self, seconds: float) -> None: ...
    def wall(self) -> datetime: ...


class RealTime:
    """Real time."""

    def now(self) -> float:
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        SYSTEM_CLOCK.pause(seconds)

    def wall(self) -> datetime:
        return datetime.now(UTC)


class Aws:
    """One account and region. ``region`` is where the clients go."""

    def __init__(self, clients: Clients, region: str, clock: Time | None = None) -> None:
        self.clients = clients
        self.region = region
        self.clock: Time = clock or RealTime()
        #: Seconds by which AWS's clock was ahead of ours at the last answer; None before one.
        self.ahead_s: float | None = None

    def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """Call AWS and return its answer; throttled calls are repeated for about a minute.

        :raises AwsRefused: it refused. Expired credentials say how to go on.
        :raises ClusterProblem: it could not be reached, or answered nonsense.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        pause_s, renewed = _FIRST_S, False
        for attempt in range(1, _TRIES + 1):
            try:
                answer: dict[str, Any] = getattr(self.clients(service), operation)(**arguments)
            except ClientError as error:
                refused = _refusal(service, operation, error)
                if refused.code in EXPIRED and not renewed and self._renew():
                    renewed = True
                    continue
                if refused.code not in _THROTTLED or attempt == _TRIES:
                    raise refused from None
            except BotoCoreError as error:
                self._refuse_without_credentials(error)
                # Where nothing has ever answered, a long wait says no more than a short one.
                if attempt == (_TRIES if self.ahead_s is not None else _FIRST_TRIES):
                    raise ClusterProblem(f"{service} {operation}: {error}") from None
            else:
                self._compare_clocks(answer)
                return answer
            self.clock.pause(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_S)
        raise ClusterProblem(f"{service} {operation}: throttled {_TRIES} times")

    def find(self, service: str, operation: str, **arguments: Any) -> dict[str, Any] | None:
        """Return the answer, or None where the service says that there is no such thing."""
        try:
            return self.call(service, operation, **arguments)
        except AwsRefused as refused:
            if refused.missing:
                return None
            raise

    def every(self, service: str, operation: str, key: str, **arguments: Any) -> Iterator[Any]:
        """Yield every item of a list, page by page."""
        for _ in range(_PAGES):
            answer = self.call(service, operation, **arguments)
            yield from answer.get(key, ())
            for told, asked in _TOKENS:
                if answer.get(told):
                    arguments[asked] = answer[told]
                    break
            else:
                return
        raise ClusterProblem(f"{service} {operation} gives more than {_PAGES} pages")

    def _renew(self) -> bool:
        """Make new clients, which read the credentials again, where that is possible."""
        renew = getattr(self.clients, "renew", None)
        if renew is None:
            return False
        renew()
        return True

    def _refuse_without_credentials(self, error: Exception) -> None:
        """Raise at once where nobody is logged in: trying again would change nothing."""
        name = type(error).__name__
        if "Credential" not in name and "Token" not in name:
            return
        if self.ahead_s is None:
            found = "no" if name == "NoCredentialsError" else "no usable"
            said = "" if name == "NoCredentialsError" else f" ({error})"
            raise UsageProblem(
                f"{found} AWS credentials were found{said}; log in (aws sso login), or set "
                "AWS_PROFILE"
            ) from None
        raise ClusterProblem(
            f"the AWS credentials are gone ({error}); log in again, then go on with the same run"
        ) from None

    def _compare_clocks(self, answer: dict[str, Any]) -> None:
        stamp = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        if stamp:
            ahead = parsedate_to_datetime(stamp) - self.clock.wall()
            self.ahead_s = ahead.total_seconds()


def _refusal(service: str, operation: str, error: Any) -> AwsRefused:
    told = error.response.get("Error", {})
    code, said = str(told.get("Code", "")), " ".join(str(told.get("Message", "")).split())
    if code in EXPIRED:
        said += "; the credentials have expired: log in again, then go on with the same run"
    return AwsRefused(service, operation, code, said)


class BotoClients:
    """Clients of boto3 with the user's own settings, made when they are asked for."""

    def __init__(self, region: str | None = None) -> None:
        import threading

        self._wanted = region
        # Making clients from one session is not safe between threads.
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}
        self._session = self._new_session()

    def _new_session(self) -> Any:
        import boto3
        from botocore.exceptions import BotoCoreError

        try:
            return boto3.Session(region_name=self._wanted)
        except BotoCoreError as error:
            raise UsageProblem(f"AWS settings cannot be used: {error}") from None

    @property
    def region(self) -> str | None:
        found: str | None = self._session.region_name
        return found

    @property
    def session(self) -> Any:
        return self._session

    def __call__(self, service: str) -> Any:
        from botocore.config import Config

        with self._lock:
            if service not in self._clients:
                # The list prices are served from two regions only.
                region = "us-east-1" if service == "pricing" else None
                config = Config(
                    retries={"mode": "standard", "max_attempts": 4},
                    connect_timeout=10,
                    read_timeout=60,
                )
                self._clients[service] = self._session.client(
                    service, region_name=region, config=config
                )
            return self._clients[service]

    def renew(self) -> None:
        """Read the credentials again."""
        with self._lock:
            self._clients.clear()
            self._session = self._new_session()


def boto_clients(region: str | None) -> BotoClients:
    """Return clients for ``region``, or for the region that AWS is configured to.

    :raises UsageProblem: boto3 is not installed.
    """
    try:
        found = BotoClients(region)
    except ImportError:
        raise UsageProblem("--cluster=eks needs boto3: pip install 'pytest-pgo-eks[eks]'") from None
    if found.region is not None:
        _refuse_unknown_region(found.session, found.region)
    return found


def _refuse_unknown_region(session: Any, region: str) -> None:
    """Refuse what is no region of EKS: its name would be looked up in vain for a minute."""
    known = [
        name
        for partition in session.get_available_partitions()
        for name in session.get_available_regions("eks", partition_name=partition)
    ]
    if region not in known:
        raise UsageProblem(
            f"--pgo-eks-region: boto3 knows no region {region!r} with EKS{nearest(region, known)}; "
            "a new region needs a newer boto3"
        )
