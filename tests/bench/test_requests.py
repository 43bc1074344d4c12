"""What the overload's sender writes: every channel's delivery, signed as its platform signs, and known to the platform before it is sent."""

from __future__ import annotations

import time
from collections import Counter
from urllib.parse import parse_qsl, urlsplit

import httpx

from bench.overload import open_for_questions, presigned
from orderstream.channels import Push, registry
from orderstream.simulators import scenario
from orderstream.simulators.market import SILENT, Market
from orderstream.simulators.scenario import MARKETPLACES, SHOPS


def test_every_channel_s_request_is_proved():
    """As intake would read it off the wire; of those who tell nobody there is only what happens at their platform."""
    now = time.time_ns() // 1_000_000
    market, sent = Market(SHOPS), Counter[str]()
    shop = scenario.make(40, rate=100, start=now, marketplaces=MARKETPLACES)
    for delivery, request in zip(shop.deliveries, presigned(shop.deliveries, market), strict=True):
        request.happens()
        channel = registry()[delivery.channel]
        if delivery.channel in SILENT:
            assert request.whole == b""
            continue
        head, _, body = request.whole.partition(b"\r\n\r\n")
        target, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        address = urlsplit(target.split(" ")[1])
        assert address.path == f"/hooks/{delivery.channel}/{delivery.shop}"
        assert len(body) == int(headers["content-length"])
        secret = market.secrets[f"{delivery.channel}:{delivery.shop}"].encode()
        assert channel.verify(Push(body, headers, dict(parse_qsl(address.query))), [secret], now).bodies
        sent[delivery.channel] += 1
    assert sent.keys() == registry().keys() - SILENT


def test_the_platforms_answer_meanwhile():
    """From their thread, while ours does something else."""
    with open_for_questions(Market(SHOPS)) as url:
        assert httpx.get(f"{url}/shopify:global/admin/api/x/orders.json", trust_env=False).status_code == 401
