"""WeChat's sealed messages: what a secret holds, how a push is signed, how its message is encrypted and opened.

Law: nothing is decrypted before its signature is proved, and all that can be wrong inside (padding, lengths, another app's id) is
one answer, None. Reason: whoever is told which of them it was can read messages that are not his, a byte at a time.

A sealed message is base64 of AES-256-CBC over `16 random bytes | length of the message, 4 bytes big-endian | message | appid`,
filled up to a multiple of 32 (PKCS#7 with blocks of 32, where AES itself has 16); the key's first 16 bytes are the start vector.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

BLOCK = 32
_NOISE, _LENGTH = 16, 4
_KEY = re.compile(r"[A-Za-z0-9+/]{43}")
_TEXT = re.compile(r"[A-Za-z0-9_-]{1,64}")


class App(msgspec.Struct, frozen=True):
    """What a shop's secret holds. key: the 32 bytes that EncodingAESKey stands for."""

    appid: str
    token: str
    key: bytes

    def __repr__(self) -> str:
        return "App(***)"


def read(secret: bytes) -> App | None:
    """The app of a secret `appid:token:EncodingAESKey`; None for what is none."""
    parts = secret.decode("ascii", "replace").split(":")
    if len(parts) != 3 or not _TEXT.fullmatch(parts[0]) or not _TEXT.fullmatch(parts[1]) or not _KEY.fullmatch(parts[2]):
        return None
    # 43 characters are 258 bits: the last two say nothing, need not be 0, and a strict reader refuses them
    return App(parts[0], parts[1], binascii.a2b_base64(parts[2] + "="))


def signature(*parts: str) -> str:
    """What WeChat signs with: SHA-1, as hex, over the parts, sorted and joined."""
    return hashlib.sha1("".join(sorted(parts)).encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def opened(app: App, encrypted: str) -> bytes | None:
    """The message that a text holds for this app; None where it holds none."""
    try:
        data = base64.b64decode(encrypted.encode("ascii"), validate=True)
    except ValueError:
        return None
    if not data or len(data) % 16:
        return None
    decryptor = _cipher(app).decryptor()
    plain = decryptor.update(data) + decryptor.finalize()
    fill = plain[-1]
    filled = 1 <= fill <= BLOCK and hmac.compare_digest(plain[-fill:], bytes([fill]) * fill)
    end = len(plain) - (fill if filled else 0)
    start = _NOISE + _LENGTH
    stop = start + int.from_bytes(plain[_NOISE:start])
    whole = filled and start <= stop <= end
    own = hmac.compare_digest(plain[stop:end] if whole else b"", app.appid.encode())
    return plain[start:stop] if whole and own else None


def sealed(app: App, message: bytes, noise: bytes) -> str:
    """A message as the platform encrypts it. noise: 16 bytes, random wherever it matters."""
    plain = noise + len(message).to_bytes(_LENGTH) + message + app.appid.encode()
    fill = BLOCK - len(plain) % BLOCK
    encryptor = _cipher(app).encryptor()
    return base64.b64encode(encryptor.update(plain + bytes([fill]) * fill) + encryptor.finalize()).decode()


def _cipher(app: App) -> Cipher[modes.CBC]:
    return Cipher(algorithms.AES(app.key), modes.CBC(app.key[:16]))
