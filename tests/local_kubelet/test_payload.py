"""What volumes show, and that a change of it is seen whole or not at all."""

from __future__ import annotations

import base64
import threading
from pathlib import Path
from typing import Any

import pytest

from pytest_pgo_eks.local.kubelet import atomic
from pytest_pgo_eks.local.kubelet.payload import (
    Content,
    Needs,
    NotYet,
    references,
    render,
    token_sources,
)
from pytest_pgo_eks.local.kubelet.references import Place
from pytest_pgo_eks.local.kubelet.volumes import Attachments

POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"a": "b"}},
    "spec": {"containers": [{"name": "c"}]},
}


def needs(**objects: dict[str, bytes]) -> Needs:
    def secret(name: str) -> dict[str, Any] | None:
        data = objects.get(name)
        if data is None:
            return None
        return {
            "kind": "Secret",
            "data": {k: base64.b64encode(v).decode() for k, v in data.items()},
        }

    def config_map(name: str) -> dict[str, Any] | None:
        data = objects.get(name)
        return (
            None
            if data is None
            else {"kind": "ConfigMap", "data": {k: v.decode() for k, v in data.items()}}
        )

    place = Place("node-1", "10.0.0.1", "10.0.0.2", {})
    return Needs(secret, config_map, {("", 3607): "token"}, place)


def test_a_secret_in_pgos_way() -> None:
    items = [
        {"key": "patroni.crt-combined", "path": "~postgres-operator/patroni.crt+key", "mode": 384}
    ]
    volume = {
        "projected": {"defaultMode": 420, "sources": [{"secret": {"name": "s", "items": items}}]}
    }
    found = render(POD, volume, needs(s={"patroni.crt-combined": b"pem", "other": b"x"}))
    assert found == {"~postgres-operator/patroni.crt+key": Content(b"pem", 0o600)}


def test_later_sources_win_and_tokens_and_fields_are_files() -> None:
    sources = [
        {"configMap": {"name": "m"}},
        {"secret": {"name": "s"}},
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {
            "downwardAPI": {
                "items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]
            }
        },
    ]
    found = render(
        POD, {"projected": {"sources": sources}}, needs(m={"k": b"map"}, s={"k": b"secret"})
    )
    assert {name: content.data for name, content in found.items()} == {
        "k": b"secret",
        "token": b"token",
        "namespace": b"ns",
    }
    assert {content.mode for content in found.values()} == {0o644}


@pytest.mark.parametrize(
    ("volume", "said"),
    [
        ({"secret": {"secretName": "none"}}, 'secret "none" not found'),
        ({"configMap": {"name": "none"}}, 'configmap "none" not found'),
        (
            {"configMap": {"name": "m", "items": [{"key": "x", "path": "x"}]}},
            "non-existent configmap key: x",
        ),
        ({"configMap": {"name": "m", "items": [{"key": "k", "path": "../x"}]}}, "inside"),
        (
            {
                "projected": {
                    "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 9}}]
                }
            },
            "token",
        ),
    ],
)
def test_what_a_pod_waits_for(volume: dict[str, Any], said: str) -> None:
    with pytest.raises(NotYet, match=said):
        render(POD, volume, needs(m={"k": b"v"}))


def test_optional_sources_may_be_missing() -> None:
    volume = {"secret": {"secretName": "none", "optional": True}}
    assert render(POD, volume, needs()) == {}
    volume = {"configMap": {"name": "m", "optional": True, "items": [{"key": "x", "path": "x"}]}}
    assert render(POD, volume, needs(m={"k": b"v"})) == {}


def test_references_of_all_volumes() -> None:
    volumes = [
        {"name": "a", "secret": {"secretName": "s1"}},
        {"name": "b", "configMap": {"name": "m1"}},
        {
            "name": "c",
            "projected": {
                "sources": [
                    {"secret": {"name": "s2"}},
                    {"configMap": {"name": "m2"}},
                    {"serviceAccountToken": {"path": "t"}},
                ]
            },
        },
    ]
    pod = {**POD, "spec": {"volumes": volumes}}
    assert references(pod) == ({"s1", "s2"}, {"m1", "m2"})
    assert token_sources(pod) == [{"path": "t"}]


def test_files_appear_through_links_with_their_modes(tmp_path: Path) -> None:
    files = {"a": Content(b"1", 0o600), "inner/b": Content(b"2", 0o644)}
    assert atomic.write(tmp_path, files)
    assert (tmp_path / "a").readlink() == Path("..data/a")
    assert (tmp_path / "inner").readlink() == Path("..data/inner")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "inner/b").read_bytes() == b"2"
    assert not atomic.write(tmp_path, files)
    before = (tmp_path / "..data").readlink()
    assert atomic.write(tmp_path, {"a": Content(b"3", 0o600)})
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("..")) == ["a"]
    assert not (tmp_path / before).exists()


def test_no_reader_sees_half_of_a_change(tmp_path: Path) -> None:
    """A reader that follows one link sees a pair of files from one write."""
    atomic.write(tmp_path, {"a": Content(b"0", 0o644), "b": Content(b"0", 0o644)})
    broken: list[tuple[bytes, bytes]] = []
    seen = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                at = tmp_path / (tmp_path / "..data").readlink()
                pair = (at / "a").read_bytes(), (at / "b").read_bytes()
            except FileNotFoundError:  # it was replaced between the two
                continue
            seen.add(pair[0])
            if pair[0] != pair[1]:
                broken.append(pair)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(200):
        data = Content(str(i).encode(), 0o644)
        atomic.write(tmp_path, {"a": data, "b": data})
    stop.set()
    reader.join()
    assert not broken
    assert len(seen) > 1


def test_a_read_write_once_volume_changes_nodes_only_when_it_is_free() -> None:
    attachments = Attachments()
    attachments.attach("pv", "node-1", "u1", anywhere=False)
    attachments.attach("pv", "node-1", "u2", anywhere=False)
    with pytest.raises(NotYet, match="Multi-Attach"):
        attachments.attach("pv", "node-2", "u3", anywhere=False)
    attachments.release("u1")
    with pytest.raises(NotYet):
        attachments.attach("pv", "node-2", "u3", anywhere=False)
    attachments.release("u2")
    attachments.attach("pv", "node-2", "u3", anywhere=False)
    attachments.attach("pv", "node-1", "u4", anywhere=True)
