"""Passwords, verifiers and certificates."""

from __future__ import annotations

import datetime as dt
import ssl
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_pgo_eks.local.operator import names, passwords, tls
from pytest_pgo_eks.local.operator.certificates import (
    KeyPair,
    leaf_is_usable,
    make_leaf,
    make_root,
    root_is_usable,
)

from .hippos import cluster

NOW = dt.datetime(2026, 5, 17, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def test_verifier_of_the_example_in_rfc_7677() -> None:
    # The RFC's exchange has user "user", password "pencil", this salt and 4096 iterations.
    import base64

    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    assert passwords.verifier("pencil", salt) == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
        "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_passwords_are_of_their_class() -> None:
    assert len(passwords.generate(24)) == 24
    assert passwords.generate(200, "AlphaNumeric").isalnum()
    assert set("'\"\\`$&%!#~ ") & set(passwords.generate(5000)) == set()
    assert passwords.generate(24) != passwords.generate(24)


@settings(max_examples=30, deadline=None)
@given(st.text(min_size=1, max_size=12))
def test_a_verifier_fits_its_password_and_no_other(password: str) -> None:
    stored = passwords.verifier(password)
    assert passwords.matches(password, stored)
    assert not passwords.matches(password + "x", stored)


def test_equal_after_preparation_is_equal() -> None:
    assert passwords.matches("I\u00adX", passwords.verifier("IX"))
    assert passwords.matches("\u2168", passwords.verifier("IX"))


@pytest.fixture(scope="module")
def root() -> KeyPair:
    return make_root(NOW)


def test_a_leaf_verifies_against_its_root(root: KeyPair, tmp_path: Path) -> None:
    sans = cluster().dns_names("hippo-primary")
    leaf = make_leaf(root, sans, NOW)
    (tmp_path / "ca").write_text(root.certificate)
    (tmp_path / "leaf").write_text(leaf.certificate)
    at = str(int(NOW.timestamp()))
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-attime", at, "-CAfile", "ca", "leaf"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "key").write_text(leaf.key)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "leaf", tmp_path / "key")


def test_a_leaf_is_kept_until_two_thirds_of_its_life(root: KeyPair) -> None:
    leaf = make_leaf(root, ["a", "b"], NOW)
    assert leaf_is_usable(leaf, root, ["a", "b"], NOW)
    assert leaf_is_usable(leaf, root, ["a", "b"], NOW + 243 * DAY)
    assert not leaf_is_usable(leaf, root, ["a", "b"], NOW + 244 * DAY)


def test_a_leaf_with_other_names_signer_or_key_is_not_kept(root: KeyPair) -> None:
    leaf, other = make_leaf(root, ["a"], NOW), make_root(NOW)
    assert not leaf_is_usable(leaf, root, ["b"], NOW)
    assert not leaf_is_usable(leaf, other, ["a"], NOW)
    assert not leaf_is_usable(KeyPair(leaf.certificate, other.key), root, ["a"], NOW)
    assert not leaf_is_usable(KeyPair("", ""), root, ["a"], NOW)


def test_a_root_is_kept_while_it_is_sound(root: KeyPair) -> None:
    assert root_is_usable(root, NOW)
    assert not root_is_usable(root, NOW + 3651 * DAY)
    assert not root_is_usable(KeyPair(root.certificate, make_root(NOW).key), NOW)


def test_a_name_too_long_for_a_common_name_is_still_a_name(root: KeyPair) -> None:
    name = "hippo-instance-with-a-long-name-abcd-0.hippo-pods.some-namespace.svc.cluster.local."
    assert leaf_is_usable(make_leaf(root, [name], NOW), root, [name], NOW)


def test_no_key_shows_in_a_repr(root: KeyPair) -> None:
    assert "PRIVATE" not in repr(root)


def test_the_shared_root_is_owned_by_every_cluster_of_the_namespace() -> None:
    one, two = cluster(), cluster()
    two.obj["metadata"] |= {"name": "rhino", "uid": "b"}
    two.uid = "b"
    authority = make_root(tls.now())
    _, first = tls.root_secret(one, authority, None)
    _, both = tls.root_secret(two, authority, first)
    assert [o["name"] for o in both["metadata"]["ownerReferences"]] == ["hippo", "rhino"]
    assert tls.root_secret(two, authority, both)[1] == both
    assert tls.root_of(both) == authority


def test_hashes_and_suffixes() -> None:
    assert names.short_hash("") == "65bb57b6b5"
    assert names.startup_instance("hippo", "pg-1") == "hippo-pg-1-694f"
    assert len(names.random_suffix()) == 4
    assert set("aeiouy013") & set(names.random_suffix() * 5) == set()
