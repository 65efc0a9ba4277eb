"""What SQL can see of one server: the third witness, beside label and leader record."""

from __future__ import annotations

from pytest_pgo_eks.postgres.server import (
    HbaRule,
    Receiver,
    Role,
    Sender,
    ServerState,
    ServerView,
    Setting,
)
from pytest_pgo_eks.postgres.sql import Psql, Row, Shell, SqlProblem, lsn_bytes

__all__ = [
    "HbaRule",
    "Psql",
    "Receiver",
    "Role",
    "Row",
    "Sender",
    "ServerState",
    "ServerView",
    "Setting",
    "Shell",
    "SqlProblem",
    "lsn_bytes",
]
