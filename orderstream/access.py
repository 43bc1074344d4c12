"""How we come to Kafka: over which connection, and as whom.

Law: whatever connects takes its options from `client`, so that an installation is secured everywhere or nowhere; and who is
turned away hears why from `examine`, which comes in as they did. Reason: one client that forgot is an open door or a process
that hangs, and Kafka tells a client that it does not know as little as it can.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from orderstream.errors import BadFile, NoBroker, NotAdmitted, UserError
from orderstream.settings import Settings, read_secret

log = logging.getLogger("orderstream.access")

FORBIDDEN = (29, 30, 31)
"""Kafka's codes for a topic, a group or the cluster that a user may not use so."""
EXAMINE_SECONDS = 5.0
"""How long Kafka may take to let somebody in or turn them away."""


def client(settings: Settings) -> dict[str, Any]:
    """The options that every aiokafka client of ours gets; none for a Kafka in the clear. Raises BadFile."""
    if settings.kafka_security == "PLAINTEXT":
        return {}
    options: dict[str, Any] = {"security_protocol": settings.kafka_security, "ssl_context": context(settings)}
    if settings.kafka_security == "SASL_SSL":
        options["sasl_mechanism"] = settings.kafka_mechanism
        options["sasl_plain_username"] = settings.kafka_user
        options["sasl_plain_password"] = _Password(_password_of(settings))
    return options


def context(settings: Settings) -> ssl.SSLContext | None:
    """TLS as the settings want it: Kafka's certificate must be of the CA and name the host. None in the clear. Raises BadFile."""
    if settings.kafka_security == "PLAINTEXT":
        return None
    try:
        made = ssl.create_default_context(cafile=settings.kafka_ca)
    except (OSError, ssl.SSLError):
        raise BadFile(f"CA 文件不可用 · ORDERSTREAM_KAFKA_CA: cannot use {settings.kafka_ca}") from None
    made.sslobject_class = _Brief
    if settings.kafka_cert is not None:
        try:
            # an encrypted key must fail here, and not ask the terminal of a service for its password
            made.load_cert_chain(settings.kafka_cert, settings.kafka_cert_key, password="")
        except (OSError, ssl.SSLError):
            raise BadFile(f"客户端证书不可用 · ORDERSTREAM_KAFKA_CERT: cannot use {settings.kafka_cert} and its key") from None
    return made


class _Brief(ssl.SSLObject):
    """TLS that says goodbye and does not wait for the answer.

    A fetch waits at Kafka when a consumer closes. Its answer comes between the two goodbyes, and the loop then waits out its
    30 s for the second one: at each start of a worker, and whenever it looks for a claim. Nobody waits for what a closed
    connection would still have said.
    """

    def unwrap(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            super().unwrap()


class _Password(str):
    """A password that is looked up whenever a connection is made, and shows as nothing.

    aiokafka keeps what it is given and encodes it for each authentication: a rotated password counts from the next
    connection on, without a restart.
    """

    __slots__ = ("_read",)
    _read: Callable[[], bytes]

    def __new__(cls, read: Callable[[], bytes]) -> Self:
        made = super().__new__(cls)
        made._read = read
        return made

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        del encoding, errors
        return self._read()


def _password_of(settings: Settings) -> Callable[[], bytes]:
    if settings.kafka_password_file is not None:
        return _File(settings.kafka_password_file)
    assert settings.kafka_password is not None
    secret = settings.kafka_password
    return lambda: secret.get_secret_value().encode()


class _File:
    """A secret in a file, read at each call; one that broke after the first keeps the last good one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = read_secret(path)

    def __call__(self) -> bytes:
        try:
            self._last = read_secret(self._path)
        except BadFile as error:
            log.warning("the last good password stays in force: %s", error.sentence)
        return self._last


async def examine(settings: Settings, address: str, seconds: float = EXAMINE_SECONDS) -> None:
    """Comes in as a client of this installation would, and leaves.

    Raises NoBroker where nobody answers, NotAdmitted with what to do where we are turned away, BadFile for our own files.
    """
    from aiokafka.conn import create_conn  # noqa: PLC0415  late: half a second of imports
    from aiokafka.errors import KafkaError  # noqa: PLC0415
    from aiokafka.protocol.metadata import MetadataRequest  # noqa: PLC0415

    host, _, port = address.strip().rpartition(":")
    options = client(settings)
    try:
        async with asyncio.timeout(seconds):
            connection = await create_conn(host.strip("[]"), int(port), request_timeout_ms=int(seconds * 1000), **options)
            try:
                # a Kafka that wants a user lets everybody ask for its versions, and hangs up at the next question
                await connection.send(MetadataRequest([]))
            finally:
                connection.close()
    except (KafkaError, OSError, TimeoutError, ValueError) as error:
        raise await _why(settings, address, error) from None


async def admit(settings: Settings, addresses: str, seconds: float = EXAMINE_SECONDS) -> None:
    """`examine` for a list of addresses: one that lets us in is enough; otherwise what the most telling one said."""
    troubles: list[UserError] = []
    for one in addresses.split(","):
        try:
            await examine(settings, one, seconds)
        except UserError as error:
            troubles.append(error)
        else:
            return
    raise next((trouble for trouble in troubles if not isinstance(trouble, NoBroker)), NoBroker(silent(addresses)))


def silent(address: str) -> str:
    """The sentence for a Kafka that does not answer."""
    return f"Kafka {address} 无响应 · no Kafka answers at {address}"


def denied(error: BaseException) -> NotAdmitted | None:
    """What to tell where Kafka said that this user may not; None for any other error."""
    from aiokafka import errors  # noqa: PLC0415

    refusals = (
        errors.TopicAuthorizationFailedError,
        errors.GroupAuthorizationFailedError,
        errors.ClusterAuthorizationFailedError,
    )
    if not isinstance(error, refusals):
        return None
    what = str(error.args[0]) if error.args else type(error).__name__
    return NotAdmitted(
        f"Kafka 用户没有权限（{what}）：检查 ORDERSTREAM_KAFKA_USER，或执行 orderstream broker secure"
        f" · this Kafka user may not ({what}): see ORDERSTREAM_KAFKA_USER, or run `orderstream broker secure`"
    )


def only_admin() -> NotAdmitted:
    """What to tell whoever tried what the administrator alone may do."""
    return NotAdmitted(
        "只有 Kafka 管理员可以这样做：用管理员证书（ORDERSTREAM_KAFKA_CERT，ORDERSTREAM_KAFKA_SECURITY=SSL）"
        " · only Kafka's administrator may: use its certificate (ORDERSTREAM_KAFKA_CERT, ORDERSTREAM_KAFKA_SECURITY=SSL)"
    )


def answers(address: str, timeout: float = 1.0, tls: ssl.SSLContext | None = None) -> bool:
    """True when a Kafka (not merely an open port) answers there within `timeout` seconds. tls: over TLS.

    Sends an ApiVersions request, which needs no user: a port accepts connections seconds before the broker behind it serves.
    """
    host, _, port = address.strip().rpartition(":")
    host = host.strip("[]")
    name = b"orderstream"
    request = struct.pack(">hhih", 18, 0, 7, len(name)) + name
    try:
        with contextlib.ExitStack() as open_until_here:
            connection = open_until_here.enter_context(socket.create_connection((host, int(port)), timeout=timeout))
            connection.settimeout(timeout)
            if tls is not None:
                connection = open_until_here.enter_context(tls.wrap_socket(connection, server_hostname=host))
            connection.sendall(struct.pack(">i", len(request)) + request)
            head = b""
            while len(head) < 10:
                part = connection.recv(10 - len(head))
                if not part:
                    return False
                head += part
    except OSError:
        return False
    _, correlation, error = struct.unpack(">iih", head)
    return bool(correlation == 7 and error == 0)


async def _why(settings: Settings, address: str, error: BaseException) -> UserError:
    from aiokafka import errors  # noqa: PLC0415

    if isinstance(error, errors.SaslAuthenticationFailed):
        return NotAdmitted(
            f"Kafka {address} 不接受用户或密码：检查 ORDERSTREAM_KAFKA_USER 与 ORDERSTREAM_KAFKA_PASSWORD_FILE"
            f" · Kafka {address} takes no such user and password: see ORDERSTREAM_KAFKA_USER, ORDERSTREAM_KAFKA_PASSWORD_FILE"
        )
    if isinstance(error, errors.UnsupportedSaslMechanismError):
        return NotAdmitted(
            f"Kafka {address} 不支持 {settings.kafka_mechanism}：改 ORDERSTREAM_KAFKA_MECHANISM"
            f" · Kafka {address} does not know {settings.kafka_mechanism}: set ORDERSTREAM_KAFKA_MECHANISM"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return NotAdmitted(
            f"Kafka {address} 的证书不可信（{error.verify_message}）：检查 ORDERSTREAM_KAFKA_CA 与主机名"
            f" · Kafka's certificate at {address} is not trusted ({error.verify_message}): see ORDERSTREAM_KAFKA_CA, the host's name"
        )
    plain, tls = await asyncio.gather(asyncio.to_thread(answers, address, 1.5), asyncio.to_thread(_speaks_tls, address, 1.5))
    if tls and settings.kafka_security == "PLAINTEXT":
        return NotAdmitted(
            f"Kafka {address} 只接受 TLS：设 ORDERSTREAM_KAFKA_SECURITY=SASL_SSL"
            f" · Kafka {address} wants TLS: set ORDERSTREAM_KAFKA_SECURITY=SASL_SSL"
        )
    if plain and settings.kafka_security != "PLAINTEXT":
        return NotAdmitted(
            f"Kafka {address} 没有加密：换加密端口，或设 ORDERSTREAM_KAFKA_SECURITY=PLAINTEXT"
            f" · Kafka {address} is in the clear: name its TLS port, or set ORDERSTREAM_KAFKA_SECURITY=PLAINTEXT"
        )
    if tls and settings.kafka_security == "SSL":
        return NotAdmitted(
            f"Kafka {address} 不接受这个连接：需要客户端证书（ORDERSTREAM_KAFKA_CERT），或用户密码（SASL_SSL）"
            f" · Kafka {address} wants a certificate (ORDERSTREAM_KAFKA_CERT) or a user (ORDERSTREAM_KAFKA_SECURITY=SASL_SSL)"
        )
    if tls:
        return NotAdmitted(
            f"Kafka {address} 不接受用户密码，可能要客户端证书：设 ORDERSTREAM_KAFKA_SECURITY=SSL，或换端口"
            f" · Kafka {address} takes no users on this port, perhaps certificates: ORDERSTREAM_KAFKA_SECURITY=SSL, or another port"
        )
    return NoBroker(silent(address))


def _speaks_tls(address: str, timeout: float) -> bool:
    """Whether a TLS server listens there, whoever it is: only to tell a person what is wrong, nothing is sent over it."""
    host, _, port = address.strip().rpartition(":")
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout) as plain, anybody.wrap_socket(plain):
            return True
    except OSError:
        return False
