"""Acting as somebody else: the ``Impersonate-…`` headers (``kubectl --as``)."""

from __future__ import annotations

from aiohttp import web

from pytest_pgo_eks.local.apiserver.authentication import Identity
from pytest_pgo_eks.local.apiserver.authorization import Attributes, Authorizer

_ACCOUNT = "system:serviceaccount:"


def effective(request: web.BaseRequest, who: Identity, authorizer: Authorizer) -> Identity:
    """Return who the request is to be judged as.

    :raises Problem: 403 when the sender may not act as that user or group.
    """
    name = request.headers.get("Impersonate-User")
    if not name:
        return who
    groups = list(request.headers.getall("Impersonate-Group", []))
    if name.startswith(_ACCOUNT) and name.count(":") == 3:
        namespace, account = name[len(_ACCOUNT) :].split(":")
        what = Attributes("impersonate", "", "serviceaccounts", "", namespace, account)
        groups = groups or ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
    else:
        what = Attributes("impersonate", "", "users", name=name)
    authorizer.require(who, what)
    for group in request.headers.getall("Impersonate-Group", []):
        authorizer.require(who, Attributes("impersonate", "", "groups", name=group))
    everybody = "system:unauthenticated" if name == "system:anonymous" else "system:authenticated"
    return Identity(name, tuple(dict.fromkeys((*groups, everybody))))
