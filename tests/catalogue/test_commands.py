"""The commands, as a person types them: offline on files, and on a real Kafka."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from orderstream import cli, kafka, topics
from orderstream.catalogue import Catalogue, store
from orderstream.replay import body_bytes
from orderstream.settings import Settings
from orderstream.times import text

T = 1_794_326_402_000


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """`typed("report", …)`: the exit code and all that was printed of `orderstream catalogue report …`, in an own folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        code = cli.run(["catalogue", *arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def order(number: str, code: str, **line: Any) -> str:
    body = {
        "order_id": number,
        "created_at": text(T),
        "currency": "CNY",
        "lines": [{"code": code, "quantity": 1, "price": "199.00", **line}],
    }
    return json.dumps({"kind": "raw", "channel": "api", "shop": "main", "received_at": text(T), "body": body}) + "\n"


ARTICLES = "货号,商品名称,价格,颜色,编码:api\nSKU1,多功能收纳架,199,原木色,c1\nSKU2,多功能收纳架,199,胡桃木色,c2\n"


def test_from_a_spreadsheet_to_a_mapped_code(typed: Callable[..., tuple[int, str]]) -> None:
    """Import, look, accept: nothing is mapped until somebody says so by name, and then it is."""
    Path("goods.csv").write_text(ARTICLES, "utf-8")
    Path("orders.jsonl").write_text(order("1", "live-1", title="直播 多功能收纳架", spec={"颜色": "Walnut"}), "utf-8")

    code, said = typed("import", "goods.csv", "--out", "skus.jsonl", "--at", "always")
    assert code == 0, said
    assert "2 new" in said
    code, said = typed("suggest", "--catalogue", "skus.jsonl", "--orders", "orders.jsonl")
    assert code == 0, said
    assert "SKU2" in said
    assert "orderstream catalogue accept api:main live-1 SKU2" in said
    assert "live-1" not in Path("skus.jsonl").read_text("utf-8")

    code, said = typed("accept", "api:main", "live-1", "SKU2", "--catalogue", "skus.jsonl", "--out", "next.jsonl")
    assert code == 0, said
    now = store.moment()
    catalogue = Catalogue.load(Path("next.jsonl"))
    assert catalogue.skus("api", "main", "live-1", now) == ["SKU2"]
    assert catalogue.skus("api", "main", "live-1", T) == []
    assert catalogue.skus("api", "main", "c2", now) == ["SKU2"]
    assert "已经对应" in typed("accept", "api:main", "live-1", "SKU2", "--catalogue", "next.jsonl", "--out", "next.jsonl")[1]


def test_a_code_is_moved_only_when_told(typed: Callable[..., tuple[int, str]]) -> None:
    """It names another article: refused with the way; moved, the other one has it no longer, also where a change is planned."""
    lines = [
        {"sku": "A", "name": "a", "codes": [{"channel": "api", "code": "x"}]},
        {"sku": "A", "name": "a, new", "codes": [{"channel": "api", "code": "x"}], "at": "2090-01-01T00:00:00Z"},
        {"sku": "B", "name": "b"},
    ]
    Path("c.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    files = ("--catalogue", "c.jsonl", "--out", "d.jsonl")

    code, said = typed("accept", "api:*", "x", "B", *files)
    assert (code, "--move" in said) == (9, True)
    assert not Path("d.jsonl").exists()
    assert typed("accept", "api:*", "x", "NOPE", *files)[0] == 9
    assert typed("accept", "api:*", "x", "B", "--move", *files)[0] == 0
    catalogue, later = Catalogue.load(Path("d.jsonl")), store.moment() + 10**12 * 2
    assert catalogue.skus("api", "main", "x", store.moment()) == ["B"]
    assert catalogue.skus("api", "main", "x", later) == ["B"]


def test_a_table_with_faults_writes_nothing(typed: Callable[..., tuple[int, str]]) -> None:
    """Its faults are printed with their rows, the exit code is 9; a dry run writes nothing either."""
    Path("bad.csv").write_text(ARTICLES + "SKU3,盒,abc,白色,c3\n", "utf-8")
    Path("ring.csv").write_text("sku,name,components\nA,a,B\nB,b,A\n", "utf-8")
    Path("goods.csv").write_text(ARTICLES, "utf-8")

    code, said = typed("import", "bad.csv", "--out", "skus.jsonl")
    assert code == 9
    assert "row 4\t价格\tabc" in said
    code, said = typed("import", "ring.csv", "--out", "skus.jsonl")
    assert (code, "cycle: A → B → A" in said) == (9, True)
    assert typed("import", "goods.csv", "--out", "skus.jsonl", "--dry-run")[0] == 0
    assert not Path("skus.jsonl").exists()
    assert typed("import", "goods.csv", "--shop", "ebay:main", "--out", "x.jsonl")[0] == 9
    assert typed("accept", "api:main", "x", "A", "--catalogue", "c.jsonl")[0] == 2


def test_a_report_is_a_workbook(typed: Callable[..., tuple[int, str]]) -> None:
    """A sheet a section, text as text: a title that begins with = is no formula."""
    Path("goods.csv").write_text(ARTICLES, "utf-8")
    Path("orders.jsonl").write_text(order("1", "u1", title="=1+1"), "utf-8")
    Path("list.csv").write_text("code,颜色\nc1,胡桃木色\n,红\n", "utf-8")
    typed("import", "goods.csv", "--out", "skus.jsonl", "--at", "always")

    code, said = typed(
        "report", "--catalogue", "skus.jsonl", "--orders", "orders.jsonl", "--list", "api:main=list.csv", "--out", "r.xlsx"
    )
    assert code == 0, said
    assert "not available" in said
    assert "1 rows were not read" in said
    book = openpyxl.load_workbook("r.xlsx")
    assert [row[5] for row in book["colours"].iter_rows(min_row=3, values_only=True)] == ["胡桃木色"]
    (row,) = book["unmapped"].iter_rows(min_row=3)
    assert (row[3].value, row[3].data_type) == ("=1+1", "s")
    assert typed("report", "--catalogue", "skus.jsonl", "--stale", "soon")[0] == 2


@pytest.mark.stream
def test_on_kafka_a_change_holds_from_now_on(
    fresh_topics: Callable[..., Settings], typed: Callable[..., tuple[int, str]]
) -> None:
    """Loaded, imported, suggested from the orders there are, accepted, reported; who accepted and why stands beside the record."""
    settings = fresh_topics()
    Path("goods.csv").write_text(ARTICLES, "utf-8")
    typed("import", "goods.csv", "--out", "skus.jsonl", "--at", "always")
    ring = {"sku": "SKU1", "name": "a", "components": [{"sku": "SKU9", "quantity": 1}], "at": text(T)}
    Path("ring.jsonl").write_text(json.dumps(ring), "utf-8")
    Path("back.jsonl").write_text(
        json.dumps({"sku": "SKU9", "name": "b", "components": [{"sku": "SKU1", "quantity": 1}]}), "utf-8"
    )
    said = json.loads(order("1", "live-1", title="多功能收纳架 胡桃木色"))
    headers = (("shop", b"main"), ("received_at", str(T).encode()), ("verified", b"replay"))
    record = kafka.Outgoing(topics.raw("api", settings.topic_prefix), b"api:main:1", body_bytes(said["body"]), headers)
    kafka.send_all(str(settings.brokers), [record])

    assert typed("load", "skus.jsonl")[0] == 0
    assert typed("load", "back.jsonl")[0] == 0
    code, out = typed("load", "ring.jsonl")
    assert (code, "cycle: SKU1 → SKU9 → SKU1" in out) == (9, True)
    code, out = typed("suggest")
    assert (code, "live-1" in out, "SKU2" in out) == (0, True, True)
    assert typed("accept", "api:main", "live-1", "SKU2", "--why", "对过图")[0] == 0

    catalogue = store.of_topic(settings, str(settings.brokers))
    assert catalogue.skus("api", "main", "live-1", store.moment()) == ["SKU2"]
    last = list(kafka.read_all(str(settings.brokers), [topics.name("catalog.skus", settings.topic_prefix)]))[-1]
    assert dict(last.headers)["why"].decode() == "对过图"
    code, out = typed("report")
    assert code == 0
    assert "未对应的编码 · codes that name no article：没有 · none" in out
