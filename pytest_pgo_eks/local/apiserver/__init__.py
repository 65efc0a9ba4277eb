"""The Kubernetes API of the stand-in, in memory, over HTTPS.

``ApiServer`` serves on sockets that are already listening. What it keeps is gone when it stops.
"""

from __future__ import annotations

from pytest_pgo_eks.local.apiserver.authentication import Identity
from pytest_pgo_eks.local.apiserver.server import ApiServer

__all__ = ["ApiServer", "Identity"]
