"""The demo's phones: what the messengers and the SMS gateway were given, on a local page, and customers who answer.

Law: the gateways are the project's simulators, which check what the real ones check, and a customer is a browser: they open the link
that came to them and press one of the buttons that are there. Nothing reaches past the messages into what sent them.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import zlib
from collections.abc import Iterator
from html import escape
from typing import Any, NamedTuple

import httpx
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from orderstream.simulators.gateways import Gateways, Taken

SHOWN = 200
"""Messages on the page, the newest first."""
THINKS_SECONDS = 1.0
"""How long a customer looks at the page before answering."""
SILENT = 10
"""One customer in so many answers nothing."""

_URL = re.compile(r"https?://\S+")
_BUTTON = re.compile(r'name="answer" value="([a-z-]+)"')


class Shown(NamedTuple):
    """A message as the page shows it. links: (label, address)."""

    by: str
    to: str
    title: str
    lines: list[str]
    links: list[tuple[str, str]]


class Phones:
    """app: the gateways, and at `/` what they have taken. secret: what our messages to them are signed with."""

    def __init__(self, secret: str) -> None:
        self.gateways = Gateways(secret)
        self.app: FastAPI = self.gateways.app
        self.app.add_api_route("/", self._page, methods=["GET"])

    def file(self, url: str, board: str) -> dict[str, Any]:
        """The receivers' file (ORDERSTREAM_ACTIONS_FILE) by which all messages come here. url: where `app` is served; board: the wall's."""
        secret = self.gateways.secret
        # of a peak of minutes nothing may wait for the next one
        pace = {"per_minute": 6000}
        return {
            "gateways": {
                "group": {"kind": "dingtalk", "token": "token", "secret": secret, "url": f"{url}/robot/send", **pace},
                "person": {"kind": "webhook", "url": f"{url}/hook", "secret": secret, **pace},
                "sms": {"kind": "http-sms", "url": f"{url}/sms", "secret": secret, **pace},
            },
            "receivers": {
                "risk-group": {"via": "group"},
                "desk-group": {"via": "group"},
                "supervisor": {"via": "person", "person": "supervisor"},
                "approver": {"via": "person", "person": "approver"},
            },
            "roles": {"risk": ["risk-group"], "desk": ["desk-group"], "reviewer": ["desk-group"]},
            "customers": {"sms": "sms"},
            "shops": {
                "api:main": {"zh": "示例店", "en": "Example Shop"},
                "api:live": {"zh": "示例直播间", "en": "Example Live Room"},
            },
            "board": board + "/orders/{order_id}",
        }

    def _page(self) -> HTMLResponse:
        rows = "".join(_row(_shown(taken)) for taken in self.gateways.taken[: -SHOWN - 1 : -1])
        return HTMLResponse(_PAGE.format(count=len(self.gateways.taken), rows=rows))


def _shown(taken: Taken) -> Shown:
    body = taken.body
    if taken.gateway == "sms":
        text = str(body["text"])
        links = [("打开 · open", url) for url in _URL.findall(text)]
        return Shown("短信 · SMS", str(body["to"]), "", [_URL.sub("", text)], links)
    if taken.gateway == "hook":
        links = [(link["label"], link["url"]) for link in body["links"]]
        return Shown("个人 · person", str(body["role"]), body["title"], body["lines"], links)
    card = body[body["msgtype"]]
    links = [(button["title"], button["actionURL"]) for button in card.get("btns", ())]
    return Shown("钉钉群 · DingTalk", "", card["title"], card["text"].split("\n\n")[1:], links)


def _row(one: Shown) -> str:
    links = " ".join(f'<a href="{escape(url)}">{escape(label)}</a>' for label, url in one.links if _URL.fullmatch(url))
    lines = "<br>".join(escape(line) for line in one.lines)
    return f"<tr><td>{escape(one.by)}<br>{escape(one.to)}</td><td><strong>{escape(one.title)}</strong><br>{lines}</td><td>{links}</td></tr>"


_PAGE = """<!doctype html><html lang="zh"><head><meta charset="utf-8"><meta http-equiv="refresh" content="3">
<meta name="viewport" content="width=device-width"><title>消息 · messages</title><style>
body{{font:15px/1.5 system-ui,sans-serif;margin:1rem auto;max-width:64rem;padding:0 1rem}}td{{vertical-align:top;padding:.4rem .8rem .4rem 0;
border-top:1px solid #ccc}}a{{display:inline-block;margin-right:.8rem}}</style></head><body>
<h1>消息 · messages ({count})</h1><p>演示里的手机和群：新的在上，每 3 秒刷新。 · The demo's phones and groups, the newest first.</p>
<table>{rows}</table></body></html>"""


class Customers:
    """Whoever got an SMS with a link: most answer, each in their way; the same order answers the same in every run."""

    def __init__(self, phones: Phones) -> None:
        self._gateways = phones.gateways
        self._read = 0
        self._met: set[str] = set()
        self.answered = 0
        self.refused = 0
        """Answers that a page did not take."""
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> bool:
        """Whether all that came was read, and nobody is about to answer."""
        return self._read == len(self._gateways.taken) and not self._under_way

    async def run(self) -> None:
        """Answers until cancelled."""
        async with httpx.AsyncClient(timeout=20, trust_env=False) as browser:
            try:
                while True:
                    new = self._gateways.taken[self._read :]
                    for taken in self._asked(new):
                        task = asyncio.create_task(self._answer(browser, taken))
                        self._under_way.add(task)
                        task.add_done_callback(self._under_way.discard)
                    self._read += len(new)
                    await asyncio.sleep(0.2)
            finally:
                for task in self._under_way:
                    task.cancel()

    def _asked(self, new: list[Taken]) -> Iterator[Taken]:
        for taken in new:
            # a message that came twice is read once
            if taken.gateway == "sms" and taken.key not in self._met:
                self._met.add(taken.key)
                yield taken

    async def _answer(self, browser: httpx.AsyncClient, taken: Taken) -> None:
        dice = zlib.crc32(taken.key.encode())
        url = next(iter(_URL.findall(str(taken.body["text"]))), None)
        if url is None or dice % SILENT == 0:
            return
        # each comes from a place of their own, as behind a proxy
        headers = {"X-Forwarded-For": f"198.51.{dice >> 8 & 255}.{dice & 255}", "Accept-Language": "zh"}
        with contextlib.suppress(httpx.HTTPError):
            page = await browser.get(url, headers=headers)
            buttons = _BUTTON.findall(page.text)
            if page.status_code != httpx.codes.OK or not buttons:
                self.refused += 1
                return
            await asyncio.sleep(THINKS_SECONDS)
            # the first button says yes, and most do
            choice = buttons[dice // SILENT % len(buttons)] if dice // 100 % 4 == 0 else buttons[0]
            answer = await browser.post(url, data={"answer": choice}, headers=headers)
            if answer.status_code == httpx.codes.OK:
                self.answered += 1
            else:
                self.refused += 1
