"""The nftables text of a node: a fixed frame, and what changes in it, one transaction each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_pgo_eks.local.network.model import SERVICE_NETWORK

# Everything that changes is behind these chains, so that an update never touches the hooks and
# connections in flight keep their translation.
FRAME = f"""
table ip cluster {{
    chain services {{ }}
    chain hairpin {{ }}
    chain refused {{ }}
    chain policies {{ }}
    chain nat-in {{
        type nat hook prerouting priority dstnat
        jump services
    }}
    chain nat-local {{
        type nat hook output priority -100
        jump services
    }}
    chain nat-out {{
        type nat hook postrouting priority srcnat
        jump hairpin
    }}
    chain forward {{
        type filter hook forward priority filter
        ip daddr {SERVICE_NETWORK} jump refused
        ct state established,related accept
        jump policies
    }}
    chain local-in {{
        type filter hook input priority filter
        jump refused
    }}
    chain local-out {{
        type filter hook output priority filter
        ip daddr {SERVICE_NETWORK} jump refused
    }}
}}
table ip faults {{
    chain through {{
        type filter hook forward priority -20
    }}
    chain in {{
        type filter hook input priority -20
    }}
    chain out {{
        type filter hook output priority -20
    }}
}}
"""


def update(
    *,
    nat: Sequence[str],
    refused: Sequence[str],
    hairpin: Sequence[str],
    policies: Sequence[str],
    policy_chains: Mapping[str, Sequence[str]],
    old_chains: Sequence[str],
) -> str:
    """Return the transaction that replaces all Services and policies.

    ``old_chains`` are the policy chains that the last one made.
    """
    lines = [
        f"flush chain ip cluster {name}" for name in ("services", "hairpin", "refused", "policies")
    ]
    lines += [f"flush chain ip cluster {name}" for name in old_chains]
    lines += [f"delete chain ip cluster {name}" for name in old_chains if name not in policy_chains]
    lines += [f"add chain ip cluster {name}" for name in policy_chains if name not in old_chains]
    filled: dict[str, Sequence[str]] = {
        "services": nat,
        "hairpin": hairpin,
        "refused": refused,
        **policy_chains,
        "policies": policies,
    }
    for chain, rules in filled.items():
        lines += [f"add rule ip cluster {chain} {rule}" for rule in rules]
    return "\n".join(lines) + "\n"
