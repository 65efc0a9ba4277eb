"""A client that refrains: no write into a namespace that is only looked at."""

from __future__ import annotations

import pytest

from pytest_pgo_eks.errors import NotPermitted
from pytest_pgo_eks.kube.restraint import labelled, permit

SHOP = "/api/v1/namespaces/shop/pods/hippo-0"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "path",
    [
        SHOP,
        f"{SHOP}/eviction",
        f"{SHOP}?force=true",
        "/apis/apps/v1/namespaces/shop/deployments",
        "/api/v1/namespaces/shop",
    ],
)
def test_writing_there_is_refused_and_says_what_lets_it(method: str, path: str) -> None:
    with pytest.raises(
        NotPermitted, match=r"namespace shop is only looked.*--pgo-allow-disruption"
    ):
        permit(method, path, {"shop"})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", SHOP),
        ("GET", f"{SHOP}/exec?command=psql"),
        ("POST", "/api/v1/namespaces/shopping/pods"),
        ("POST", "/api/v1/namespaces"),
        ("PATCH", "/api/v1/nodes/shop"),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
    ],
)
def test_looking_and_writing_elsewhere_is_not(method: str, path: str) -> None:
    permit(method, path, {"shop"})
    permit("DELETE", SHOP, ())


def test_labels_go_on_the_object_and_its_own_stay() -> None:
    pod = {"kind": "Pod", "metadata": {"name": "a", "labels": {"app": "a"}}, "spec": {}}
    made = labelled(pod, {"run": "r"})
    assert made["metadata"] == {"name": "a", "labels": {"app": "a", "run": "r"}}
    assert pod["metadata"] == {"name": "a", "labels": {"app": "a"}}
    assert labelled(pod, {}) == pod
