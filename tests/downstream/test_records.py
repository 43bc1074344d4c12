"""What ERP, warehouse and downstream write is what the published schemas say, and is read back."""

from __future__ import annotations

import json
from functools import cache

import pytest

from orderstream.consumers.erp import Erp
from orderstream.consumers.erp_http import HttpErp
from orderstream.consumers.wms import Wms
from orderstream.downstream import deliver, store
from orderstream.downstream.deliveries import Delivery
from orderstream.downstream.flow import Flow, Parcel, Said, Unit, take, wrong
from orderstream.downstream.read import told
from tests.consumers.test_erp_wms import feed, recalled, released
from tests.contracts.test_schemas import EXAMPLES, validator

ORDER = "api:main:A1"
NAMES = {
    "erp.acks": "erp-ack.v1.schema.json", "wms.acks": "wms-ack.v1.schema.json", "wms.shipments": "shipment.v1.schema.json",
    "orders.outcomes": "outcome.v1.schema.json",
}  # fmt: skip


@cache
def schema(topic: str):
    return validator(NAMES[topic])


def read(topic: str, record: dict) -> None:
    """It is of its schema, and what it says is understood."""
    schema(topic).validate(record)
    assert told(topic, json.dumps(record).encode(), 1) is not None or topic == "orders.outcomes"


def test_what_the_example_erp_says_is_of_its_schema(tmp_path):
    """Accepted, stopped, intercept, changed, shipped."""
    erp = Erp(tmp_path / "erp.sqlite")
    feed(erp, released(ORDER, 1))
    erp.ship(ORDER, 1000)
    feed(erp, recalled(ORDER, 2), released(ORDER, 3), released("api:main:A2", 1), recalled("api:main:A2", 2))
    said = [(one.topic, json.loads(one.value)) for one in erp.outgoing()]
    for topic, record in said:
        read(topic, record)
    assert {record.get("effect", "shipped") for _, record in said} == {"accepted", "intercept", "changed", "stopped", "shipped"}
    # what left stays booked as it was
    assert {r["effect"]: r["total"] for _, r in said if r["order_id"] == ORDER and "total" in r} == {
        "accepted": 100, "intercept": 100, "changed": 100,
    }  # fmt: skip
    erp.close()


def test_what_the_example_warehouse_says_is_of_its_schema(tmp_path):
    """Accepted, picked, stopped, and what was in the parcel."""
    wms = Wms(tmp_path / "wms.sqlite")
    feed(wms, released(ORDER, 1, quantity=2))
    wms.pick(ORDER, 1000)
    wms.ship(ORDER, wms.boxes(2000), 3000)
    feed(wms, recalled(ORDER, 2))
    said = [(one.topic, json.loads(one.value)) for one in wms.outgoing()]
    for topic, record in said:
        read(topic, record)
    assert [record.get("effect") for topic, record in said if topic == "wms.acks"] == ["accepted", "picked", "stopped"]
    wms.close()


def test_what_downstream_says_is_of_its_schema():
    """A wrong shipment, and an acknowledgement that came by HTTP with all that an ERP may say."""
    flow = Flow(ORDER)
    take(flow, Said(1, 1, True, units=(Unit({"RED": 2}),)))
    take(flow, Parcel("P1", 1, 1794405600000, {"RED": 1, "BLUE": 1}))
    bad = wrong(flow)
    assert bad is not None
    read("orders.outcomes", store.outcome(ORDER, bad))
    answer = b'{"effect": "refused", "reason": "no such article", "currency": "CNY", "total": 5}'
    read("erp.acks", deliver.acknowledgement(Delivery(ORDER, 1, "orders.released", b"", 0, 0), answer, 5))


def test_an_erp_without_kafka_answers_a_repeat_as_the_first_time(tmp_path):
    """Also what a later verdict has overtaken; and the money that it has booked."""
    erp = HttpErp(tmp_path / "erp.sqlite")
    body = json.dumps(EXAMPLES["released.json"]).encode()
    first = erp.receive(body)
    assert first == {"effect": "accepted", "currency": "CNY", "total": 19900} == erp.receive(body)
    number = EXAMPLES["released.json"]["order_id"]
    back = json.dumps({**EXAMPLES["recalled.json"], "order_id": number, "verdict_seq": 3}).encode()
    assert erp.receive(back) == {"effect": "stopped"} == erp.receive(back)
    assert erp.receive(json.dumps({**EXAMPLES["released.json"], "verdict_seq": 2}).encode()) == {"effect": "changed"}
    assert erp.states() == {"stopped": 1}
    assert erp.outgoing() == []
    erp.close()


@pytest.mark.parametrize("name", ["erp-ack", "wms-ack", "shipment"])
def test_the_published_examples_are_read(name):
    """What an integrator copies is understood."""
    topic = {"erp-ack": "erp.acks", "wms-ack": "wms.acks", "shipment": "wms.shipments"}[name]
    read(topic, EXAMPLES[f"{name}.json"])


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"order_id": "nobody", "verdict_seq": 1, "effect": "accepted"}', b"\xff"])
def test_what_cannot_be_read_is_a_value_error(body):
    """Of any form: who reads decides whether to stop."""
    with pytest.raises(ValueError):
        told("erp.acks", body, 1)


@pytest.mark.parametrize(
    ("fields", "back"),
    [
        ({"verdict": "review", "out": "review"}, True),
        ({"verdict": "review", "out": "released"}, False),
        ({"verdict": "review", "out": None}, False),
        ({"verdict": "released", "held": True, "out": "frozen"}, True),
        ({"verdict": "released", "held": True}, True),
        ({"verdict": "frozen"}, True),
        ({"verdict": "review", "out": "review", "status": "created"}, False),
        ({"verdict": "released", "out": "released"}, False),
    ],
)
def test_kept_back_is_where_the_order_stands_and_not_what_the_machine_thinks(fields, back):
    """A person's release or cancellation ends it; a freeze that was shown holds on; before `out` was said, the verdict tells."""
    record = {
        "order_id": ORDER, "verdict_seq": 1, "status": "paid", "held": False, "pack": "p@1", "timings": {"created_at": 5}, **fields
    }  # fmt: skip
    said = told("orders.verdicts", json.dumps(record).encode(), 7)
    assert said is not None
    assert said.item.since == (7 if back else None)
