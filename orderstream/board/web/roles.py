"""Roles: who may do what, and how much of a person they see.

Law: one table, read by pages and API alike; a right that is not in it nobody has. A person may have several roles. Reason: what
a role means is a question an auditor asks, and the answer has to be one place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

Right = Literal[
    "see",  # wall, orders, cases
    "decide",  # decide at all; which role may decide what is `decide.MAY`
    "bulk",  # a whole case at once
    "verify",  # second identity verification
    "map",  # name the article behind a code
    "approve",  # the release of what is frozen, never one's own asking
    "unmask",  # see a customer's data in full, which is written down
    "trust",  # whitelist, snoozes, what feedback suggests
    "rejected",  # what is no order
    "replay",  # put it back after the fix
    "tell",  # say what came of orders: returned, complained of, …
    "settle",  # that what stood behind the release is dealt with
    "figures",
    "audit",
    "deputies",  # who stands in for an approver
    "people",  # accounts, roles, tokens of others
]
RIGHTS: tuple[Right, ...] = get_args(Right)
Role = Literal["reviewer", "desk", "supervisor", "approver", "analyst", "admin", "system"]

ROLES: dict[Role, frozenset[Right]] = {
    "reviewer": frozenset({"see", "decide", "bulk", "verify", "map", "unmask", "rejected", "settle"}),
    "desk": frozenset({"see", "decide", "verify", "unmask", "tell", "settle"}),
    "supervisor": frozenset(
        {
            "see",
            "decide",
            "bulk",
            "verify",
            "map",
            "unmask",
            "trust",
            "rejected",
            "replay",
            "tell",
            "settle",
            "figures",
            "audit",
            "deputies",
        }
    ),
    "approver": frozenset({"see", "decide", "bulk", "verify", "approve", "unmask", "figures", "audit", "deputies"}),
    "analyst": frozenset({"see", "rejected", "figures"}),
    "admin": frozenset({"people", "audit", "deputies", "rejected", "replay", "figures"}),
    # another system with a token: an ERP
    "system": frozenset({"tell"}),
}

Sight = Literal["part", "none"]
"""How much of a customer a page shows by itself: enough to tell two apart and to call back, or province and city alone."""
_PART: frozenset[Role] = frozenset({"reviewer", "desk", "supervisor", "approver"})


def rights(roles: Iterable[str]) -> frozenset[Right]:
    """All that these roles together may; a role that is none gives nothing."""
    return frozenset().union(*(ROLES[role] for role in ROLES if role in set(roles)))


def sight(roles: Iterable[str]) -> Sight:
    """How much of a customer these roles see without asking."""
    return "part" if _PART.intersection(roles) else "none"
