"""The whole way in a browser: orders through a real Kafka and real workers to the wall, and a person's decision back to the ERP's topic."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from orderstream import kafka, times, topics
from orderstream.board import store
from orderstream.board.web import accounts
from orderstream.broker import free_port
from orderstream.settings import Settings
from tests.board.web.conftest import PASSWORD, chrome
from tests.board.web.test_browser import shot
from tests.stream.line import Workers, prepare, send
from tests.waiting import wait_until

pytestmark = [pytest.mark.stream, pytest.mark.timeout(600)]

ARTICLES = [
    {"sku": "SKU1", "name": "收纳架 胡桃木色", "base_price": "358.00", "colour": {"name": "胡桃木色"}, "codes": [{"channel": "api", "code": "known"}]},
    {"sku": "SKU2", "name": "抽屉分隔板 米白色", "base_price": "39.00", "colour": {"name": "米白色"}},
]  # fmt: skip


def order(number: str, at: int, code: str, price: str, title: str, colour: str, **more: Any) -> dict[str, Any]:
    """A raw record of the own shop, of somebody who shares nothing with the others."""
    n = int(number[1:])
    body = {
        "order_id": number, "revision": 1, "status": "paid", "created_at": times.text(at), "updated_at": times.text(at),
        "currency": "CNY", "total": price, "ship_by": times.text(at + 8 * times.HOUR),
        "buyer": {
            "id": f"u-{number}", "registered_at": "2025-01-01T00:00:00Z", "device": f"d-{number}", "ip": f"{110 + n}.10.20.7",
            "phone": f"1380000010{n}",
        },
        "payment": {"id": f"p-{number}", "method": "alipay"},
        "ship_to": {
            "name": "赵钱孙李周吴郑王冯陈"[n] + "雷", "phone": f"1380000020{n}", "country": "CN", "province": "浙江省",
            "city": "杭州市", "district": "西湖区", "detail": f"文三路{n}号", "postcode": "310012",
        },
        "lines": [{"id": "1", "code": code, "title": title, "quantity": 1, "price": price, "spec": {"颜色": colour}}],
        **more,
    }  # fmt: skip
    return {"channel": "api", "shop": "main", "received_at": times.text(at + 200), "body": body}


@pytest.fixture
def chromium(line: tuple[Settings, str]) -> Iterator[Browser]:
    """One of its own, opened after Kafka was prepared and closed before it is tidied: both want the loop."""
    del line
    with chrome() as browser:
        yield browser


@pytest.fixture
def line(fresh_topics: Callable[..., Settings], database: str, tmp_path: Path) -> Iterator[tuple[Settings, str]]:
    """Workers and the board's process on a real broker: the settings, and the board's address."""
    port = free_port()
    settings = fresh_topics(partitions=2, database=database, board_port=port)
    prepare(settings, ARTICLES)
    workers = Workers(settings, tmp_path)
    workers.start(1)
    log = tmp_path / "board.log"
    with log.open("wb") as out:
        env = {
            **os.environ,
            "ORDERSTREAM_DATABASE": database,
            "ORDERSTREAM_BOARD_PORT": str(port),
            "ORDERSTREAM_METRICS_PORT": "0",
        }
        board = subprocess.Popen([sys.executable, "-m", "orderstream", "board"], env=env, stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}"

    def up() -> bool:
        assert board.poll() is None, log.read_text()[-3000:]
        try:
            return httpx.get(f"{url}/healthz", trust_env=False, timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(up, lambda: log.read_text()[-3000:])
        yield settings, url
        assert board.poll() is None, log.read_text()[-3000:]
    finally:
        board.terminate()
        board.wait(30)
        workers.stop()


def released(settings: Settings) -> dict[str, str]:
    """What the ERP has been given: order id -> by whom."""
    name = topics.name("orders.released", settings.topic_prefix)
    with ThreadPoolExecutor(1) as apart:
        found = apart.submit(lambda: list(kafka.read_all(str(settings.brokers), [name]))).result()
    records = [json.loads(message.value or b"") for message in found]
    return {record["order_id"]: record["by"] for record in records}


def test_from_the_webhook_to_the_erp_by_way_of_people(
    line: tuple[Settings, str], browse: Callable[..., BrowserContext], database: str
) -> None:
    """An unknown article is mapped on one order's page and all orders with it go; a frozen one is asked for and approved by another."""
    settings, url = line
    now = store.now() - 60_000
    unknown = [order(f"A{n}", now + 1000 * n, "tb-999", "39.00", "抽屉分隔板", "米白色") for n in range(1, 4)]
    frozen = order("F9", now, "known", "358.00", "收纳架", "胡桃木色", hold="平台风控：请勿发货")
    with ThreadPoolExecutor(1) as apart:
        apart.submit(send, settings, [*unknown, frozen]).result()

    class Where:
        """As much of a board as a browser needs."""

    board = Where()
    board.url = url
    people = {}
    with store.connect(database) as db:
        for login, role in (("lin", "supervisor"), ("boss", "approver")):
            link = accounts.invite(db, login, store.now(), "test", roles=[role])
            person = accounts.accept(db, link, PASSWORD, store.now())
            assert person is not None
            people[login] = accounts.open_session(db, person, "link", store.now())
    page = browse(board, people["lin"]).new_page()
    page.goto(url)
    expect(page.locator(".card", has_text="商品编码未对应")).to_have_count(3)
    expect(page.locator(".card", has_text="平台要求暂不发货")).to_have_count(1)

    page.goto(f"{url}/orders/api:main:A1")
    expect(page.locator("#order")).to_contain_text("tb-999")
    page.locator('input[name="sku"]').fill("SKU2")
    shot(page, "mapping-desk")
    page.get_by_role("button", name="建立对应，并重新检查待处理订单").click()
    wait_until(
        lambda: {"api:main:A1", "api:main:A2", "api:main:A3"} <= set(released(settings)), "the orders with the code are released"
    )
    page.goto(url)
    expect(page.locator(".card", has_text="商品编码未对应")).to_have_count(0)

    page.goto(f"{url}/orders/api:main:F9")
    page.get_by_label("放行", exact=False).first.check()
    page.locator("#reason-release").select_option("checked")
    page.get_by_role("button", name="确定").click()
    expect(page.locator(".undo")).to_contain_text("等待审批")
    assert "api:main:F9" not in released(settings)
    boss = browse(board, people["boss"]).new_page()
    boss.goto(f"{url}/approvals")
    boss.get_by_role("button", name="同意", exact=True).click()
    wait_until(lambda: released(settings).get("api:main:F9") not in {None, "machine"}, "the frozen order is released by a person")
    expect(boss.locator("article")).to_have_count(0)
