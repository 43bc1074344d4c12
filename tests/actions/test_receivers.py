"""The receivers' file: understood whole, or refused with the place of its mistake."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from orderstream import times
from orderstream.actions import receivers
from orderstream.actions.receivers import Quiet
from orderstream.errors import BadFile
from tests.actions.conftest import receivers_file

ROOT = Path(__file__).parents[2]


def example(tmp_path: Path) -> dict[str, Any]:
    """The example that ships, with its secrets put somewhere."""
    text = (ROOT / "deploy/actions.example.yaml").read_text("utf-8")
    for path in re.findall(r"file:(/run/secrets/[\w-]+)", text):
        file = tmp_path / Path(path).name
        file.write_text("slack://TokenA/TokenB/TokenC\n" if "slack" in path else "a-secret-of-the-example\n")
        text = text.replace(f"file:{path}", f"file:{file}")
    said: dict[str, Any] = yaml.safe_load(text)
    return said


def written(tmp_path: Path, said: Any) -> Path:
    path = tmp_path / "actions.yaml"
    path.write_text(said if isinstance(said, str) else yaml.safe_dump(said, allow_unicode=True), "utf-8")
    return path


def test_the_example_is_understood(tmp_path: Path) -> None:
    """Every kind of gateway is in it, its secrets come from their files, and none of them shows."""
    path = written(tmp_path, example(tmp_path))
    file = receivers.read(path)

    assert {type(one) for one in file.gateways.values()} == set(receivers.Kinds.__args__)
    assert file.gateways["risk-robot"].secret == "a-secret-of-the-example"
    assert [one.name for one in file.of("supervisor")] == ["wang", "everybody"]
    assert [one.name for one in file.of("chen")] == ["chen"]
    assert file.of("nobody") == []
    assert (file.valid, file.links_valid) == (48 * times.HOUR, 24 * times.HOUR)
    assert file.shop("api", "main", "en") == "Example Shop"
    assert "a-secret" not in repr(file)


MISTAKES = [
    (("gateways", "mail", "hots"), "x", "gateways.mail", "hots"),
    (("gateways", "mail", "kind"), "pigeon", "gateways.mail", "pigeon"),
    (("gateways", "mail", "port"), 70_000, "gateways.mail", "port"),
    (("gateways", "sms", "sign"), None, "gateways.sms", "sign"),
    (("gateways", "erp", "url"), "erp.shop.example", "gateways.erp.url", "http"),
    (("gateways", "erp", "secret"), "file:/nowhere/at/all", "gateways.erp.secret", "/nowhere/at/all"),
    (("gateways", "Erp"), {"kind": "wecom", "key": "k"}, "gateways.Erp", "small letters"),
    (("receivers", "wang", "via"), "pigeon", "receivers.wang.via", "pigeon"),
    (("receivers", "wang", "to"), None, "receivers.wang", "`to`"),
    (("receivers", "wang", "to"), "wang at shop", "receivers.wang.to", "e-mail"),
    (("receivers", "wang", "quiet"), "22:00", "receivers.wang.quiet", "22:00-08:00"),
    (("receivers", "wang", "pierce"), ["urgent"], "receivers.wang", "urgent"),
    (("receivers", "wang", "offers"), ["destroy"], "receivers.wang", "destroy"),
    (("receivers", "wang", "quite"), "22:00-08:00", "receivers.wang", "quite"),
    (("receivers", "customer"), {"via": "erp"}, "receivers.customer", "whoever ordered"),
    (("roles", "risk"), ["wnag"], "roles.risk", "wnag"),
    (("roles", "risk"), [], "roles.risk", "nobody"),
    (("customers", "sms"), "mail", "customers.sms", "kind"),
    (("customers", "email"), "post", "customers.email", "post"),
    (("customers", "valid"), "two days", "customers.valid", "two days"),
    (("shops", "main"), {"zh": "店", "en": "s"}, "shops.main", "channel:shop"),
    (("shops", "api:main"), {"zh": "店"}, "shops.api:main", "en"),
    (("board",), "https://board.shop.example", "board", "{order_id}"),
    (("languge",), "zh", "file", "languge"),
]


@pytest.mark.parametrize(
    ("where", "value", "place", "word"), MISTAKES, ids=[f"{'.'.join(m[0])}-{n}" for n, m in enumerate(MISTAKES)]
)
def test_each_mistake_has_its_sentence(tmp_path: Path, where: tuple[str, ...], value: Any, place: str, word: str) -> None:
    """It names the place and what is wrong there, in both languages, and no secret."""
    said = example(tmp_path)
    inner = said
    for part in where[:-1]:
        inner = inner[part]
    if value is None:
        del inner[where[-1]]
    else:
        inner[where[-1]] = value
    with pytest.raises(BadFile) as refused:
        receivers.read(written(tmp_path, said))
    sentence = refused.value.sentence
    zh, _, en = sentence.partition(" · ")
    assert place in zh
    assert place in en
    assert word in en
    assert "a-secret" not in sentence


def test_what_is_no_yaml_is_one_sentence(tmp_path: Path) -> None:
    """With its line and without what stands there; a file that is not there, the same."""
    with pytest.raises(BadFile, match="line 3") as refused:
        receivers.read(written(tmp_path, "gateways:\n  a: {secret: hush, \n  b: ]"))
    assert "hush" not in refused.value.sentence
    with pytest.raises(BadFile, match=r"none\.yaml"):
        receivers.read(tmp_path / "none.yaml")


def test_a_broken_save_leaves_the_last_good_one_in_force(tmp_path: Path) -> None:
    """Read again when it changes, as secrets are."""
    from orderstream.settings import Settings

    path = receivers_file(tmp_path / "a.yaml", "http://127.0.0.1:9")
    source = receivers.source(Settings.load(actions_file=path))
    assert source is not None
    assert source().of("risk")[0].name == "group"
    path.write_text("roles: {risk: [nobody]}")
    assert source().of("risk")[0].name == "group"
    receivers_file(path, "http://127.0.0.1:9", roles={"risk": ["wang"]})
    assert source().of("risk")[0].name == "wang"


@pytest.mark.parametrize(
    ("hours", "zone", "now", "ends"),
    [
        ((22, 8), "Asia/Shanghai", "2026-11-11T21:59:59+08:00", None),
        ((22, 8), "Asia/Shanghai", "2026-11-11T22:00:00+08:00", "2026-11-12T08:00:00+08:00"),
        ((22, 8), "Asia/Shanghai", "2026-11-12T07:59:59+08:00", "2026-11-12T08:00:00+08:00"),
        ((22, 8), "Asia/Shanghai", "2026-11-12T08:00:00+08:00", None),
        ((12, 14), "Asia/Shanghai", "2026-11-11T05:00:00Z", "2026-11-11T06:00:00Z"),
        ((0, 0), "Asia/Shanghai", "2026-11-11T00:00:00+08:00", None),
        # a night of seven hours, and one of nine
        ((22, 8), "Europe/Berlin", "2027-03-27T23:00:00+01:00", "2027-03-28T08:00:00+02:00"),
        ((22, 8), "Europe/Berlin", "2026-10-24T23:00:00+02:00", "2026-10-25T08:00:00+01:00"),
    ],
)
def test_quiet_hours_end_by_the_shop_s_clock(hours: tuple[int, int], zone: str, now: str, ends: str | None) -> None:
    """Over midnight, in the middle of a day, and in nights in which clocks change."""
    quiet = Quiet(hours[0] * 60, hours[1] * 60)
    assert quiet.ends(times.parse(now), zone) == (None if ends is None else times.parse(ends))


def test_urgent_levels_pierce_by_setting(tmp_path: Path) -> None:
    """What may wake somebody is theirs to say."""
    file = receivers.read(written(tmp_path, example(tmp_path)))
    night = times.parse("2026-11-11T23:00:00+08:00")
    (chen,), (wang, everybody) = file.of("chen"), file.of("supervisor")
    assert wang.wait_until("high", night, "Asia/Shanghai") is None
    assert wang.wait_until("medium", night, "Asia/Shanghai") == times.parse("2026-11-12T07:30:00+08:00")
    assert everybody.wait_until("low", night, "Asia/Shanghai") == times.parse("2026-11-12T09:00:00+08:00")
    assert chen.wait_until("low", night, "Asia/Shanghai") is None
