"""Whatever else apprise reaches. It says only yes or no: a no is tried again."""

from __future__ import annotations

import asyncio

import apprise as library
import httpx

from orderstream.actions.receivers import Apprise
from orderstream.actions.senders import Message, Refused, Transient


async def apprise(client: httpx.AsyncClient, gateway: Apprise, message: Message) -> str:
    """No receipt."""
    del client
    notifier = library.Apprise()
    if not notifier.add(gateway.url):
        raise Refused("apprise-url")
    body = "\n".join([*message.lines, *(f"{label}: {url}" for label, url in message.links)])
    if not await asyncio.to_thread(notifier.notify, title=message.title, body=body):
        raise Transient("apprise-failed")
    return ""
