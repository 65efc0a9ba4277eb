"""Write on one session and read at once on another, again and again: what an acknowledgement shows.

Both sessions stay open, so that the read follows the acknowledgement by less than a millisecond: a
new session in between takes ten, and in ten milliseconds a replica has caught up anyway.
"""

from __future__ import annotations

import asyncio
from typing import Any

from . import oneshot
from .connect import ConnectFailed, open_session
from .wire import Session


async def answers(wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """Run each of ``pairs`` (write, read); the read only if the write was acknowledged plainly.

    Returns ``{"wrote", "read"}`` for each, as :func:`oneshot.ask_once` answers; ``read`` may be None.
    """
    deadline_s = float(wanted.get("deadline_s", 10.0))
    writer, reader = End(wanted["writer"], deadline_s), End(wanted["reader"], deadline_s)
    told = []
    try:
        await reader.ask("SELECT 1")
        for write, read in wanted["pairs"]:
            wrote = await writer.ask(write)
            plainly = wrote["stage"] == "done" and not wrote["notices"]
            told.append({"wrote": wrote, "read": await reader.ask(read) if plainly else None})
    finally:
        writer.close()
        reader.close()
    return told


class End:
    """A session that is opened again when it is lost."""

    def __init__(self, spec: dict[str, Any], deadline_s: float) -> None:
        self._spec = spec
        self._deadline_s = deadline_s
        self._session: Session | None = None

    async def ask(self, sql: str) -> dict[str, Any]:
        out = oneshot.empty()
        try:
            async with asyncio.timeout(self._deadline_s):
                if self._session is None or not self._session.alive:
                    self._session = await open_session(oneshot.target(self._spec))
                await oneshot.statement(self._session, sql, out)
        except TimeoutError:
            out["code"], out["message"] = "deadline", f"no answer within {self._deadline_s} s"
            self.close()
        except ConnectFailed as failed:
            out["code"], out["message"] = failed.code, str(failed)
        return out

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = None
