"""One server's state in typed form: who it is, where it stands, whom it feeds, how it is set.

Column meanings are those of PostgreSQL 15 to 18's documentation of the views named here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pytest_pgo_eks.errors import ExecProblem
from pytest_pgo_eks.postgres.sql import Psql, Row, Shell, literal, lsn_bytes

# The control file's timeline is that of the last checkpoint and trails a promotion; the name of
# the segment being written, and the walreceiver, know the current one.
_STATE = """
SELECT pg_is_in_recovery() AS in_recovery,
  CASE WHEN pg_is_in_recovery() THEN
    coalesce((SELECT received_tli FROM pg_stat_wal_receiver),
             nullif((SELECT min_recovery_end_timeline FROM pg_control_recovery()), 0),
             (SELECT timeline_id FROM pg_control_checkpoint()))
  ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END AS timeline,
  (SELECT timeline_id FROM pg_control_checkpoint()) AS checkpoint_timeline,
  (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
  current_setting('server_version') AS version,
  current_setting('server_version_num')::int AS version_number,
  pg_postmaster_start_time() AS started,
  CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_lsn() END AS current_lsn,
  CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn() END AS flush_lsn,
  pg_last_wal_receive_lsn() AS received_lsn,
  pg_last_wal_replay_lsn() AS replayed_lsn,
  extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 AS replay_age_s,
  CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END AS replay_paused,
  current_setting('synchronous_standby_names') AS synchronous_standby_names,
  current_setting('synchronous_commit') AS synchronous_commit,
  current_setting('transaction_read_only')::bool
    OR current_setting('default_transaction_read_only')::bool AS read_only,
  (SELECT count(*) FROM pg_settings WHERE pending_restart)::int AS settings_pending_restart,
  (SELECT json_agg(r) FROM (SELECT application_name, client_addr::text AS client_address, state,
      sync_state, sent_lsn::text, write_lsn::text, flush_lsn::text, replay_lsn::text,
      extract(epoch FROM write_lag)::float8 AS write_lag_s,
      extract(epoch FROM flush_lag)::float8 AS flush_lag_s,
      extract(epoch FROM replay_lag)::float8 AS replay_lag_s
    FROM pg_stat_replication ORDER BY application_name) r) AS senders,
  (SELECT row_to_json(w) FROM (SELECT status, received_tli AS timeline,
      written_lsn::text, flushed_lsn::text, latest_end_lsn::text, sender_host, conninfo
    FROM pg_stat_wal_receiver) w) AS receiver
"""


@dataclass(frozen=True)
class Sender:
    """One row of ``pg_stat_replication``; LSNs are byte positions, lags seconds.

    A lag is None where nothing was measured lately, which on an idle server means none.
    """

    application_name: str
    client_address: str | None
    state: str
    sync_state: str
    sent_lsn: int | None
    write_lsn: int | None
    flush_lsn: int | None
    replay_lsn: int | None
    write_lag_s: float | None
    flush_lag_s: float | None
    replay_lag_s: float | None

    @property
    def is_streaming(self) -> bool:
        return self.state == "streaming"

    @property
    def is_synchronous(self) -> bool:
        return self.sync_state in ("sync", "quorum")

    @property
    def lag_bytes(self) -> int | None:
        """How far replay is behind what was sent."""
        if self.sent_lsn is None or self.replay_lsn is None:
            return None
        return self.sent_lsn - self.replay_lsn


@dataclass(frozen=True)
class Receiver:
    """The row of ``pg_stat_wal_receiver``; LSNs are byte positions."""

    status: str
    timeline: int | None
    written_lsn: int | None
    flushed_lsn: int | None
    latest_end_lsn: int | None
    sender_host: str | None
    conninfo: str

    @property
    def is_streaming(self) -> bool:
        return self.status == "streaming"


@dataclass(frozen=True)
class ServerState:
    """What one server said of itself in one statement. LSNs are byte positions.

    ``system_identifier`` is text: it does not fit into a JSON number. ``started`` changes with
    every start of the postmaster. ``synchronous_standby_names`` is "" without any.
    """

    pod: str
    in_recovery: bool
    timeline: int
    checkpoint_timeline: int
    system_identifier: str
    version: str
    version_number: int
    started: datetime
    current_lsn: int | None
    flush_lsn: int | None
    received_lsn: int | None
    replayed_lsn: int | None
    replay_age_s: float | None
    replay_paused: bool
    synchronous_standby_names: str
    synchronous_commit: str
    read_only: bool
    settings_pending_restart: int
    senders: tuple[Sender, ...]
    receiver: Receiver | None

    @property
    def role(self) -> str:
        """``primary`` or ``replica``, as ``pg_is_in_recovery()`` says."""
        return "replica" if self.in_recovery else "primary"

    @property
    def is_streaming(self) -> bool:
        """Whether this is a replica that receives from another server now."""
        return self.in_recovery and self.receiver is not None and self.receiver.is_streaming

    @property
    def lsn(self) -> int | None:
        """Where this server stands: what it wrote as primary, what it replayed as replica."""
        return self.replayed_lsn if self.in_recovery else self.current_lsn

    def behind(self, primary: ServerState) -> int | None:
        """Return how many bytes this replica's replay trails ``primary``; 0 at the least."""
        if self.replayed_lsn is None or primary.current_lsn is None:
            return None
        return max(primary.current_lsn - self.replayed_lsn, 0)


@dataclass(frozen=True)
class Setting:
    """One row of ``pg_settings``. ``value`` is in ``unit``; ``shown`` is as ``SHOW`` prints it."""

    name: str
    value: str
    unit: str | None
    shown: str
    source: str
    context: str
    pending_restart: bool

    @property
    def needs_restart(self) -> bool:
        """Whether PostgreSQL takes a change of it only at a start."""
        return self.context == "postmaster"


@dataclass(frozen=True)
class HbaRule:
    """One row of ``pg_hba_file_rules``, in the order in which the server tries them."""

    number: int
    type: str
    databases: tuple[str, ...]
    users: tuple[str, ...]
    address: str | None
    netmask: str | None
    method: str
    options: tuple[str, ...]
    error: str | None

    def __str__(self) -> str:
        address = self.address or ""
        if self.netmask:
            address = f"{address} {self.netmask}"
        parts = [self.type, ",".join(self.databases), ",".join(self.users), address, self.method]
        return " ".join(filter(None, [*parts, *self.options]))


@dataclass(frozen=True)
class Role:
    """One row of ``pg_roles``."""

    name: str
    can_login: bool
    is_superuser: bool
    can_replicate: bool
    can_create_databases: bool
    can_create_roles: bool
    connection_limit: int


class ServerView(Psql):
    """One server through SQL. Every method is one session in the instance's own pod.

    All raise :class:`~pytest_pgo_eks.postgres.sql.SqlProblem` while the server takes no sessions,
    and :class:`~pytest_pgo_eks.errors.ExecProblem` when the pod cannot be reached.
    """

    def __init__(self, shell: Shell, namespace: str, pod: str) -> None:
        super().__init__(shell, namespace, pod)

    def state(self, *, deadline_s: float = 10.0) -> ServerState:
        """Return everything that tells primary from replica and how replication goes."""
        row = self.one(_STATE, deadline_s=deadline_s)
        try:
            return _state(self.pod, row)
        except (KeyError, TypeError, ValueError) as error:
            raise ExecProblem(f"{self.pod}: its state cannot be read: {error!r}") from error

    def is_in_recovery(self) -> bool:
        """Return ``pg_is_in_recovery()``."""
        return bool(self.value("SELECT pg_is_in_recovery()"))

    def settings(self, *names: str) -> dict[str, Setting]:
        """Return the named settings, or all; a name that the server does not know is missing."""
        where = f"WHERE name IN ({', '.join(map(literal, names))})" if names else ""
        columns = "name, setting AS value, unit, current_setting(name) AS shown, source, context"
        rows = self.query(
            f"SELECT {columns}, pending_restart FROM pg_settings {where} ORDER BY name"  # noqa: S608
        )
        return {row["name"]: Setting(**row) for row in rows}

    def setting_bytes(self, name: str) -> int:
        """Return a size setting (``wal_keep_size``) in bytes."""
        return int(self.value(f"SELECT pg_size_bytes(current_setting({literal(name)}))"))

    def pending_restart(self) -> list[str]:
        """Return the names of settings that wait for a restart."""
        rows = self.query("SELECT name FROM pg_settings WHERE pending_restart ORDER BY name")
        return [row["name"] for row in rows]

    def hba_rules(self) -> list[HbaRule]:
        """Return the access rules in order, with the error of each line that failed to load."""
        rows = self.query(
            "SELECT line_number AS number, type, database AS databases, user_name AS users, "
            "address, netmask, auth_method AS method, options, error "
            "FROM pg_hba_file_rules ORDER BY line_number"
        )
        return [_hba(row) for row in rows]

    def roles(self) -> dict[str, Role]:
        """Return all roles but PostgreSQL's predefined ones."""
        rows = self.query(
            "SELECT rolname AS name, rolcanlogin AS can_login, rolsuper AS is_superuser, "
            "rolreplication AS can_replicate, rolcreatedb AS can_create_databases, "
            "rolcreaterole AS can_create_roles, rolconnlimit AS connection_limit "
            r"FROM pg_roles WHERE rolname NOT LIKE 'pg\_%' ORDER BY rolname"
        )
        return {row["name"]: Role(**row) for row in rows}

    def databases(self) -> dict[str, str]:
        """Return the databases that are no templates, with their owners."""
        rows = self.query(
            "SELECT datname AS name, pg_get_userbyid(datdba) AS owner FROM pg_database "
            "WHERE NOT datistemplate ORDER BY datname"
        )
        return {row["name"]: row["owner"] for row in rows}

    def control_data(self) -> Row:
        """Return the control file's checkpoint, recovery, init and system columns in one row.

        64-bit identifiers are text.
        """
        return self.one(
            "SELECT c.*, r.*, i.*, s.system_identifier::text AS system_identifier, "
            "s.pg_control_version, s.catalog_version_no, s.pg_control_last_modified "
            "FROM pg_control_checkpoint() c, pg_control_recovery() r, pg_control_init() i, "
            "pg_control_system() s"
        )

    def archiver(self) -> Row:
        """Return the row of ``pg_stat_archiver``."""
        return self.one("SELECT * FROM pg_stat_archiver")


def _state(pod: str, row: Row) -> ServerState:
    positions = ("current_lsn", "flush_lsn", "received_lsn", "replayed_lsn")
    receiver = row.pop("receiver")
    senders = row.pop("senders") or []
    return ServerState(
        pod=pod,
        **{
            **row,
            **{name: lsn_bytes(row[name]) for name in positions},
            "started": datetime.fromisoformat(row["started"]),
            "replay_paused": bool(row["replay_paused"]),
        },
        senders=tuple(_sender(one) for one in senders),
        receiver=_receiver(receiver) if receiver else None,
    )


def _sender(row: Row) -> Sender:
    positions = ("sent_lsn", "write_lsn", "flush_lsn", "replay_lsn")
    return Sender(**{**row, **{name: lsn_bytes(row[name]) for name in positions}})


def _receiver(row: Row) -> Receiver:
    positions = ("written_lsn", "flushed_lsn", "latest_end_lsn")
    return Receiver(**{**row, **{name: lsn_bytes(row[name]) for name in positions}})


def _hba(row: dict[str, Any]) -> HbaRule:
    return HbaRule(
        **{
            **row,
            "type": row["type"] or "",
            "method": row["method"] or "",
            "databases": tuple(row["databases"] or ()),
            "users": tuple(row["users"] or ()),
            "options": tuple(row["options"] or ()),
        }
    )
