"""What every server says of itself: settings, access rules, users, where a replica streams from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime

from pytest_pgo_eks.errors import Inconclusive, Violation
from pytest_pgo_eks.kube.wait import eventually
from pytest_pgo_eks.pgo import Observation, PostgresCluster
from pytest_pgo_eks.postgres import ServerView
from pytest_pgo_eks.postgres.sql import literal
from pytest_pgo_eks.scenario.targets import User


def on_every_server(postgres: PostgresCluster, ask: Callable[[ServerView], str]) -> dict[str, str]:
    """Return what ``ask`` returns for every instance, by pod.

    :raises Inconclusive: there is no instance.
    """
    pods = [one.pod for one in postgres.observe().instances]
    if not pods:
        raise Inconclusive(f"PostgresCluster {postgres.name} has no instance")
    return {pod: ask(postgres.server(pod)) for pod in pods}


def demand_setting(postgres: PostgresCluster, name: str, comparison: str, value: str) -> None:
    """Demand of every server that a setting is as told: exactly, at least, or one of.

    “At least” compares sizes as bytes and everything else as numbers.
    """
    seen = on_every_server(postgres, lambda server: server.setting(name))
    wrong = {
        pod: shown
        for pod, shown in seen.items()
        if not _satisfies(postgres.server(pod), shown, comparison, value)
    }
    if wrong:
        raise Violation(f"{name} has to be {comparison} {value} everywhere, but is {_told(wrong)}")


def setting_arrives(postgres: PostgresCluster, name: str, value: str, within_s: float) -> None:
    """Wait until every server shows ``value`` for a setting."""
    eventually(
        lambda: on_every_server(postgres, lambda server: server.setting(name)),
        accept=lambda seen: set(seen.values()) == {value},
        within_s=within_s,
        what=f"{name} = {value} on every server",
        show=_told,
    )


def starts(seen: Observation) -> dict[str, datetime]:
    """Return when each server was started, by pod."""
    return {pod: server.started for pod, server in seen.servers.items()}


def demand_no_restart(before: Observation, after: Observation) -> None:
    """Demand that every server still is the process it was."""
    restarted = [pod for pod, at in starts(before).items() if starts(after).get(pod) != at]
    if restarted:
        raise Violation(f"restarted although nothing asked for it: {', '.join(restarted)}")


def demand_restart_in_place(before: Observation, after: Observation) -> None:
    """Demand that every server was started again, in the same pod and the same container."""
    same = [pod for pod, at in starts(before).items() if starts(after).get(pod) == at]
    if same:
        raise Violation(f"not restarted although the setting needs it: {', '.join(same)}")
    for old in before.instances:
        new = after.instance(old.pod)
        if new is None or new.uid != old.uid:
            raise Violation(f"pod {old.pod} was replaced; a restart in place was promised")
        if new.restarts.get("database") != old.restarts.get("database"):
            raise Violation(f"the container of {old.pod} was restarted, not PostgreSQL in place")


def demand_none_pending(postgres: PostgresCluster) -> None:
    """Demand that no server waits for a restart."""
    waiting = on_every_server(postgres, lambda server: ", ".join(server.pending_restart()))
    if any(waiting.values()):
        raise Violation(f"settings wait for a restart: {_told(waiting)}")


def demand_standby_configuration(postgres: PostgresCluster) -> None:
    """Demand of every replica a standby signal and a connection that verifies its primary."""
    seen = postgres.observe(sql=True)
    replicas = [pod for pod, server in seen.servers.items() if server.in_recovery]
    if not replicas:
        raise Violation(f"no server is in recovery:\n  {seen}")
    for pod in replicas:
        server = postgres.server(pod)
        signal = server.value("SELECT (pg_stat_file('standby.signal', true)).size IS NOT NULL")
        if not signal:
            raise Violation(f"{pod} is in recovery without a standby.signal")
        told = server.setting("primary_conninfo")
        for part in ("user=_crunchyrepl", "sslmode=verify-ca", "host="):
            if part not in told:
                raise Violation(f"primary_conninfo of {pod} has no {part}: {told}")


def demand_access_rules(postgres: PostgresCluster, declared: list[str]) -> None:
    """Demand that every server loaded the declared rules, in their order, among its own."""
    for pod in (one.pod for one in postgres.observe().instances):
        rules = [_plain(str(rule)) for rule in postgres.server(pod).hba_rules()]
        at = 0
        for line in declared:
            wanted = _plain(line)
            try:
                at = rules.index(wanted, at) + 1
            except ValueError:
                raise Violation(
                    f"{pod} has no rule “{wanted}” behind its rule {at}; it has:\n  "
                    + "\n  ".join(rules)
                ) from None


def demand_rules_loaded(postgres: PostgresCluster) -> None:
    """Demand that no line of any server's access rules failed to load."""
    for pod in (one.pod for one in postgres.observe().instances):
        rules = postgres.server(pod).hba_rules()
        if not rules:
            raise Violation(f"{pod} has no access rule at all")
        failed = [f"line {rule.number}: {rule.error}" for rule in rules if rule.error]
        if failed:
            raise Violation(f"access rules of {pod} failed to load: {'; '.join(failed)}")


def demand_users(postgres: PostgresCluster, users: tuple[User, ...]) -> None:
    """Demand that every declared user exists and may log in."""
    roles = _primary(postgres).roles()
    wrong = [u.name for u in users if u.name not in roles or not roles[u.name].can_login]
    if wrong:
        raise Violation(f"declared users that cannot log in or do not exist: {', '.join(wrong)}")


def demand_databases(postgres: PostgresCluster, users: tuple[User, ...]) -> None:
    """Demand that every declared database exists and its user may connect to it."""
    server = _primary(postgres)
    there = server.databases()
    for user in users:
        for database in user.databases:
            if database not in there:
                raise Violation(f"database {database} of user {user.name} does not exist")
            allowed = server.value(
                f"SELECT has_database_privilege({literal(user.name)}, {literal(database)}, 'CONNECT')"
            )
            if not allowed:
                raise Violation(f"user {user.name} may not connect to database {database}")


def demand_options(postgres: PostgresCluster, users: tuple[User, ...]) -> None:
    """Demand that the options declared for each user are in force, and no greater power is."""
    roles = _primary(postgres).roles()
    for user in users:
        role = roles.get(user.name)
        if role is None:
            raise Violation(f"user {user.name} does not exist")
        declared = set(user.options.upper().split())
        for option, has in (
            ("REPLICATION", role.can_replicate),
            ("CREATEDB", role.can_create_databases),
            ("CREATEROLE", role.can_create_roles),
            ("SUPERUSER", role.is_superuser),
        ):
            if user.name != "postgres" and (option in declared) != has:
                raise Violation(
                    f"user {user.name} {'has' if has else 'lacks'} {option}; "
                    f"declared options: {user.options or 'none'}"
                )


def _primary(postgres: PostgresCluster) -> ServerView:
    seen = postgres.observe(sql=True)
    if len(seen.writable) != 1:
        raise Inconclusive(f"{len(seen.writable)} servers are not in recovery:\n  {seen}")
    return postgres.server(seen.writable[0])


def _satisfies(server: ServerView, shown: str, comparison: str, value: str) -> bool:
    if comparison == "exactly":
        return shown == value
    if comparison == "one of":
        return shown in [part.strip() for part in value.split(",")]
    if re.fullmatch(r"\d+[kMGT]?B", value):
        sizes = f"SELECT pg_size_bytes({literal(shown)}) >= pg_size_bytes({literal(value)})"
        return bool(server.value(sizes))
    return float(shown) >= float(value)


def _plain(rule: str) -> str:
    """Return an access rule as PostgreSQL understands it: no quotes, single spaces, netmask form."""
    words = rule.replace('"', "").split()
    return " ".join(_masked(words))


def _masked(words: list[str]) -> list[str]:
    import ipaddress

    found = []
    for word in words:
        if "/" in word and word[0].isdigit():
            network = ipaddress.ip_network(word, strict=False)
            found += [str(network.network_address), str(network.netmask)]
        else:
            found.append(word)
    return found


def _told(by_pod: Mapping[str, str]) -> str:
    return ", ".join(f"{value or 'nothing'} on {pod}" for pod, value in by_pod.items())
