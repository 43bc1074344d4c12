"""What tests of actions share: gateways that check and keep, and a file that names them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orderstream.simulators.gateways import Gateways
from orderstream.simulators.served import served

SECRET = "SEC-of-the-tests"


@pytest.fixture
async def gateways() -> AsyncIterator[Gateways]:
    """All gateways on one loopback port, at `gateways.address`."""
    found = Gateways(SECRET)
    async with served(found.app) as address:
        found.address = address  # type: ignore[attr-defined]
        yield found


def receivers_file(path: Path, address: str, **changes: Any) -> Path:
    """A receivers' file whose gateways are the simulators at an address; changes: parts put in place of its own."""
    said = {
        "gateways": {
            "ding": {"kind": "dingtalk", "timeout": 60, "token": "token", "secret": SECRET, "url": f"{address}/robot/send"},
            "wecom": {"kind": "wecom", "key": "key", "url": f"{address}/cgi-bin/webhook/send"},
            "feishu": {
                "kind": "feishu",
                "timeout": 60,
                "token": "token",
                "secret": SECRET,
                "url": f"{address}/open-apis/bot/v2/hook/",
            },
            "aliyun": {
                "kind": "aliyun-sms",
                "key_id": "key-id",
                "key_secret": SECRET,
                "sign": "示例店",
                "confirm": {"zh": "SMS_1", "en": "SMS_2"},
                "notice": {"zh": "SMS_3"},
                "url": f"{address}/aliyun/",
            },
            "sms": {"kind": "http-sms", "timeout": 60, "url": f"{address}/sms", "secret": SECRET},
            "hook": {"kind": "webhook", "timeout": 60, "url": f"{address}/hook", "secret": SECRET},
        },
        "receivers": {
            "group": {"via": "ding"},
            "wang": {"via": "hook", "person": "wang"},
            "chen": {"via": "hook", "person": "chen"},
            "desk-group": {"via": "feishu"},
        },
        "roles": {"supervisor": ["wang"], "risk": ["group"], "desk": ["desk-group"], "approver": ["chen"]},
        "customers": {"sms": "sms"},
        "shops": {"api:main": {"zh": "示例店", "en": "Example Shop"}},
        **changes,
    }
    path.write_text(yaml.safe_dump(said, allow_unicode=True), "utf-8")
    return path
