"""What pods do on the stand-in's nodes."""

from __future__ import annotations

import time
from typing import Any

from kubelet_bed import Bed


async def quick_start(bed: Bed) -> Any:
    await bed.pod("warm")
    await bed.running("warm")
    began = time.monotonic()
    await bed.pod("quick")
    await bed.running("quick")
    took = time.monotonic() - began
    return {
        "took": took,
        "id": await bed.shell(
            "quick",
            "id; ps -ef; hostname; cat /etc/hosts /etc/resolv.conf; env; mount | wc -l; ls /",
        ),
    }
