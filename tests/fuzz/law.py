"""The law of bad input, and the seeds to break it from.

Law: whatever the bytes, a channel says who sent them or Refused, and what they are: an Order, an event about one, a Skip, or a Rejected
that explains itself; the line behind it takes each of them. Nothing else is ever raised. One request costs under 50 ms of CPU
and 50 MB.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from orderstream.catalogue import Catalogue
from orderstream.channels import Channel, Push, Refused
from orderstream.channels.reading import MAX_BODY
from orderstream.identity import Keys
from orderstream.normalise import Books, Normaliser
from orderstream.orders import About, Raw, Rejected, Skip
from orderstream.rules.book import PackBook
from orderstream.rules.pack import load
from orderstream.wire import raw_headers

MAX_CPU_MS = 50
MAX_MB = 50
NOW = 1_794_326_402_000
"""ms UTC: when every fuzzed delivery comes in."""
SECRETS = (b"new", b"old")
ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "channels" / "fixtures"
EXAMPLES = ROOT / "schemas" / "examples"


class AnyHeaders(Mapping[str, str]):
    """Headers that have every name: the first one asked for gets the first value, and so on; then they have none.

    So a fuzzer reaches the headers of a channel that it has never heard of.
    """

    def __init__(self, values: list[str]) -> None:
        self._left = values[::-1]
        self._told: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        if name not in self._told:
            if not self._left:
                raise KeyError(name)
            self._told[name] = self._left.pop()
        return self._told[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._told)

    def __len__(self) -> int:
        return len(self._told)


def split(data: bytes) -> tuple[list[str], bytes]:
    """A fuzzer's bytes as header values, one a line and as HTTP servers decode them, an empty line, and the body."""
    head, blank, body = data.partition(b"\n\n")
    return (head.decode("latin-1").split("\n"), body) if blank else ([], data)


def seeds(channel: str) -> list[bytes]:
    """Good deliveries of a channel, each as `split` reads it: its published example, and its fixtures where it has some.

    What only names an order has its detail behind it, after an empty line: the example's own, or the fixture's `.detail.json`.
    A fixture's `.headers` are the values that go before it, a line each, and an empty line.
    """
    found = []
    example = EXAMPLES / f"raw-record.{channel}.json"
    if example.exists():
        record = json.loads(example.read_text("utf-8"))
        values = [value for name, value in record.get("headers", {}).items() if name.startswith("h.")]
        body = base64.b64decode(record["value_base64"])
        found.append("\n".join(values).encode("latin-1") + b"\n\n" + _joined(body, record["headers"].get("detail", "").encode()))
    for file in sorted(FIXTURES.glob(f"{channel}*.json")):
        detail, headers = file.with_suffix(".detail.json"), file.with_suffix(".headers")
        if not file.name.endswith(".detail.json"):
            head = headers.read_bytes() if headers.exists() else b"\n\n"
            found.append(head + _joined(file.read_bytes(), detail.read_bytes() if detail.exists() else b""))
    return found


def _joined(body: bytes, detail: bytes) -> bytes:
    return body + b"\n\n" + detail if detail else body


def parted(channel: Channel, body: bytes) -> tuple[bytes, bytes | None]:
    """A body, and the detail behind it where it needs one."""
    first, blank, detail = body.partition(b"\n\n")
    thin = bool(blank) and channel.thin(Raw(channel.id, "main", NOW, first))
    return (first, detail) if thin else (body, None)


def deliver(channel: Channel, values: list[str], body: bytes) -> tuple[Raw, str | None]:
    """What intake and the first worker do with one delivery, be it proved or not; the raw record and its key."""
    headers = AnyHeaders(values)
    try:
        assert channel.verify(Push(body, headers, headers), SECRETS, NOW).how
    except Refused as refused:
        if refused.status not in {400, 401} or not refused.code:
            raise
    kept = {name: headers[name] for name in channel.headers if name in headers}
    body, detail = parted(channel, body)
    raw = Raw(channel.id, "main", NOW, body, kept, detail=detail)
    key = channel.key(raw.shop, body, kept)
    assert isinstance(channel.thin(raw), bool)
    raw_headers(raw)
    line().process(raw, 0, NOW)
    return raw, key


def obey(channel: Channel, values: list[str], body: bytes) -> str:
    """What became of a delivery: the kind of value. Raises whatever breaks the law."""
    raw, key = deliver(channel, values, body)
    assert key is None or (key.startswith(f"{channel.id}:main:") and len(key) < 200)
    parsed = channel.parse(raw)
    if isinstance(parsed, Rejected):
        assert parsed.code
        assert " · " in parsed.reason, "both languages"
        assert len(parsed.reason) + len(parsed.field or "") < 1000, "a reason is a sentence, not the body again"
    elif isinstance(parsed, About):
        assert key == parsed.order_id, "all that concerns an order meets on its own partition"
    else:
        assert isinstance(parsed, Skip)
    return type(parsed).__name__.lower()


@cache
def _books() -> tuple[Books, Keys]:
    return Books(Catalogue([]), PackBook([load(ROOT / "rules" / "standard")]).at), Keys(b"fuzz")


def line() -> Normaliser:
    """The first hop as it starts, with no catalogue."""
    return Normaliser(*_books())


def bombs() -> dict[str, bytes]:
    """Bodies as large as intake takes, each of which makes a careless reader slow or fat."""

    def fill(head: str, unit: str, tail: str = "") -> bytes:
        room = MAX_BODY - len((head + tail).encode())
        return (head + unit * (room // len(unit.encode())) + tail).encode()

    return {
        "open brackets": fill("", "["),
        "closed brackets": fill("[" * 40, "]"),
        "quotes in a string that never ends": fill("{" * 40 + '"', '\\"'),
        "a whole number": fill('{"id":', "9", "}"),
        "a fraction": fill('{"id":0.', "1", "}"),
        "an exponent": b'{"id":1e999999999,"order_id":-1E-999999999,"total":1e99999999999999999999}',
        "empty objects": fill("[", "{},", "{}]"),
        "empty lists": fill("[", "[],", "[]]"),
        "small objects": fill("[", '{"":0},', "{}]"),
        "numbers": fill("[", "1,", "1]"),
        "fractions": fill("[", "1.5,", "1]"),
        "as many objects as are read": b"[" + b'{"a":1.5},' * 14_990 + b"{}]",
        "as many fractions as are read": b"[" + b"12345678901234.5," * 49_990 + b"1]",
        "keys": ("{" + ",".join(f'"{at}":0' for at in range(49_990)) + "}").encode(),
        "one key": fill('{"', "x", '":1}'),
        "one key of paths": fill('{"', " - at `", '":1}'),
        "the same key": fill("{", '"order_id":"A",', '"order_id":"A"}'),
        "backslashes": fill('{"id":"', "\\\\", '\\u0000"}'),
        "zeros": fill('{"id":"', "\\u0000", '"}'),
        "surrogates": fill('{"id":"', "\\ud83d\\ude00", '"}'),
        "line ends in Chinese": fill('{"id":"😀', "中\\n", '"}'),
        "blanks": fill("", " ", "{}"),
    }
