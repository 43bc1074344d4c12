"""SMS: Aliyun's gateway by its published protocol, and any other behind a few lines of the shop's own.

A number is E.164; Aliyun takes China's without +86 and others without the plus.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from urllib.parse import quote

import httpx

from orderstream.actions.receivers import AliyunSms, HttpSms
from orderstream.actions.senders import Message, Refused, Transient, fields, judge
from orderstream.actions.senders.webhook import signed
from orderstream.phones import home

_BUSY = {
    "isv.BUSINESS_LIMIT_CONTROL",
    "isp.SYSTEM_ERROR",
    "isp.RAM_PERMISSION_TIMEOUT",
    "Throttling",
    "Throttling.User",
    "ServiceUnavailable",
    "InternalError",
}
_KNOWN_NONCE = "SignatureNonceUsed"


async def aliyun(http: httpx.AsyncClient, gateway: AliyunSms, message: Message) -> str:
    """Its receipt is BizId.

    The nonce of a request follows from the message's key, and changes only after an answer that said no. So when nobody knows how
    an attempt ended, the next one bears its nonce, and Aliyun refuses what it has already taken: that refusal is the receipt.
    """
    templates = gateway.confirm if message.confirm else gateway.notice
    template = templates.get(message.language) or next(iter(templates.values()), None)
    if template is None:
        raise Refused("no-template")
    query = {
        "Action": "SendSms",
        "Version": "2017-05-25",
        "RegionId": "cn-hangzhou",
        "Format": "JSON",
        "AccessKeyId": gateway.key_id,
        "SignatureMethod": "HMAC-SHA1",
        "SignatureVersion": "1.0",
        "SignatureNonce": f"{message.key}-{message.answered}",
        "Timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "PhoneNumbers": home(message.to).removeprefix("+"),
        "SignName": gateway.sign,
        "TemplateCode": template,
        "TemplateParam": json.dumps(message.fill, ensure_ascii=False, separators=(",", ":")),
        "OutId": message.key,
    }
    query["Signature"] = aliyun_sign(query, gateway.key_secret)
    # in the body, not in the address: addresses stand in logs of whoever passes them on, and this one has a phone number
    answer = await http.post(gateway.url, data=query)
    said = fields(answer) if answer.status_code < 500 else {}
    code = str(said.get("Code", ""))
    if code == "OK":
        return str(said.get("BizId", ""))
    if code == _KNOWN_NONCE:
        return "taken-before"
    if code in _BUSY:
        raise Transient(code.rpartition(".")[2], 60.0)
    if code:
        raise Refused(code[:60])
    judge(answer)
    raise Transient("strange-answer")


def aliyun_sign(query: dict[str, str], secret: str, method: str = "POST") -> str:
    """The signature of an RPC request's parameters."""

    def written(text: str) -> str:
        return quote(text, safe="-_.~")

    canonical = "&".join(f"{written(name)}={written(value)}" for name, value in sorted(query.items()))
    text = f"{method}&%2F&{written(canonical)}"
    return base64.b64encode(hmac.new(f"{secret}&".encode(), text.encode(), hashlib.sha1).digest()).decode()


async def http(client: httpx.AsyncClient, gateway: HttpSms, message: Message) -> str:
    """`{"id", "to", "text"}`, signed as a webhook is. Any 2xx is a success; a receipt may stand in `receipt`."""
    text = " ".join([*message.lines, *(url for _, url in message.links)])
    answer = await signed(client, gateway.url, gateway.secret, message.key, {"id": message.key, "to": message.to, "text": text})
    judge(answer)
    return str(fields(answer).get("receipt", ""))[:80] if answer.content[:1] == b"{" else ""
