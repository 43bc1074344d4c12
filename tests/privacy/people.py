"""People whose every word is known, and what they order: in Chinese and English, by whom a whole run is searched."""

from __future__ import annotations

import json
import time
from typing import Any

from orderstream import times
from orderstream.rules import examples

PEOPLE: list[dict[str, Any]] = [
    {"name": "欧阳问渠", "phone": "13912345670", "email": "ouyang.wenqu@example.cn", "detail": "问渠里胡同7号院3单元1902室"},
    {"name": "司徒慕白", "phone": "+86 139-2345-6781", "email": "Situ.Mubai@Example.com", "detail": "慕白大道88号翠湖苑甲座"},
    {"name": "Araminta Quillfeather", "phone": "+44 7700 900123", "email": "araminta@quillfeather.example", "detail": "17 Quillfeather Mews"},
    {"name": "Bartholomew O'Finnegan-Zhào", "phone": "1-415-555-0132", "email": "bart@ofinnegan.example", "detail": "Apt 9, 4021 Ofinnegan Ln"},
    {"name": "拓跋🌸雪", "phone": "008613934567892", "email": "tuoba.xue@example.net", "detail": "雪花岭路一千二百号之6"},
    {"name": "赫连铁树", "phone": "13945678903", "email": "helian@tieshu.example", "detail": "铁树庄园9栋0701"},
]  # fmt: skip


ARTICLES = [
    examples.ARTICLE,
    {**examples.ARTICLE, "sku": "SKU-OWN", "codes": [{"channel": "api", "code": "c2"}]},
]


def buyer(n: int) -> dict[str, Any]:
    """What a channel tells of a person as a buyer; none of it is to be seen anywhere that is not an order."""
    person = PEOPLE[n]
    return {
        "id": f"buyer-zq-{n}-77310", "device": f"device-kx-{n}-90112", "ip": f"203.0.113.{211 + n}",
        "phone": person["phone"], "email": person["email"],
    }  # fmt: skip


def marks(n: int) -> list[str]:
    """What a person is known by."""
    person = PEOPLE[n]
    return [*map(str, person.values()), *buyer(n).values(), f"payment-wv-{n}-55820"]


def order(number: str, n: int, **fields: Any) -> dict[str, Any]:
    """An order of a person, of now, on the api channel."""
    person = PEOPLE[n]
    now = time.time_ns() // 1_000_000
    body = {
        "order_id": number, "revision": 1, "status": "paid", "created_at": times.text(now), "updated_at": times.text(now),
        "currency": "CNY", "buyer": buyer(n), "payment": {"id": f"payment-wv-{n}-55820", "method": "alipay"},
        "ship_to": {
            "name": person["name"], "phone": person["phone"], "country": "CN", "province": "浙江省", "city": "杭州市",
            "district": "西湖区", "detail": person["detail"], "postcode": "310012",
        },
        "lines": [{"id": "1", "code": "c1", "quantity": 1, "price": "100.00"}],
    }  # fmt: skip
    return {**body, **fields}


def bodies(first: int = 0) -> list[bytes]:
    """Everything that may happen to a person's orders, as bodies: good, repeated, broken in many ways, held, frozen, withdrawn."""
    out: list[bytes] = []
    for n, person in enumerate(PEOPLE):
        a = f"P{first + n}"
        good = order(f"{a}-1", n)
        out += [encode(good)] * 3
        # one of another article: released, whatever the others are
        out.append(encode(order(f"{a}-own", n, lines=[{"id": "1", "code": "c2", "quantity": 1, "price": "100.00"}])))
        # of an article that nobody knows: review
        out.append(encode(order(f"{a}-which", n, lines=[{"id": "1", "code": "c9", "quantity": 1, "price": "100.00"}])))
        # five of one article in ten minutes, by one user: review; a hold: frozen; and one that is taken back
        out += [encode(order(f"{a}-{k}", n)) for k in range(2, 7)]
        out.append(encode(order(f"{a}-hold", n, hold="risk")))
        out.append(encode(order(f"{a}-gone", n)))
        out.append(encode({**order(f"{a}-gone", n), "revision": 2, "status": "cancelled"}))
        # what cannot be an order, each with all of the person in it
        out.append(encode(order(f"{a}-bad1", n, total="12,50")))
        out.append(encode({**order(f"{a}-bad2", n), person["phone"]: person["name"]}))
        out.append(encode(order(f"{a}-bad3", n))[:-40])
        out.append(json.dumps(order(f"{a}-bad4", n, currency="XXQ")).encode())
        out.append(json.dumps(order(f"{a}-bad5", n), ensure_ascii=False).encode("gb18030"))
        out.append(json.dumps(order(f"{a}-bad6", n), ensure_ascii=False).encode("utf-16"))
        out.append(encode(order(f"{a}-bad7", n)).replace(b'"revision"', b'"' + person["email"].encode() + b'":1,"revision"'))
        out.append(encode({**order(f"{a}-bad8", n), "buyer": [person["name"], person["phone"]]}))
        out.append(
            encode({**order(f"{a}-bad9", n), "lines": [{"id": person["phone"], "code": "c1", "quantity": 0, "price": "1"}]})
        )
    return out


def encode(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()
