"""Several byte streams over one WebSocket, as Kubernetes numbers them.

``v4.channel.k8s.io``: binary messages whose first byte is the channel. ``v5`` adds channel 255,
which closes the one it names. ``base64`` variants are text: a digit, then base64.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator

from aiohttp import WSMsgType, web

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
PROTOCOLS = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)


class Channels:
    """The channels of one accepted WebSocket."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._protocol = socket.ws_protocol or "channel.k8s.io"

    async def send(self, channel: int, data: bytes) -> bool:
        """Send; say whether the peer is still there."""
        if self._socket.closed:
            return False
        try:
            if "base64" in self._protocol:
                await self._socket.send_str(str(channel) + base64.b64encode(data).decode())
            else:
                await self._socket.send_bytes(bytes((channel,)) + data)
        except (ConnectionError, RuntimeError):
            return False
        return True

    async def status(self, exit_code: int, problem: str = "") -> None:
        """Say on the error channel how it ended; older protocols say only what is wrong."""
        if self._protocol.startswith(("v4", "v5")):
            await self.send(ERROR, json.dumps(status(exit_code, problem)).encode())
        elif exit_code or problem:
            said = problem or f"command terminated with exit code {exit_code}"
            await self.send(ERROR, said.encode())

    async def received(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield (channel, data) until the peer closes; (255, channel) is a v5 close."""
        async for message in self._socket:
            data = message.data
            if message.type is WSMsgType.TEXT:
                if "base64" in self._protocol:
                    try:
                        yield int(data[:1]), base64.b64decode(data[1:])
                    except ValueError:
                        return
                    continue
                # The Python client sends a str as text, with the same first byte.
                data = data.encode()
            if data:
                yield data[0], data[1:]


def status(exit_code: int, problem: str = "") -> dict[str, object]:
    """Return the ``metav1.Status`` that ends an exec or attach."""
    if problem:
        return {
            "metadata": {},
            "status": "Failure",
            "reason": "InternalError",
            "message": problem,
            "code": 500,
        }
    if not exit_code:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {exit_code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(exit_code)}]},
    }
