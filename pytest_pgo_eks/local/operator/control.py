"""Commands the operator runs in the database container of an instance."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pytest_pgo_eks.local.apiclient import ApiClient, Executed
from pytest_pgo_eks.local.objects import Obj
from pytest_pgo_eks.local.operator import names, scripts
from pytest_pgo_eks.local.operator.observe import Instance

# patronictl waits for a member to restart or to take over; a minute is beyond all budgets.
_PATIENCE_S = 90.0
PSQL = ("psql", "-Xw", "--file=-", "--set=ON_ERROR_STOP=on", "--set=QUIET=on")


class CommandFailed(Exception):
    """A command in a pod failed. ``what`` says which; the message carries its standard error."""

    def __init__(self, what: str, done: Executed) -> None:
        text = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        super().__init__(f"{what}: command terminated with exit code {done.exit_status}: {text}")
        self.exit_status = done.exit_status
        self.text = text


class Control:
    """Runs commands in one cluster's pods."""

    def __init__(self, client: ApiClient, namespace: str, scope: str) -> None:
        self._client = client
        self._namespace = namespace
        self._scope = scope

    async def run(
        self, instance: Instance, command: Sequence[str], stdin: bytes | None = None
    ) -> Executed:
        return await self._client.exec(
            self._namespace,
            instance.pod_name,
            command,
            container=names.DATABASE,
            stdin=stdin,
            timeout_s=_PATIENCE_S,
        )

    async def check(
        self, what: str, instance: Instance, command: Sequence[str], stdin: bytes | None = None
    ) -> str:
        """Run a command that must succeed and return its output.

        :raises CommandFailed: it ended with another status than 0.
        """
        done = await self.run(instance, command, stdin)
        if done.exit_status:
            raise CommandFailed(what, done)
        return done.stdout.decode("utf-8", "replace")

    async def replace_configuration(self, instance: Instance, wanted: Obj) -> None:
        """Give Patroni its whole dynamic configuration."""
        command = ["patronictl", "edit-config", "--replace=-", "--force"]
        await self.check("patronictl edit-config", instance, command, json.dumps(wanted).encode())

    async def timeline(self, instance: Instance) -> int:
        """Return the leader's timeline; 0 while there is no running leader."""
        text = await self.check(
            "patronictl list", instance, ["patronictl", "list", "--format", "json"]
        )
        for member in json.loads(text):
            if member.get("Role") == "Leader" and member.get("State") == "running":
                return int(member.get("TL") or 0)
        return 0

    async def switchover(self, instance: Instance, candidate: str, primary: str = "") -> bool:
        """Ask Patroni to hand over, now; an empty candidate leaves the choice to Patroni."""
        command = ["patronictl", "switchover", "--scheduled=now", "--force"]
        if primary:
            command.append(f"--primary={primary}")
        done = await self.run(instance, [*command, f"--candidate={candidate}"])
        return b"switched over" in done.stdout

    async def failover(self, instance: Instance, candidate: str) -> bool:
        command = ["patronictl", "failover", "--force", f"--candidate={candidate}"]
        done = await self.run(instance, command)
        return b"failed over" in done.stdout

    async def restart_pending(self, instance: Instance, role: str) -> None:
        """Restart PostgreSQL in place where a parameter waits for it; ``role`` primary or replica."""
        command = ["patronictl", "restart", "--pending", "--force", f"--role={role}", self._scope]
        await self.check("patronictl restart", instance, command)

    async def sql(self, instance: Instance, text: str) -> str:
        return await self.check("psql", instance, PSQL, text.encode())

    async def sql_in(self, instance: Instance, database: str, text: str) -> str:
        return await self.check("psql", instance, [*PSQL, f"--dbname={database}"], text.encode())

    async def sql_everywhere(
        self, instance: Instance, databases: str, text: str, *variables: str
    ) -> str:
        """Run SQL in every database that the query ``databases`` lists."""
        options = ["--set=ON_ERROR_STOP=on", "--set=QUIET=on"]
        options += [f"--set={variable}" for variable in variables]
        command = scripts.command(scripts.EVERY_DATABASE, "-", databases, *options)
        return await self.check("psql", instance, command, text.encode())
