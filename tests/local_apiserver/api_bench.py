"""What the tests of the API server share: a server per test, objects to put there, refusals."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from standin.server import ca_file, running_api_server

from local_apiserver.real_api import RealApi
from pytest_pgo_eks.local.apiclient import ApiClient, ApiError, Event
from pytest_pgo_eks.local.apiserver import ApiServer
from pytest_pgo_eks.local.objects import CUSTOM_RESOURCE_DEFINITION, SERVICE_ACCOUNT, Kind, Obj

_TEST_S = 40.0


@dataclass
class Bench:
    """A running server and an administrator's client; namespace ``default`` can run pods.

    ``ours`` is None where the server is a real kube-apiserver.
    """

    ours: ApiServer | None
    admin: ApiClient
    ca: Path
    refusal: ApiError | None = None
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    @property
    def server(self) -> ApiServer:
        """Our own server, to look inside; a test that does so cannot ask a real one."""
        if self.ours is None:
            pytest.skip("looks inside our own API server")
        return self.ours

    def as_token(self, token: str | None) -> ApiClient:
        """Return a client with another token; it is closed with the bench."""
        client = ApiClient(self.admin.url, ca_file=self.ca, token=token)
        self._stack.push_async_callback(client.close)
        return client

    async def define(self, made: Obj) -> Obj:
        """Create a definition and wait until its objects are served; return it as it is then."""
        await self.admin.create(CUSTOM_RESOURCE_DEFINITION, made)
        name, group = made["metadata"]["name"], made["spec"]["group"]
        served = [one["name"] for one in made["spec"]["versions"] if one["served"]]
        async with asyncio.timeout(_TEST_S):
            while True:
                found = await self.admin.get(CUSTOM_RESOURCE_DEFINITION, name)
                conditions = (found.get("status") or {}).get("conditions") or []
                if any(one["type"] == "Established" for one in conditions) and all(
                    [await self._is_served(f"/apis/{group}/{one}") for one in served]
                ):
                    return found
                await asyncio.sleep(0.05)

    async def _is_served(self, path: str) -> bool:
        try:
            return bool((await self.admin.request("GET", path))["resources"])
        except ApiError:
            return False

    @contextlib.contextmanager
    def refused(self, code: int, reason: str, *parts: str) -> Iterator[None]:
        """Expect a Status with this code and reason, and all parts in its message."""
        with pytest.raises(ApiError) as caught:
            yield
        error = self.refusal = caught.value
        assert (error.code, error.reason) == (code, reason), error
        for part in parts:
            assert part in error.message, error.message


def on_ours(test: Callable[[Bench], Awaitable[None]], **options: Any) -> None:
    """Run an async test here and now, against a server of ours with these options."""

    async def run() -> None:
        async with running_api_server(**options) as (server, admin):
            await _ask(test, Bench(server, admin, ca_file(server)))

    asyncio.run(run())


async def _ask(test: Callable[[Bench], Awaitable[None]], bench: Bench) -> None:
    account = {"metadata": {"name": "default"}}
    await bench.admin.create(SERVICE_ACCOUNT, account, "default")
    async with bench._stack, asyncio.timeout(_TEST_S):
        await test(bench)


_OURS = pytest.mark.parametrize("where", ["ours"])
_BOTH = pytest.mark.parametrize(
    "where", ["ours", pytest.param("real", marks=pytest.mark.real_apiserver)]
)


def served(
    only_ours: str = "", **options: Any
) -> Callable[[Callable[[Bench], Awaitable[None]]], Callable[..., None]]:
    """Run an async test against a server of its own, and against a real kube-apiserver.

    ``only_ours`` says why a test is for ours alone; ``options`` go to ``ApiServer`` and make it so.
    """

    def made(test: Callable[[Bench], Awaitable[None]]) -> Callable[..., None]:
        async def real(api: RealApi) -> None:
            async with api.client() as admin:
                await _ask(test, Bench(None, admin, api.ca))

        def run(where: str, request: pytest.FixtureRequest) -> None:
            if where == "ours":
                on_ours(test, **options)
            else:
                asyncio.run(real(request.getfixturevalue("real_api")))

        run.__name__ = getattr(test, "__name__", "test")
        run.__doc__ = test.__doc__
        return (_OURS if only_ours or options else _BOTH)(run)

    return made


def pod(name: str = "web", **metadata: Any) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **metadata},
        "spec": {"containers": [{"name": "main", "image": "example/app:1"}]},
    }


def config_map(name: str = "settings", **data: str) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": data,
    }


def deployment(name: str = "web", replicas: int | None = 2) -> Obj:
    spec: Obj = {
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "main", "image": "example/app:1"}]},
        },
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def service(name: str = "web", **spec: Any) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"port": 80}], **spec},
    }


def definition(schema: Obj, **version: Any) -> Obj:
    """Return a definition of Widgets (widgets.example.com) with this spec schema."""
    root = {
        "type": "object",
        "properties": {
            "spec": schema,
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    one = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": root},
        **version,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [one],
        },
    }


WIDGET = Kind("example.com/v1", "Widget", "widgets")


def widget(called: str = "one", /, **spec: Any) -> Obj:
    return {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "metadata": {"name": called, "namespace": "default"},
        "spec": spec,
    }


async def until(done: Callable[[], bool], within_s: float = 5.0) -> None:
    """Wait for something inside the server that nobody announces."""
    async with asyncio.timeout(within_s):
        while not done():  # noqa: ASYNC110 - a bounded wait function
            await asyncio.sleep(0.01)


class Watched:
    """The events of one watch, as they come."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.ended = asyncio.Event()
        self.error: ApiError | None = None

    async def next(self) -> tuple[str, str]:
        """Return (type, name) of the next event that is no bookmark."""
        event = await self.full()
        return event.type, event.object["metadata"]["name"]

    async def full(self) -> Event:
        async with asyncio.timeout(5):
            return await self.events.get()


@contextlib.asynccontextmanager
async def watching(
    client: ApiClient, kind: Kind, namespace: str | None = "default", **options: Any
) -> AsyncIterator[Watched]:
    """Watch from now, or from ``resource_version``."""
    version = options.pop("resource_version", None)
    if version is None:
        version = (await client.list(kind, namespace)).resource_version
    watched = Watched()

    async def run() -> None:
        try:
            async for event in client.watch(kind, namespace, resource_version=version, **options):
                watched.events.put_nowait(event)
        except ApiError as error:
            watched.error = error
        finally:
            watched.ended.set()

    task = asyncio.create_task(run())
    try:
        yield watched
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
