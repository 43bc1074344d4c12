"""Senders against gateways that check what the real ones check."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from fastapi.responses import JSONResponse, Response

from orderstream.actions import receivers, senders
from orderstream.actions.receivers import AliyunSms, Apprise, Smtp, Webhook
from orderstream.actions.senders import Message, Refused, Transient
from orderstream.actions.senders.sms import aliyun_sign
from orderstream.simulators.gateways import Gateways, MailServer
from tests.actions.conftest import SECRET, receivers_file

KEY = "0123456789abcdef0123456789abcdef"


def message(**more: Any) -> Message:
    said = {
        "key": KEY,
        "title": "订单已冻结：IP 段集中抢购",
        "lines": ("订单 api:main:A1", "金额 358.00 CNY，级别 高"),
        "language": "zh",
        "links": (("放行", "https://c.example/d/x"),),
        "to": "+8613800000000",
        "fill": {"order": "A1"},
        **more,
    }
    return Message(**said)


async def sent(gateway: Any, what: Message) -> str:
    async with senders.connections() as http:
        return await senders.send(http, gateway, what)


def named(gateways: Gateways, tmp_path: Path) -> Any:
    return receivers.read(receivers_file(tmp_path / "a.yaml", gateways.address)).gateways  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "keeps_key"), [("ding", False), ("wecom", False), ("feishu", False), ("aliyun", True), ("sms", True), ("hook", True)]
)
async def test_a_gateway_takes_what_is_sent(gateways: Gateways, tmp_path: Path, name: str, keeps_key: bool) -> None:
    """Signed as its protocol says, with text and link, and the idempotency key wherever there is a place for it."""
    await sent(named(gateways, tmp_path)[name], message())
    (taken,) = gateways.taken
    text = str(taken.body)
    assert taken.key == (KEY if keeps_key else "")
    if name == "aliyun":
        assert (taken.body["PhoneNumbers"], taken.body["TemplateCode"]) == ("13800000000", "SMS_3")
        assert taken.body["TemplateParam"] == {"order": "A1"}
    else:
        assert "api:main:A1" in text
        assert "https://c.example/d/x" in text


@pytest.mark.parametrize("name", ["ding", "feishu", "aliyun", "sms", "hook"])
async def test_a_wrong_secret_is_refused_and_not_tried_again(gateways: Gateways, tmp_path: Path, name: str) -> None:
    """A person must mend it; the code says what, and no secret is in it."""
    gateways.secret = "another"
    with pytest.raises(Refused) as refused:
        await sent(named(gateways, tmp_path)[name], message())
    assert refused.value.code in {"errcode-310000", "code-19021", "http-400", "SignatureDoesNotMatch", "http-401"}
    assert SECRET not in str(refused.value)
    assert gateways.taken == []


@pytest.mark.parametrize(
    ("name", "gateway", "answer", "after"),
    [
        ("ding", "dingtalk", {"errcode": 130101, "errmsg": "send too fast"}, 60.0),
        ("wecom", "wecom", {"errcode": 45009, "errmsg": "api freq out of limit"}, 60.0),
        ("feishu", "feishu", {"code": 11232, "msg": "frequency limited"}, 60.0),
        ("aliyun", "aliyun", {"Code": "isv.BUSINESS_LIMIT_CONTROL", "Message": "…"}, 60.0),
        ("hook", "hook", None, 7.0),
    ],
)
async def test_a_limit_is_waited_for(
    gateways: Gateways, tmp_path: Path, name: str, gateway: str, answer: Any, after: float
) -> None:
    """Each gateway's own way of saying `not now`."""
    busy = Response(status_code=429, headers={"Retry-After": "7"}) if answer is None else JSONResponse(answer)
    gateways.trouble.append((gateway, lambda: busy))
    with pytest.raises(Transient) as later:
        await sent(named(gateways, tmp_path)[name], message())
    assert later.value.after == after


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Response(status_code=503), Transient),
        (Response("<html>proxy</html>"), Transient),
        (Response(status_code=301, headers={"Location": "https://elsewhere.example"}), Refused),
        (Response(status_code=404), Refused),
    ],
)
async def test_what_is_no_answer_is_no_success(gateways: Gateways, tmp_path: Path, answer: Response, error: type) -> None:
    """A proxy's page, half an answer, a redirect: none of them counts as taken, and a redirect is not followed."""
    gateways.trouble.append(("wecom", lambda: answer))
    with pytest.raises(error):
        await sent(named(gateways, tmp_path)["wecom"], message())


async def test_a_gateway_that_hangs_ends_in_its_time(gateways: Gateways) -> None:
    """The time-out is the gateway's own, and what is closed or nowhere is tried again."""
    gateways.hold = asyncio.Event()
    hook = Webhook(url=f"{gateways.address}/hook", secret=SECRET, timeout=0.2)  # type: ignore[attr-defined]
    with pytest.raises(Transient, match="timeout"):
        await sent(hook, message())
    gateways.hold.set()
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(Transient, match="no-answer-ConnectError"):
        await sent(Webhook(url=f"http://127.0.0.1:{port}/x", secret=SECRET), message())


def test_aliyun_s_own_example_has_its_signature() -> None:
    """The example of its documentation of signatures (SendSms, 2017-07-12)."""
    query = {
        "AccessKeyId": "testId",
        "Action": "SendSms",
        "Format": "XML",
        "OutId": "123",
        "PhoneNumbers": "15300000001",
        "RegionId": "cn-hangzhou",
        "SignName": "阿里云短信测试专用",
        "SignatureMethod": "HMAC-SHA1",
        "SignatureNonce": "45e25e9b-0a6f-4070-8c85-2956eda1b466",
        "SignatureVersion": "1.0",
        "TemplateCode": "SMS_71390007",
        "TemplateParam": '{"customer":"test"}',
        "Timestamp": "2017-07-12T02:42:19Z",
        "Version": "2017-05-25",
    }
    assert aliyun_sign(query, "testSecret", "GET") == "zJDF+Lrzhj/ThnlvIToysFRq6t4="


async def test_aliyun_takes_an_unsure_attempt_once(gateways: Gateways, tmp_path: Path) -> None:
    """Tried again after nobody knows what, it bears the same nonce and is told that it was taken; after a no, it bears another."""
    gateway = named(gateways, tmp_path)["aliyun"]
    assert isinstance(gateway, AliyunSms)
    assert await sent(gateway, message()) == "biz-0"
    assert await sent(gateway, message()) == "taken-before"
    assert len(gateways.taken) == 1
    gateways.trouble.append(("aliyun", lambda: JSONResponse({"Code": "isv.BUSINESS_LIMIT_CONTROL"})))
    with pytest.raises(Transient):
        await sent(gateway, message(key="f" * 32))
    assert await sent(gateway, message(key="f" * 32, answered=1)) == "biz-1"


async def test_mail_goes_out_with_an_id_of_its_own(tmp_path: Path) -> None:
    """Twice the same message is one Message-ID; a full box is tried again, an unknown one is not."""
    async with MailServer() as server:
        gateway = Smtp(host="127.0.0.1", port=server.port, tls="none", sender="示例店 <orders@shop.example>")
        mail = message(to="wang@shop.example")
        assert await sent(gateway, mail) == await sent(gateway, mail) == f"<{KEY}@shop.example>"
        assert all(f"Message-ID: <{KEY}@shop.example>" in one for one in server.mails)
        assert len(server.mails) == 2
        server.refuse = {"wang@shop.example": "452 box is full", "chen@shop.example": "550 no such user"}
        with pytest.raises(Transient, match="smtp-452"):
            await sent(gateway, mail)
        with pytest.raises(Refused, match="smtp-550"):
            await sent(gateway, message(to="chen@shop.example"))
    with pytest.raises(Transient, match="smtp-"):
        await sent(gateway, mail)
    with pytest.raises(Refused, match="smtp-unsupported"):
        async with MailServer() as server:
            await sent(Smtp(host="127.0.0.1", port=server.port, sender="a@b.example"), mail)


async def test_the_rest_goes_by_apprise(gateways: Gateways) -> None:
    """Anything that apprise knows: here its own JSON to an address; a url that it does not know is refused."""
    seen: list[Any] = []

    async def take(request: Any) -> Response:
        seen.append(await request.json())
        return Response()

    gateways.app.add_route("/apprise", take, methods=["POST"])
    address = gateways.address.removeprefix("http://")  # type: ignore[attr-defined]
    await sent(Apprise(url=f"json://{address}/apprise"), message())
    assert seen[0]["title"].startswith("订单已冻结")
    assert "https://c.example/d/x" in seen[0]["message"]
    with pytest.raises(Refused, match="apprise-url"):
        await sent(Apprise(url="pigeon://x"), message())
    with pytest.raises(Transient, match="apprise-failed"):
        await sent(Apprise(url="json://127.0.0.1:1/x"), message())
