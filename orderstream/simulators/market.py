"""The marketplaces as a shop's programs meet them: every platform's API under one address, and how each tells of a change.

Law: a platform knows of a change before it tells of it, and never forgets a later one: a push that was delayed finds the order as it
is by then. Nothing here sends anything; who does asks `posting` what to send.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import orjson
from fastapi import FastAPI

from orderstream.channels import api, shopify
from orderstream.simulators import assortment, douyin, jd, taobao, wechat, wechatpay, youzan
from orderstream.simulators import shopify as shop
from orderstream.simulators.assortment import Article
from orderstream.simulators.drafts import Draft, Event
from orderstream.simulators.scenario import Delivery
from orderstream.simulators.trouble import Trouble

POLLED = frozenset({"jd"})
"""Channels that tell nobody: they are asked what has changed, by the platform's own clock."""
SILENT = POLLED | {"taobao"}
"""Channels that push nothing: these, and the one whose queue is pulled from."""

Happened = Callable[[Delivery, Draft, Event, bool], None]
"""A delivery, the order's newest state, and whether the platform's own word of it gets lost."""


class Posting(NamedTuple):
    """A webhook as it goes out. message: what it says, out of its list or its seal: what is kept of it."""

    message: bytes
    body: bytes
    headers: Mapping[str, str]
    query: Mapping[str, str] = {}


class Seat(NamedTuple):
    """One shop at its platform. secret: what its webhooks are signed with ("": there are none); account: what `ORDERSTREAM_PLATFORMS` says of it.

    happened: told of each delivery, with the order's newest state.
    """

    app: FastAPI
    secret: str
    account: dict[str, Any]
    happened: Happened


class Market:
    """The platforms of some shops (`channel:shop`).

    trouble: what their APIs suffer. poll_seconds: how often those are to be asked that tell nobody; the others a fifth as often.
    """

    def __init__(self, shops: Iterable[str], *, trouble: Trouble | None = None, poll_seconds: float = 2.0) -> None:
        self.app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        self.secrets: dict[str, str] = {}
        """What each shop's own webhooks are signed with, where there are any."""
        self._merchant = wechatpay.Merchant()
        self._seats: dict[str, Seat] = {}
        self._newest: dict[str, tuple[Draft, Event]] = {}
        self._poll = poll_seconds
        articles = assortment.by_sku()
        for name in shops:
            make = _SEATS.get(name.partition(":")[0])
            if make is None:
                self.secrets[name] = secrets.token_hex(24)
                continue
            seat = self._seats[name] = make(articles, trouble or Trouble())
            if seat.secret:
                self.secrets[name] = seat.secret
            self.app.mount(f"/{name}", seat.app)

    def doors(self) -> dict[str, list[str]]:
        """`ORDERSTREAM_SECRETS` for these shops: what each signs with, and WeChat Pay for those of channel `api`."""
        return {
            name: [secret, self._merchant.secret] if name.startswith("api:") else [secret]
            for name, secret in self.secrets.items()
        }

    def accounts(self, url: str) -> dict[str, Any]:
        """`ORDERSTREAM_PLATFORMS` for the shops that have one. url: where `app` is served."""

        def asked(name: str) -> float:
            return self._poll if name.partition(":")[0] in POLLED else 5 * self._poll

        return {
            name: {**seat.account, "rate": 500, "burst": 100, "poll_seconds": asked(name), "url": f"{url}/{name}"}
            for name, seat in self._seats.items()
        }

    def happened(self, delivery: Delivery, *, lost: bool = False) -> None:
        """What a delivery tells of is so now; nothing where its channel has no platform here. lost: no queue will tell of it."""
        seat = self._seats.get(f"{delivery.channel}:{delivery.shop}")
        if seat is None or delivery.told is None:
            return
        known = self._newest.get(delivery.order_id)
        if known is None or known[1].revision < delivery.told[1].revision:
            known = self._newest[delivery.order_id] = delivery.told
        seat.happened(delivery, *known, lost)

    def posting(self, delivery: Delivery) -> Posting | None:
        """The webhook of a delivery, sealed and signed now; None where its platform sends none."""
        if delivery.channel in SILENT:
            return None
        if delivery.notice:
            headers, sealed = self._merchant.notify(orjson.loads(delivery.body), int(time.time()))
            return Posting(delivery.body, sealed, headers)
        return posting(delivery, self.secrets[f"{delivery.channel}:{delivery.shop}"])


def posting(delivery: Delivery, secret: str) -> Posting:
    """The webhook of a delivery, signed now."""
    message = delivery.body
    match delivery.channel:
        case "shopify":
            headers = shopify.sign(
                delivery.body,
                secret,
                topic=delivery.topic or "orders/create",
                domain=f"{delivery.shop}.myshopify.com",
                # a retry of the platform's has the same id
                delivery=f"{delivery.order_id}:{delivery.revision}",
            )
        case "youzan":
            headers = youzan.sign(delivery.body, secret)
        case "douyin":
            # a push is a list, ours of one
            message, headers = delivery.body[1:-1], douyin.sign(delivery.body, secret)
        case "wechat":
            query, sealed = wechat.sign(delivery.body, secret, int(time.time()))
            return Posting(message, sealed, {"content-type": "application/json"}, query)
        case _:
            headers = api.sign(delivery.body, secret, int(time.time()))
    return Posting(message, delivery.body, headers)


def _youzan(articles: dict[str, Article], trouble: Trouble) -> Seat:
    key, secret, shop = secrets.token_hex(9), secrets.token_hex(16), "40404"
    platform = youzan.Platform(key, secret, shop, trouble)
    account = {"app_key": key, "app_secret": secret, "extra": {"kdt_id": shop}}
    return Seat(platform.app, f"{key}:{secret}", account, lambda _, draft, event, __: platform.put(draft, event, articles))


def _douyin(articles: dict[str, Article], trouble: Trouble) -> Seat:
    key, secret = secrets.token_hex(9), secrets.token_hex(16)
    platform = douyin.Platform(key, secret, trouble)
    account = {"app_key": key, "app_secret": secret, "extra": {"shop_id": "77977"}}
    return Seat(platform.app, f"{key}:{secret}", account, lambda _, draft, event, __: platform.put(draft, event, articles))


def _wechat(articles: dict[str, Article], trouble: Trouble) -> Seat:
    app, secret = f"wx{secrets.token_hex(8)}", secrets.token_hex(16)
    platform = wechat.Platform(app, secret, trouble)
    # an EncodingAESKey is 43 characters of base64
    signed = f"{app}:{secrets.token_hex(16)}:{base64.b64encode(secrets.token_bytes(32)).decode()[:43]}"
    account = {"app_key": app, "app_secret": secret}
    return Seat(platform.app, signed, account, lambda _, draft, event, __: platform.put(draft, event, articles))


def _taobao(articles: dict[str, Article], trouble: Trouble) -> Seat:
    key, secret, session = secrets.token_hex(4), secrets.token_hex(16), secrets.token_hex(16)
    platform = taobao.Top(f"{key}:{secret}", session, trouble=trouble)

    def happened(delivery: Delivery, draft: Draft, event: Event, lost: bool) -> None:
        # the message is the one of then, the trade the one of now
        platform.happened(delivery.body, taobao.detail(draft, event, articles), lost=lost)

    account = {"app_key": key, "app_secret": secret, "token": session}
    return Seat(platform.app, f"{key}:{secret}", account, happened)


def _jd(articles: dict[str, Article], trouble: Trouble) -> Seat:
    key, secret, access = secrets.token_hex(4), secrets.token_hex(16), secrets.token_hex(16)
    platform = jd.Jos(f"{key}:{secret}", access, trouble=trouble)
    account = {"app_key": key, "app_secret": secret, "token": access}
    return Seat(platform.app, "", account, lambda _, draft, event, __: platform.happened(jd.body(draft, event, articles)))


def _shopify(articles: dict[str, Article], trouble: Trouble) -> Seat:
    token, secret = secrets.token_hex(16), secrets.token_hex(24)
    platform = shop.Admin(token, trouble)
    account = {"app_key": "simulated", "app_secret": secret, "token": token}
    return Seat(platform.app, secret, account, lambda _, draft, event, __: platform.put(draft, event, articles))


_SEATS: dict[str, Callable[[dict[str, Article], Trouble], Seat]] = {
    "youzan": _youzan,
    "douyin": _douyin,
    "wechat": _wechat,
    "taobao": _taobao,
    "jd": _jd,
    "shopify": _shopify,
}
