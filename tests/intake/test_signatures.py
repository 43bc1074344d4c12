"""Who may say something, over HTTP: each way of not being the shop is 401, and being it twice is being it once."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from live import SECRET, Live, serving, signed

from orderstream.catalogue import Catalogue
from orderstream.channels.api import MAX_SKEW_MS
from orderstream.channels.shopify import sign as sign_shopify
from orderstream.identity import Keys
from orderstream.pipeline import Pipeline
from orderstream.rules.book import PackBook
from orderstream.rules.pack import load
from orderstream.settings import data_file

BODY = json.dumps({
    "order_id": "A1", "created_at": "2026-11-11T00:00:01+08:00", "currency": "CNY", "lines": [{"code": "c", "quantity": 1, "price": "9.00"}],
}).encode()  # fmt: skip
SKEW = MAX_SKEW_MS // 1000
OTHERS = BODY.replace(b"A1", b"A2")


def shopify(secret: str, body: bytes = BODY) -> dict[str, str]:
    return sign_shopify(body, secret, topic="orders/create", domain="x.example", delivery="d")


async def send(live: Live, headers: dict[str, str], path: str = "api/main", body: bytes = BODY) -> int:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.post(f"http://127.0.0.1:{live.port}/hooks/{path}", content=body, headers=headers)).status_code


def changed(headers: dict[str, str], **more: str) -> dict[str, str]:
    return {**headers, **{name.replace("_", "-"): value for name, value in more.items()}}


def strangers() -> list[tuple[str, dict[str, str], str]]:
    return [
        ("no signature", {}, "api/main"),
        ("an empty one", {"X-Orderstream-Timestamp": "", "X-Orderstream-Signature": ""}, "api/main"),
        ("no time", {"X-Orderstream-Signature": signed(BODY)["X-Orderstream-Signature"]}, "api/main"),
        ("a wrong secret", signed(BODY, "s-2"), "api/main"),
        ("the secret of another shop", signed(BODY, "o-1"), "api/main"),
        ("a delivery to one shop sent to another", signed(BODY), "api/other"),
        ("another body's", signed(OTHERS), "api/main"),
        ("another time than was signed", changed(signed(BODY), X_Orderstream_Timestamp=str(int(time.time()) + 1)), "api/main"),
        ("a time that is none", changed(signed(BODY), X_Orderstream_Timestamp="1e9"), "api/main"),
        ("a signature cut short", changed(signed(BODY), X_Orderstream_Signature="sha256=00"), "api/main"),
        ("replayed after the window", signed(BODY, at=-SKEW - 5), "api/main"),
        ("signed ahead of the window", signed(BODY, at=SKEW + 5), "api/main"),
        ("another channel's signature", shopify(SECRET), "api/main"),
        ("no signature", {}, "shopify/main"),
        ("a wrong secret", shopify("s-1"), "shopify/main"),
        ("another body's", shopify("hush", OTHERS), "shopify/main"),
        ("no base64", {"X-Shopify-Hmac-Sha256": "%%%"}, "shopify/main"),
        ("half a digest", {"X-Shopify-Hmac-Sha256": "AAAA"}, "shopify/main"),
        ("api's signature", signed(BODY, "hush"), "shopify/main"),
    ]


async def test_who_is_not_the_shop_is_turned_away() -> None:
    """Wrong, missing, another's, too old: 401, the same word for each, and nothing is kept."""
    async with serving() as live:
        for why, headers, path in strangers():
            assert await send(live, headers, path) == 401, (why, path)
        assert live.sink.kept == []


@pytest.mark.parametrize("at", [0, -SKEW + 5, SKEW - 5])
async def test_a_replay_inside_the_window_is_one_verdict(at: int) -> None:
    """The same delivery sent again is taken again, and the line behind makes one verdict of it."""
    headers = signed(BODY, at=at)
    async with serving() as live:
        assert [await send(live, headers) for _ in range(5)] == [200] * 5
    assert len(live.sink.kept) == 5
    line = Pipeline(Catalogue([]), PackBook([load(data_file("rules/standard"))]), Keys(b"k"), "Asia/Shanghai")
    public = [said for raw in live.sink.kept for said in line.feed(raw)]
    assert len([said for said in public if said.topic == "orders.verdicts"]) == 1
    assert [verdict.order_id for verdict in line.verdicts()] == ["api:main:A1"]


async def test_while_a_secret_is_changed_both_are_good_and_then_one(tmp_path: Path) -> None:
    """Add the new one, change the sender, take the old one away: without a restart, and without one delivery lost."""
    file = tmp_path / "secrets.json"

    def write(*secrets: str) -> None:
        new = file.with_suffix(".new")
        new.write_text(json.dumps({"api:shop": list(secrets), "shopify:shop": list(secrets)}))
        new.replace(file)

    write("old-secret")
    more: dict[str, Any] = {"secrets_file": file}
    async with serving(**more) as live:

        async def tried() -> list[int]:
            found = []
            for secret in ("old-secret", "new-secret-2"):
                found.append(await send(live, signed(BODY, secret), "api/shop"))
                found.append(await send(live, shopify(secret), "shopify/shop"))
            return found

        assert await tried() == [200, 200, 401, 401]
        write("new-secret-2", "old-secret")
        assert await tried() == [200] * 4
        write("new-secret-2")
        assert await tried() == [401, 401, 200, 200]
