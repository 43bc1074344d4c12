"""An ERP without Kafka behind orderstream: `python -m orderstream.consumers.erp_http`, fed by `orderstream downstream deliver`.

Law: 200 is said after the effect is written, and only then; a request that comes again finds its effect and is answered the same.
The body is trusted once it is proved, and parsed afterwards.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import uvicorn
from fastapi import FastAPI, Request, Response

from orderstream.consumers.erp import SAID, Erp
from orderstream.consumers.signature import UnsignedError, verify
from orderstream.errors import UserError
from orderstream.settings import Settings

log = logging.getLogger("orderstream.consumers.erp_http")


class Envelope(msgspec.Struct):
    """What tells a release from a recall, and which."""

    order_id: str
    verdict_seq: int
    verdict: str


_decode = msgspec.json.Decoder(Envelope).decode


class HttpErp(Erp):
    """The same ERP; what it has done is the answer, so nothing waits for a topic."""

    def say(self, topic: str, key: str, what: str, record: dict[str, Any]) -> None:
        del topic, key, what, record

    def receive(self, body: bytes) -> dict[str, Any]:
        """Applies a record once; what stands of it. Raises ValueError for one that is not of its schema."""
        told = _decode(body)
        with self.transaction():
            self.apply("orders.released" if told.verdict == "released" else "orders.recalled", body)
            row = self.db.execute(
                "SELECT effect FROM journal WHERE order_id = ? AND verdict_seq = ?", (told.order_id, told.verdict_seq)
            ).fetchone()
        # overtaken by a later verdict: nothing was done, nothing is to be done
        effect = "changed" if row is None else SAID[row[0]]
        money = json.loads(body).get("order", {}) if effect == "accepted" else {}
        return {"effect": effect, **{name: money[name] for name in ("currency", "total") if name in money}}


def create_app(store: HttpErp, secrets: Callable[[], tuple[bytes, ...]]) -> FastAPI:
    """`POST /orders`: 200 done (now or before), 400 not of its schema, 401 not proved. secrets: those that are good now."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/orders")
    async def orders(request: Request) -> Response:
        body = await request.body()
        try:
            key = verify(secrets(), request.headers, body, int(time.time()))
        except UnsignedError as error:
            log.warning("refused: %s", error)
            return Response(status_code=401)
        try:
            told = _decode(body)
            if key != f"{told.order_id}/{told.verdict_seq}":
                return Response(b"the key is not the record's", 400)
            answer = store.receive(body)
        except ValueError as error:
            return Response(str(error).encode(), 400)
        return Response(json.dumps(answer), media_type="application/json")

    return app


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m orderstream.consumers.erp_http")
    parser.add_argument("--host", default="127.0.0.1", help="监听地址 · address to listen on")
    parser.add_argument("--port", type=int, default=8091, help="端口 · port")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = Settings.load()
        store = HttpErp(settings.database.get_secret_value() if settings.database else settings.state_dir / "erp-http.sqlite")
    except UserError as error:
        print(error.sentence, file=sys.stderr)  # noqa: T201  the one line that a command fails with
        return error.code
    app = create_app(store, lambda: settings.shop_secrets("erp", "deliver"))
    uvicorn.run(app, host=args.host, port=args.port, log_level="warning")
    store.close()
    return 0


if __name__ == "__main__":
    sys.exit(_main())
