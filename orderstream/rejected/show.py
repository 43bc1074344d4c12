"""What the rejected commands print."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from orderstream import times
from orderstream.errors import BadFile
from orderstream.orders import Rejected, Skip
from orderstream.rejected import Plan, Reject, Wanted, masked, read
from orderstream.settings import Settings

COUNTS = ["代码 code", "渠道 channel", "店铺 shop", "条数 rejects", "最早 first", "最近 last"]
ROWS = ["编号 id", "订单 order", "接收 received", "代码 code", "位置 field", "现在 now"]


class Overview(msgspec.Struct):
    """counts: (code, channel, shop) -> (how many, first and last received_at, ms); latest: the rejects received last."""

    counts: dict[tuple[str, str, str], tuple[int, int, int]]
    latest: list[Reject]


def overview(settings: Settings, brokers: str, wanted: Wanted, limit: int) -> Overview:
    """Counts of the rejects that are meant, and the `limit` latest. Raises NoBroker, TopicsUnfit."""
    found = Overview({}, [])
    for reject in read(settings, brokers, wanted):
        r = reject.record
        key = (r.code, r.channel, r.shop)
        count, first, last = found.counts.get(key, (0, r.received_at, r.received_at))
        found.counts[key] = (count + 1, min(first, r.received_at), max(last, r.received_at))
        found.latest.append(reject)
        if len(found.latest) > 2 * limit + 100:
            _cut(found.latest, limit)
    _cut(found.latest, limit)
    return found


def _cut(latest: list[Reject], limit: int) -> None:
    latest.sort(key=lambda reject: (-reject.record.received_at, reject.id))
    del latest[limit:]


def count_rows(found: Overview) -> list[tuple[str, ...]]:
    """Most frequent first."""
    ordered = sorted(found.counts.items(), key=lambda item: (-item[1][0], item[0]))
    return [
        (code, channel, shop or "—", str(count), times.text(first), times.text(last))
        for (code, channel, shop), (count, first, last) in ordered
    ]


def rows(found: Overview) -> list[tuple[str, ...]]:
    return [
        (
            reject.id,
            _named(reject),
            times.text(reject.record.received_at),
            reject.record.code,
            masked.sentence(reject.record.field or "—"),
            _now(reject),
        )
        for reject in found.latest
    ]


def as_json(found: Overview) -> str:
    """The same for programs; no bodies, nothing personal."""
    said: dict[str, Any] = {
        "counts": [
            {"code": code, "channel": channel, "shop": shop, "count": count, "first": first, "last": last}
            for (code, channel, shop), (count, first, last) in found.counts.items()
        ],
        "latest": [
            {
                "id": reject.id,
                "order_id": reject.record.order_id,
                "channel": reject.record.channel,
                "shop": reject.record.shop,
                "received_at": reject.record.received_at,
                "code": reject.record.code,
                "field": reject.record.field and masked.sentence(reject.record.field),
                "reason": masked.sentence(reject.record.reason),
                "bytes": len(reject.record.body),
            }
            for reject in found.latest
        ],
    }
    return msgspec.json.encode(said).decode()


def in_full(settings: Settings, brokers: str, wanted: Wanted, *, raw: bool, out: Path | None) -> str:
    """The last reject that is meant, whole. out: where its bytes go, for their reader alone. Raises BadFile, NoBroker."""
    reject = None
    for reject in read(settings, brokers, wanted):  # noqa: B007  the last one
        pass
    if reject is None:
        raise BadFile("没有这样的拒收记录，见 orderstream rejected list · there is no such reject: orderstream rejected list")
    r = reject.record
    reason = r.reason if raw else masked.sentence(r.reason)
    lines = [
        f"编号 id          {reject.id}",
        f"订单 order       {_named(reject)}",
        f"渠道 channel     {r.channel} {r.shop}",
        f"接收 received    {times.text(r.received_at)}",
        f"验签 verified    {r.verified}",
        f"规则包 pack      {r.pack or '—'}",
        f"代码 code        {r.code}",
        f"位置 field       {masked.sentence(r.field or '—')}",
        f"原因 reason      {masked.printable(reason)}",
        f"现在 now         {_now(reject)}",
        *(f"头 header        {name}: {masked.printable(value)}" for name, value in sorted(r.headers.items())),
        f"字节 bytes       {len(r.body)}" + ("" if raw else "（个人信息已遮盖，--raw 显示 · masked, --raw shows all）"),
        "",
        masked.body(r.body, whole=raw),
    ]
    if out is not None:
        try:
            with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(r.body)
        except OSError as error:
            raise BadFile(f"写不了 {out} · can't write {out}: {error.strerror}") from error
    return "\n".join(lines)


def _named(reject: Reject) -> str:
    name = reject.record.order_id
    return name[:16] + "…" if name.startswith("raw:") else masked.printable(name)


def _now(reject: Reject) -> str:
    """What a replay would do with it."""
    parsed = reject.now()
    if parsed is None:
        return "读不了 unreadable"
    if isinstance(parsed, Rejected):
        return f"仍拒收 rejected: {parsed.code}"
    return "不是订单 no order" if isinstance(parsed, Skip) else "可重放 readable"


_SAID = {
    "sent": ("条按原接收时间放回", "with their own time of receipt"),
    "late": ("条作为迟到订单放回，窗口规则无法判断", "as late orders, which window rules cannot judge"),
    "still": ("条现在仍会被拒收，未放回", "would be rejected again: left where they are"),
    "skip": ("条现在知道不是订单，未放回", "are known to be no orders now: left where they are"),
    "unreadable": (
        "条没有完整的信封或没有解析，无法放回",
        "have no whole envelope, or nothing reads their channel: cannot be put back",
    ),
}


def plan(planned: Plan, *, dry: bool) -> list[str]:
    """What a replay did, or would do."""
    out = [f"{planned.counts[what]} {zh} · {en}" for what, (zh, en) in _SAID.items() if planned.counts[what]]
    out = out or ["没有这样的拒收记录 · there are no such rejects"]
    return ["（演练，什么也没有放回 · dry run, nothing was put back）", *out] if dry else out


def outcome(became: Counter[str] | None) -> list[str]:
    """Verdicts of what was replayed."""
    if became is None:
        return [
            "工作进程还没有处理完，稍后看 orders.verdicts · the workers are not through with them yet: see orders.verdicts later"
        ]
    return [f"{count} {'没有判定 without a verdict' if what == 'none' else what}" for what, count in became.most_common()]
