"""Names, labels, annotations, owners and finalizers: what is allowed in metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_pgo_eks.local.apiserver.problems import FieldError, required, wrong
from pytest_pgo_eks.local.apiserver.resources import Resource
from pytest_pgo_eks.local.objects import Obj

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_LABEL = re.compile(rf"^{_LABEL}$")
_DNS_NAME = re.compile(rf"^{_LABEL}(\.{_LABEL})*$")
_DNS_1035 = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_NAME = re.compile(f"^{_QUALIFIED}$")
_VALUE = re.compile(f"^({_QUALIFIED})?$")

_SAY_NAME = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    f"for validation is '{_LABEL}(\\.{_LABEL})*')"
)
SAY_LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    f"for validation is '{_LABEL}')"
)
_SAY_1035 = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', "
    "regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_SAY_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  "
    "or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_SAY_KEY = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
    "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


def _length(field: str, limit: int) -> FieldError:
    return FieldError("Too long", field, f"may not be more than {limit} bytes")


def errors(resource: Resource, found: Obj) -> Iterator[FieldError]:
    """Check name, labels, annotations, owners and finalizers of a metadata."""
    yield from _name(resource, found.get("name", ""))
    yield from _labels(found.get("labels") or {})
    yield from _annotations(found.get("annotations") or {})
    yield from _owners(found.get("ownerReferences") or [])
    yield from _finalizers(resource, found.get("finalizers") or [])


def _labels(labels: Obj) -> Iterator[FieldError]:
    for name, value in labels.items():
        prefix, slash, last = name.rpartition("/")
        if not _NAME.match(last) or len(last) > 63:
            yield wrong("metadata.labels", name, _SAY_KEY)
        elif slash and not _DNS_NAME.match(prefix):
            yield wrong("metadata.labels", name, f"prefix part {_SAY_NAME}")
        if len(value) > 63:
            yield wrong("metadata.labels", value, "must be no more than 63 bytes")
        elif not _VALUE.match(value):
            yield wrong("metadata.labels", value, _SAY_VALUE)


def _annotations(annotations: Obj) -> Iterator[FieldError]:
    for name in annotations:
        if not _NAME.match(name.rpartition("/")[2]):
            yield wrong("metadata.annotations", name, _SAY_KEY)
    if sum(len(key) + len(value) for key, value in annotations.items()) > 256 * 1024:
        yield _length("metadata.annotations", 262144)


def _owners(owners: list[Obj]) -> Iterator[FieldError]:
    for owner in owners:
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                # Without an index, as a real server says it.
                path = f"metadata.ownerReferences.{field}"
                word = "version" if field == "apiVersion" else ""
                yield wrong(path, "", f"{word} must not be empty".strip())
    controllers = [one for one in owners if one.get("controller")]
    if len(controllers) > 1:
        yield wrong(
            "metadata.ownerReferences",
            owners,
            'Only one reference can have Controller set to true. Found "true" in references for '
            f"{controllers[0]['kind']} {controllers[0]['name']} and "
            f"{controllers[1]['kind']} {controllers[1]['name']}",
        )


def _finalizers(resource: Resource, finalizers: list[str]) -> Iterator[FieldError]:
    for at, finalizer in enumerate(finalizers):
        plain = finalizer in {"foregroundDeletion", "orphan", "kubernetes"}
        if not plain and "/" not in finalizer and resource.group == "":
            path = f"metadata.finalizers[{at}]"
            yield wrong(
                path,
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            )


def _name(resource: Resource, name: str) -> Iterator[FieldError]:
    field = "metadata.name"
    if not name:
        yield required(field, "name or generateName is required")
    elif resource.group == "rbac.authorization.k8s.io":
        if "/" in name or "%" in name or name in {".", ".."}:
            yield wrong(field, name, "may not contain '/'")
    elif resource.storage == ("", "namespaces"):
        if not DNS_LABEL.match(name):
            yield wrong(field, name, SAY_LABEL)
        if len(name) > 63:
            yield wrong(field, name, "must be no more than 63 bytes")
    elif resource.storage == ("", "services"):
        if not _DNS_1035.match(name):
            yield wrong(field, name, _SAY_1035)
        if len(name) > 63:
            yield wrong(field, name, "must be no more than 63 bytes")
    elif not _DNS_NAME.match(name):
        yield wrong(field, name, _SAY_NAME)
    elif len(name) > 253:
        yield wrong(field, name, "must be no more than 253 bytes")
