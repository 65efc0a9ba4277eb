"""What ``/opt/crunchy/bin/pgbackrest`` of PGO's image does, for its backup Jobs.

Started in the Job's pod: finds the one pod that ``SELECTOR`` selects, makes sure that its
pgBackRest configuration is the Job's own, and runs ``pgbackrest COMMAND COMMAND_OPTS`` there
through the API. Its exit status is the command's. Runs as a file, on the standard library and
``websocket``, which the Kubernetes client brings along.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_CONFIG = "/etc/pgbackrest/conf.d"
_REQUEST_S = 15
_TRIES = 5
# Only visible names: behind them each pod has directories named after the time of their writing.
_HASH = (
    'cd "$1" && find -L . -type f ! -path "./..*" -print0 | LC_ALL=C sort -z | '
    "xargs -0 --no-run-if-empty sha1sum | sha1sum"
)
_HASH_COMMAND = ("bash", "-ceuo", "pipefail", "--", _HASH, "hash", _CONFIG)


class Refused(Exception):
    """The backup cannot be run; the message is for the Job's log."""


class Api:
    """The API server, as the Job's service account."""

    def __init__(self, env: Mapping[str, str], account: Path = _ACCOUNT) -> None:
        host = env["KUBERNETES_SERVICE_HOST"]
        self.url = f"https://{host}:{env['KUBERNETES_SERVICE_PORT']}"
        self.ca = str(account / "ca.crt")
        self.token = (account / "token").read_text().strip()

    def get(self, path: str) -> Any:
        request = urllib.request.Request(  # noqa: S310 - always https
            self.url + path, headers={"Authorization": f"Bearer {self.token}"}
        )
        context = ssl.create_default_context(cafile=self.ca)
        try:
            with urllib.request.urlopen(  # noqa: S310
                request, timeout=_REQUEST_S, context=context
            ) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Refused(f"{path}: {error.code} {error.read().decode()}") from error

    def run(self, namespace: str, pod: str, container: str, argv: Sequence[str]) -> Ran:
        """Run a command in a container, passing its output on while it comes."""
        from websocket import WebSocketBadStatusException, create_connection

        query = [("command", word) for word in argv]
        query += [("container", container), ("stdout", "true"), ("stderr", "true")]
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/exec"
        try:
            socket = create_connection(
                self.url.replace("https", "wss", 1) + f"{path}?{urllib.parse.urlencode(query)}",
                header=[f"Authorization: Bearer {self.token}"],
                subprotocols=["v4.channel.k8s.io"],
                sslopt={"ca_certs": self.ca},
                timeout=_REQUEST_S,
            )
        except WebSocketBadStatusException as error:
            raise Refused(f"{path}: {error}") from error
        # A backup may be silent for as long as it takes.
        socket.settimeout(None)
        ran = Ran()
        try:
            while ran.status is None:
                message = socket.recv()
                if not message:
                    raise Refused(f"{pod}: the stream ended before the command did")
                ran.take(message if isinstance(message, bytes) else message.encode())
        finally:
            socket.close()
        return ran


class Ran:
    """A command's output so far, and in the end its exit status."""

    def __init__(self) -> None:
        self.stdout = b""
        self.stderr = b""
        self.status: int | None = None

    def take(self, message: bytes) -> None:
        channel, data = message[:1], message[1:]
        if channel == b"\x01":
            self.stdout += data
        elif channel == b"\x02":
            self.stderr += data
        elif channel == b"\x03":
            self.status = exit_status(json.loads(data))


def exit_status(status: Mapping[str, Any]) -> int:
    """Return the exit status that a ``metav1.Status`` of an exec tells; 1 for one without."""
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or []:
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    return 1


def only_pod(found: Mapping[str, Any], selector: str) -> str:
    """Return the name of the one selected pod.

    :raises Refused: there are none or several.
    """
    names = [item["metadata"]["name"] for item in found.get("items") or []]
    if len(names) != 1:
        raise Refused(f"found {len(names)} pods by {selector}, not one: {', '.join(names)}")
    return str(names[0])


def backup(env: Mapping[str, str], api: Api) -> int:
    """Do the Job's work; return its exit status."""
    namespace, container = env["NAMESPACE"], env["CONTAINER"]
    selector = env["SELECTOR"]
    query = urllib.parse.urlencode({"labelSelector": selector})
    pod = only_pod(api.get(f"/api/v1/namespaces/{namespace}/pods?{query}"), selector)
    if env.get("COMPARE_HASH", "").lower() in {"1", "t", "true"}:
        _wait_for_same_configuration(api, namespace, pod, container)
    argv = ("bash", "-ceu", "--", f"pgbackrest {env['COMMAND']} {env.get('COMMAND_OPTS', '')}")
    print(f"running: {argv[-1]} in {pod}/{container}", flush=True)
    ran = api.run(namespace, pod, container, argv)
    sys.stdout.write(ran.stdout.decode("utf-8", "replace"))
    sys.stderr.write(ran.stderr.decode("utf-8", "replace"))
    return ran.status or 0


def _wait_for_same_configuration(api: Api, namespace: str, pod: str, container: str) -> None:
    # A change of the configuration reaches one pod a moment before the other.
    for left in reversed(range(_TRIES)):
        here = subprocess.run(_HASH_COMMAND, capture_output=True, check=True).stdout
        ran = api.run(namespace, pod, container, _HASH_COMMAND)
        if ran.status == 0 and ran.stdout == here:
            return
        if left:
            time.sleep(1)
    there = ran.stdout.decode().strip() or ran.stderr.decode().strip()
    raise Refused(f"the configuration here ({here.decode().strip()}) is not that of {pod}: {there}")


def main() -> int:
    try:
        return backup(os.environ, Api(os.environ))
    except KeyError as missing:
        print(f"the environment has no {missing}", file=sys.stderr)
    except (Refused, OSError) as problem:
        print(problem, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
