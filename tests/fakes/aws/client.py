"""Real boto3 clients whose calls never leave the process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import boto3
from botocore.validate import ParamValidator

from fakes.aws import cloudformation, ec2, eks, iam, services
from fakes.aws.answers import Params, Refused
from fakes.aws.world import REGION, World

Handler = Callable[[World, Params], dict[str, Any]]
Watcher = Callable[[str, str], None]

HANDLERS: dict[str, dict[str, Handler]] = {
    "cloudformation": cloudformation.HANDLERS,
    "ec2": ec2.HANDLERS,
    "eks": eks.HANDLERS,
    "iam": iam.HANDLERS,
    **services.HANDLERS,
}


class _Http:
    def __init__(self, status: int) -> None:
        self.status_code = status


class FakeAws:
    """A world and clients for it; exchange ``world`` and the same clients live in another one.

    ``before`` and ``after`` are told service and operation of every call and may raise to kill the
    client there. ``fail`` makes coming calls of an operation fail.
    """

    def __init__(self, world: World | None = None, *, check: bool = True) -> None:
        self.world = world or World()
        self.calls: list[tuple[str, str]] = []
        self.before: Watcher = lambda _service, _operation: None
        self.after: Watcher = lambda _service, _operation: None
        self._check = check
        self._failures: dict[tuple[str, str], list[Refused]] = {}
        self._clients: dict[str, Any] = {}
        self._validator = ParamValidator()
        self.session = boto3.Session(
            aws_access_key_id="AKIDEXAMPLE",
            aws_secret_access_key="secret-for-tests",
            region_name=REGION,
        )

    def clients(self, service: str) -> Any:
        """Return the boto3 client of a service; there is one of each."""
        if service not in self._clients:
            client = self.session.client(service)
            events = client.meta.events
            events.register("before-parameter-build", self._remember)
            events.register("before-call", self._answer)
            self._clients[service] = client
        return self._clients[service]

    def fresh(self) -> FakeAws:
        """Begin a new world with the same clients, whose making takes a second of CPU."""
        self.world = World()
        self.calls = []
        self.before = self.after = lambda _service, _operation: None
        self._failures = {}
        return self

    def fail(
        self, service: str, operation: str, code: str, message: str = "no", *, times: int = 1
    ) -> None:
        """Make the next calls of ``operation`` (``CreateStack``; ``*`` for any) fail."""
        refusals = self._failures.setdefault((service, operation), [])
        refusals += [Refused(code, message) for _ in range(times)]

    def _remember(self, params: Any, context: dict[str, Any], **_: Any) -> None:
        context["fake_params"] = params

    def _answer(self, model: Any, context: dict[str, Any], **_: Any) -> tuple[_Http, Any]:
        service = _SPELLED.get(model.service_model.service_name, model.service_model.service_name)
        operation = model.name
        self.before(service, operation)
        self.calls.append((service, operation))
        try:
            answer = self._ask(service, operation, context["fake_params"])
        except Refused as refused:
            self.after(service, operation)
            error = {"Code": refused.code, "Message": refused.message, "Type": "Sender"}
            return _Http(refused.status), {
                "Error": error,
                "ResponseMetadata": self._metadata(refused.status),
            }
        self.after(service, operation)
        if self._check and model.output_shape is not None:
            report = self._validator.validate(answer, model.output_shape)
            assert not report.has_errors(), f"{service} {operation}: {report.generate_report()}"
        return _Http(200), {**answer, "ResponseMetadata": self._metadata(200)}

    def _metadata(self, status: int) -> dict[str, Any]:
        clock = self.world.clock
        stamp = clock.moment().timestamp() + clock.skew_s
        from email.utils import formatdate

        return {"HTTPStatusCode": status, "HTTPHeaders": {"date": formatdate(stamp, usegmt=True)}}

    def _ask(self, service: str, operation: str, params: Params) -> dict[str, Any]:
        for key in ((service, operation), (service, "*"), ("*", "*")):
            if waiting := self._failures.get(key):
                raise waiting.pop(0)
        cloudformation.pass_time(self.world)
        handler = HANDLERS.get(service, {}).get(operation)
        if handler is None:
            raise AssertionError(f"the fake does not know {service} {operation}")
        return handler(self.world, params)


#: botocore's names of services where they are not the client's.
_SPELLED = {"tagging": "resourcegroupstaggingapi"}
