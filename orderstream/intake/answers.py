"""What intake says to a sender: a status and at most two words, whoever of `app` and `door` says it."""

from __future__ import annotations

from http import HTTPStatus

RETRY_SECONDS = 2

SAID = {
    200: "ok",
    400: "bad request",
    401: "unauthorized",
    404: "not found",
    408: "timeout",
    411: "length required",
    413: "too large",
    414: "address too long",
    415: "send it unencoded",
    431: "too many headers",
    503: "try again",
}


def text(status: int) -> str:
    """The body of an answer."""
    return SAID.get(status, "refused") + "\n"


def whole(status: int, more: str = "") -> bytes:
    """An answer as it stands on the wire. more: headers, each with its line's end."""
    said = text(status)
    if status == 503:
        more += f"retry-after: {RETRY_SECONDS}\r\n"
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
    return f"{head}content-length: {len(said)}\r\n{more}\r\n{said}".encode()


def last(status: int) -> bytes:
    """One after which the connection is closed."""
    return whole(status, "connection: close\r\n")
