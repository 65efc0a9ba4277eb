"""The typed views, against a real primary and its real replica."""

from __future__ import annotations

from datetime import UTC, datetime

from pytest_pgo_eks.kube.wait import eventually
from pytest_pgo_eks.postgres import ServerState, ServerView

from .conftest import Server


def caught_up(primary: ServerView, replica: ServerView) -> tuple[ServerState, ServerState]:
    return eventually(
        lambda: (primary.state(), replica.state()),
        accept=lambda pair: (
            pair[1].behind(pair[0]) == 0
            and any(sender.replay_lsn == pair[0].current_lsn for sender in pair[0].senders)
        ),
        within_s=20,
        what="the replica to catch up",
        successes=1,
    )


def test_primary_and_replica_say_who_they_are(view: ServerView, replica_view: ServerView) -> None:
    view.run("CHECKPOINT")
    primary, replica = caught_up(view, replica_view)
    assert (primary.role, replica.role) == ("primary", "replica")
    assert (primary.in_recovery, replica.in_recovery) == (False, True)
    assert primary.timeline == replica.timeline == 1
    assert primary.system_identifier == replica.system_identifier
    assert primary.system_identifier.isdigit()
    assert primary.started < datetime.now(UTC)
    assert primary.version_number >= 150000
    assert primary.current_lsn is not None
    assert replica.current_lsn is None
    assert replica.replayed_lsn == replica.lsn == primary.lsn
    assert (primary.read_only, replica.read_only) == (False, True)
    assert not replica.replay_paused
    assert view.is_in_recovery() is False
    assert replica_view.is_in_recovery() is True


def test_replication_is_seen_from_both_ends(view: ServerView, replica_view: ServerView) -> None:
    primary, replica = caught_up(view, replica_view)
    (sender,) = primary.senders
    assert sender.application_name == "r-0"
    assert sender.is_streaming
    assert not sender.is_synchronous
    assert sender.lag_bytes == 0
    assert replica.is_streaming
    assert not primary.is_streaming
    assert replica.receiver is not None
    assert replica.receiver.timeline == 1
    assert replica.senders == ()
    assert primary.receiver is None


def test_a_synchronous_standby_shows_itself(view: ServerView, replica_view: ServerView) -> None:
    view.run("ALTER SYSTEM SET synchronous_standby_names = '\"r-0\"'; SELECT pg_reload_conf();")
    try:
        state = eventually(
            view.state,
            accept=lambda seen: any(sender.is_synchronous for sender in seen.senders),
            within_s=10,
            what="a synchronous standby",
            successes=1,
        )
        assert state.synchronous_standby_names == '"r-0"'
    finally:
        view.run("ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf();")


def test_a_paused_replica_falls_behind(view: ServerView, replica_view: ServerView) -> None:
    caught_up(view, replica_view)
    replica_view.run("SELECT pg_wal_replay_pause()")
    try:
        # It pauses at the next record: give it one, then look.
        view.run("CREATE TABLE lag (n int); INSERT INTO lag SELECT generate_series(1, 1000);")
        primary, replica = view.state(), replica_view.state()
        assert (replica.behind(primary) or 0) > 1000
        assert replica.replay_paused
    finally:
        replica_view.run("SELECT pg_wal_replay_resume()")
    view.run("DROP TABLE lag")
    caught_up(view, replica_view)


def test_settings_say_whether_they_wait_for_a_restart(view: ServerView) -> None:
    found = view.settings("wal_level", "max_connections", "work_mem", "no_such_setting")
    assert set(found) == {"wal_level", "max_connections", "work_mem"}
    assert found["wal_level"].shown == "logical"
    assert found["max_connections"].needs_restart
    assert not found["work_mem"].needs_restart
    assert found["work_mem"].unit == "kB"
    assert view.setting("wal_keep_size") == "64MB"
    assert view.setting_bytes("wal_keep_size") == 64 << 20
    assert len(view.settings()) > 200
    assert view.pending_restart() == []
    view.run("ALTER SYSTEM SET max_connections = 101; SELECT pg_reload_conf();")
    try:
        waiting = eventually(
            view.pending_restart, accept=bool, within_s=10, what="a pending restart", successes=1
        )
        assert waiting == ["max_connections"]
        assert view.state().settings_pending_restart == 1
    finally:
        view.run("ALTER SYSTEM RESET max_connections; SELECT pg_reload_conf();")


def test_access_rules_come_in_order_with_their_errors(view: ServerView, primary: Server) -> None:
    path = primary.data / "pg_hba.conf"
    original = path.read_text()
    path.write_text(
        'local all all trust\nhostssl all "app" 10.0.0.0 255.0.0.0 cert clientcert=verify-full\n'
        "host all all nonsense\n"
    )
    try:
        local, ssl, broken = view.hba_rules()
    finally:
        path.write_text(original)
    assert str(local) == "local all all trust"
    assert ssl.users == ("app",)
    assert ssl.method == "cert"
    assert "10.0.0.0 255.0.0.0" in str(ssl)
    assert broken.error
    assert local.error is None


def test_roles_and_databases_are_as_the_catalog_has_them(view: ServerView) -> None:
    view.run("CREATE ROLE repl LOGIN REPLICATION; CREATE DATABASE shop OWNER repl;")
    roles = view.roles()
    assert roles["repl"].can_replicate
    assert roles["repl"].can_login
    assert not roles["repl"].is_superuser
    assert roles["postgres"].is_superuser
    assert not [name for name in roles if name.startswith("pg_")]
    assert view.databases() == {"postgres": "postgres", "shop": "repl"}
    view.run("DROP DATABASE shop; DROP ROLE repl;")


def test_control_data_is_one_row(view: ServerView) -> None:
    data = view.control_data()
    assert data["timeline_id"] == 1
    assert data["system_identifier"] == view.state().system_identifier
    assert data["data_page_checksum_version"] == 1
    assert view.archiver()["failed_count"] == 0


def test_a_promotion_is_seen_at_once(folder_promotion: tuple[ServerView, Server]) -> None:
    view, server = folder_promotion
    before = view.state()
    assert (before.role, before.timeline) == ("replica", 1)
    server.run("pg_ctl", "-D", str(server.data), "-w", "promote")
    after = view.state()
    assert (after.role, after.timeline) == ("primary", 2)
    assert after.system_identifier == before.system_identifier
    assert after.started == before.started
