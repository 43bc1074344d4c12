"""Contracts: every topic has its schema and its example, every schema guards something, and what is sent fits."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from orderstream import simulators, times, topics
from orderstream.catalogue import Catalogue
from orderstream.channels import registry
from orderstream.errors import TopicsUnfit
from orderstream.identity import Keys
from orderstream.orders import CHANNELS, Order, Raw, Rejected
from orderstream.pipeline import Pipeline
from orderstream.replay import read_item
from orderstream.rules.book import PackBook
from orderstream.rules.pack import load_all
from orderstream.settings import data_file
from orderstream.simulators.scenario import replay

ROOT = data_file("schemas")
SCHEMAS = {path.name: json.loads(path.read_text("utf-8")) for path in sorted((ROOT / "messages").glob("*"))}
EXAMPLES = {path.name: json.loads(path.read_text("utf-8")) for path in sorted((ROOT / "examples").glob("*"))}
FILES = yaml.safe_load((ROOT / "files.yaml").read_text("utf-8"))
KNOWN = Registry().with_resources((schema["$id"], Resource.from_contents(schema)) for schema in SCHEMAS.values())
# name -> (schema, example) of everything that has both
PAIRS: dict[str, tuple[str, str]] = {
    **{topic.name: (topic.schema, topic.example) for topic in topics.declared() if topic.schema and topic.example},
    **{file["name"]: (file["schema"], file["example"]) for file in FILES},
}
KEYWORDS = {
    "$schema",
    "$id",
    "$ref",
    "$defs",
    "$comment",
    "title",
    "description",
    "type",
    "enum",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "items",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "if",
    "then",
    "else",
    "dependentRequired",
    "contentEncoding",
}


def validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(SCHEMAS[schema], registry=KNOWN)


def subschemas(node: Any, where: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema inside a schema, with its place."""
    if not isinstance(node, dict):
        return
    yield where, node
    for keyword in ("properties", "patternProperties", "$defs"):
        for name, inner in node.get(keyword, {}).items():
            yield from subschemas(inner, f"{where}/{keyword}/{name}")
    for keyword in ("anyOf", "oneOf", "allOf"):
        for at, inner in enumerate(node.get(keyword, ())):
            yield from subschemas(inner, f"{where}/{keyword}/{at}")
    for keyword in ("items", "additionalProperties", "propertyNames", "not", "if", "then", "else"):
        yield from subschemas(node.get(keyword), f"{where}/{keyword}")


def flaws(schema: dict[str, Any]) -> list[str]:
    """What would make a schema guard less than it seems to."""
    found = []
    for where, node in subschemas(schema):
        found += [f"{where}: {keyword} is no keyword" for keyword in node.keys() - KEYWORDS]
        kinds = node.get("type", ())
        if (
            "object" in ([kinds] if isinstance(kinds, str) else kinds)
            and "if" not in where
            and not {"additionalProperties"} & node.keys()
        ):
            if where.endswith("additionalProperties"):
                continue  # a map of objects that another module checks
            found.append(f"{where}: an object that takes any field without saying so")
        if "properties" in node and node.get("type"):
            found += [
                f"{where}: {name} is required and not described"
                for name in set(node.get("required", ())) - node["properties"].keys()
            ]
    return found


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one(name: str) -> None:
    """It is valid by the metaschema, has no misspelled keyword, is named by its file, and its references lead somewhere."""
    schema = SCHEMAS[name]
    Draft202012Validator.check_schema(schema)
    assert flaws(schema) == []
    assert schema["$id"].endswith("/" + name)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    resolver = KNOWN.resolver(schema["$id"])
    for _, node in subschemas(schema):
        if "$ref" in node:
            resolver.lookup(node["$ref"])


def test_a_misspelled_keyword_is_seen() -> None:
    """The check above has teeth: `requird` guards nothing, and an open object takes anything."""
    schema = copy.deepcopy(SCHEMAS["stock.v1.schema.json"])
    schema["requird"] = schema.pop("required")
    Draft202012Validator.check_schema(schema)
    assert flaws(schema) == ["#: requird is no keyword"]
    schema = copy.deepcopy(SCHEMAS["stock.v1.schema.json"])
    del schema["additionalProperties"]
    assert flaws(schema) == ["#: an object that takes any field without saying so"]


@pytest.mark.parametrize("name", PAIRS)
def test_an_example_is_what_its_schema_says(name: str) -> None:
    """Each topic and each file format shows one record that is valid."""
    schema, example = PAIRS[name]
    validator(schema).validate(EXAMPLES[example])


def broken(example: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "unknown field", {**example, "a_field_that_nobody_described": 1}
    for name, value in example.items():
        if not isinstance(value, dict) and not (name == "detail" or (name == "body" and "kind" in example)):
            yield f"{name} is an object", {**example, name: {"wrong": [1]}}


@pytest.mark.parametrize("name", PAIRS)
def test_a_broken_example_fails(name: str) -> None:
    """An unknown field, a missing one, a wrong type: each is refused, at every field of the example."""
    schema, example = PAIRS[name]
    check = validator(schema)
    for what, bad in broken(EXAMPLES[example]):
        assert not check.is_valid(bad), what
    node = SCHEMAS[schema]
    for required in node.get("required", ()):
        assert not check.is_valid({key: value for key, value in EXAMPLES[example].items() if key != required}), required


def test_nothing_is_an_orphan() -> None:
    """Every schema and example is named by a topic or a file format, or used by a schema that is; and every name exists."""
    named = {schema for schema, _ in PAIRS.values()}
    assert named <= SCHEMAS.keys()
    used, todo = set(), list(named)
    while todo:
        name = todo.pop()
        if name not in used:
            used.add(name)
            references = [node["$ref"].partition("#")[0] for _, node in subschemas(SCHEMAS[name]) if "$ref" in node]
            todo += [reference for reference in references if reference]
    assert used == SCHEMAS.keys()
    assert {example for _, example in PAIRS.values()} == EXAMPLES.keys()


def test_every_topic_says_who_what_and_how_long() -> None:
    """Writers, readers, key, retention in both languages; a value is either a published schema's or one module's own."""
    declared = topics.declared()
    assert len({topic.name for topic in declared}) == len(declared)
    for topic in declared:
        assert topic.writers, topic.name
        assert topic.readers, topic.name
        assert topic.purpose.zh != topic.purpose.en
        assert (topic.schema is None) == (topic.example is None) == (topic.codec is not None), topic.name
        assert set(topic.config) >= {"cleanup.policy", "retention.ms", "max.message.bytes", "message.timestamp.type"}
        if topic.codec is not None:
            module = topic.codec.removeprefix("orderstream.").replace(".", "/")
            assert any((ROOT.parent / "orderstream" / f"{module}{end}").exists() for end in (".py", "/__init__.py")), topic.codec
    expected = {f"orders.raw.{channel}" for channel in CHANNELS} | {
        f"{{group}}-{hop}-{log}" for hop in topics.HOPS for log in ("changelog", "archive")
    }
    assert expected <= {topic.name for topic in declared}
    compacted = {"catalog.skus", "rules.packs", "orders.parked", "platforms.polled", "channel.challenges"}
    assert {topic.name for topic in declared if topic.config["cleanup.policy"] == "compact"} == compacted
    assert [topic.name for topic in declared if topic.partitions == 1] == ["catalog.skus", "rules.packs"]


def test_a_topic_s_file_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    """A misspelled `retention` in a topic's file is an error, not a default."""
    text = (ROOT / "topics" / "wms.stock.yaml").read_text("utf-8")
    for bad in (text + "retntion: 5\n", text.replace("writers:", "writer:"), text + "\n: ["):
        (tmp_path / "x.yaml").write_text(bad, "utf-8")
        with pytest.raises(TopicsUnfit, match=r"x\.yaml"):
            topics.load(tmp_path / "x.yaml")


@pytest.mark.parametrize("name", sorted(registry()))
def test_a_raw_example_is_an_order(name: str) -> None:
    """The example of a channel that is there parses, under the key that it shows."""
    record = EXAMPLES[f"raw-record.{name}.json"]
    headers = {key.removeprefix("h."): value for key, value in record["headers"].items() if key.startswith("h.")}
    told = record["headers"]
    detail = told["detail"].encode() if "detail" in told else None
    raw = Raw(name, told["shop"], int(told["received_at"]), base64.b64decode(record["value_base64"]), headers, detail=detail)
    channel = registry()[name]
    found = channel.parse(raw)
    assert isinstance(found, Order)
    assert record["key"] == found.order_id == channel.key(raw.shop, raw.body, headers)


def test_the_rejected_example_is_what_its_bytes_lead_to() -> None:
    """Parsed again, the body gives the same code, field and reason: a dead letter can be replayed."""
    record = EXAMPLES["rejected.json"]
    found = registry()["api"].parse(Raw("api", record["shop"], record["received_at"], base64.b64decode(record["body_base64"])))
    assert found == Rejected(record["order_id"], record["code"], record["reason"], record["field"])


def test_the_readers_take_the_examples() -> None:
    """What the schemas publish for files and reference topics, the line's own readers read."""
    keys = Keys(b"k")
    for name in ("replay.json", "stock.json", "reference.json", "outcome.json"):
        read_item(EXAMPLES[name], keys, "CNY")
    from orderstream.catalogue import read_article

    read_article(json.dumps(EXAMPLES["catalogue.json"]))


def test_whatever_the_line_sends_fits_its_schema(tmp_path: Path) -> None:
    """A whole simulated peak: each public record, replay line, catalogue line and backtest line is valid, of every kind."""
    scenario = simulators.make(600, rate=50, start=times.parse("2026-11-11T20:00:00+08:00"))
    file = tmp_path / "catalogue.jsonl"
    simulators.write_catalogue(file, scenario)
    checks = {topic.name: validator(topic.schema) for topic in topics.declared() if topic.schema}
    for line in file.read_text("utf-8").splitlines():
        checks["catalog.skus"].validate(json.loads(line))
    packs = load_all([data_file("rules/standard")])
    for pack in packs:
        checks["rules.packs"].validate(json.loads(pack.encode()))
    keys = Keys(b"k")
    line = Pipeline(Catalogue.load(file), PackBook(packs), keys, "Asia/Shanghai")
    replayed, seen = validator("replay.v1.schema.json"), set()
    for record in replay(scenario):
        replayed.validate(record)
        for public in line.feed(read_item(record, keys, "CNY")):
            # as it is read from Kafka
            checks[public.topic].validate(json.loads(msgspec.json.encode(public.value)))
            seen.add(public.topic)
    assert seen >= {f"orders.{name}" for name in ("verdicts", "released", "review", "frozen", "recalled", "actions")}
    final = validator("verdict-line.v1.schema.json")
    for verdict in line.verdicts():
        final.validate(json.loads(verdict.encode()))
