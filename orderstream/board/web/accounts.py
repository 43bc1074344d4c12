"""Accounts: who somebody is, and that it is they.

Law: nothing that lets somebody in is kept as it is: passwords as argon2id, links, sessions and tokens as sha256 of 256 random
bits. There is no default password; a person begins with a link that works once. A wrong password says nothing about whether
the account is there, in words or in time. Times are ms UTC and come with the call.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Iterable
from typing import Any, Literal

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from orderstream import times
from orderstream.board.store import Db
from orderstream.board.web.roles import ROLES, Right, Sight, rights, sight

LEAST = 10
"""Characters of a password; longer than this it needs no rules about their kinds."""
MOST = 200
TRIES, TRIES_ANYWHERE = 5, 30
"""Wrong passwords for one account from one address, and from all of them, within LOCK: then nobody comes in from there till it is over."""
LOCK = 15 * times.MINUTE
INVITED = times.DAY
IDLE = 12 * times.HOUR
LONGEST = 7 * times.DAY
"""A session ends IDLE after its last page, and LONGEST after its first."""
TOKEN = "osb_"  # noqa: S105  what a token begins with
"""Before each API token, so that one that leaked is found by a search."""

_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
_turns = threading.BoundedSemaphore(4)
"""Hashing takes 19 MB and 20 ms each: so many at once, whoever asks."""


class AccountError(ValueError):
    """An account cannot be as it was asked for. sentence: in both languages, for whoever asked."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class Person(msgspec.Struct, frozen=True):
    """Somebody who is signed in. shops: `channel:shop`, empty for all. how: by password, link, oidc or token."""

    id: int
    login: str
    name: str
    roles: tuple[str, ...]
    shops: tuple[str, ...]
    language: str
    how: str = "password"
    reads_only: bool = False

    @property
    def rights(self) -> frozenset[Right]:
        """What they may do."""
        return rights(self.roles)

    @property
    def sight(self) -> Sight:
        """How much of a customer they see."""
        return sight(self.roles)

    def may(self, right: Right) -> bool:
        """Whether they may."""
        return right in self.rights


Refusal = Literal["wrong", "locked"]
_COLUMNS = "p.id, p.login, p.name, p.roles, p.shops, p.language"


def whence(key: bytes, address: str) -> str:
    """A client's address as it is kept: a keyed hash."""
    return hmac.new(key, address.encode(), hashlib.sha256).hexdigest()[:16]


# -- passwords ------------------------------------------------------------------------------------------------------------


def strong(login: str, password: str) -> None:
    """Raises AccountError where a password is too easy to guess."""
    if len(password) < LEAST:
        raise AccountError(f"密码至少 {LEAST} 个字符 · a password has at least {LEAST} characters")
    if len(password) > MOST:
        raise AccountError(f"密码最多 {MOST} 个字符 · a password has at most {MOST} characters")
    if len(set(password)) < 5 or (len(login) > 3 and login in password.lower()) or password.lower() in _COMMON:
        raise AccountError("密码太容易猜到，请换一个 · this password is too easy to guess")


_COMMON = frozenset({"1234567890", "12345678910", "qwertyuiop", "password123", "administrator", "letmein1234", "iloveyou123"})


def digest(password: str) -> str:
    """The argon2id hash to keep."""
    with _turns:
        return _hasher.hash(password)


def fits(kept: str | None, password: str) -> bool:
    """Whether a password is the one that is kept; takes as long where none is."""
    with _turns:
        try:
            return _hasher.verify(kept or _nobody(), password[:MOST]) and kept is not None
        except (VerificationError, InvalidHashError):
            return False


def _nobody() -> str:
    global _NOBODY  # noqa: PLW0603  made once, when first needed: 20 ms
    _NOBODY = _NOBODY or _hasher.hash(secrets.token_hex(16))
    return _NOBODY


_NOBODY = ""


def sign_in(db: Db, login: str, password: str, from_: str, now: int) -> Person | Refusal:
    """The person, or why not. from_: `whence` they come. A success forgets their failures from there."""
    login = login.strip().lower()[:200]
    since = now - LOCK
    row = db.execute(
        "SELECT count(*) FILTER (WHERE whence = %s) AS here, count(*) AS anywhere FROM board.failures WHERE login = %s AND at > %s",
        (from_, login, since),
    ).fetchone()
    assert row is not None
    if row["here"] >= TRIES or row["anywhere"] >= TRIES_ANYWHERE:
        return "locked"
    found = db.execute(
        f"SELECT {_COLUMNS}, p.hash FROM board.people p WHERE login = %s AND disabled_at IS NULL", (login,)
    ).fetchone()
    kept = None if found is None else found.pop("hash")
    if not fits(kept, password) or found is None:
        db.execute("INSERT INTO board.failures VALUES (%s, %s, %s)", (login, from_, now))
        db.execute("DELETE FROM board.failures WHERE at < %s", (now - times.DAY,))
        return "wrong"
    db.execute("DELETE FROM board.failures WHERE login = %s AND whence = %s", (login, from_))
    if _hasher.check_needs_rehash(str(kept)):
        db.execute("UPDATE board.people SET hash = %s WHERE id = %s", (digest(password), found["id"]))
    return _person(found)


# -- links that work once ---------------------------------------------------------------------------------------------------


def invite(
    db: Db, login: str, now: int, by: str, *, name: str | None = None, roles: Iterable[str] = (), shops: Iterable[str] = ()
) -> str:
    """A token for `/welcome/<token>`, good for a day and once; the person is made where they are not there yet.

    For one who is there it is how a forgotten password is replaced; roles and shops that are given replace theirs.
    Raises AccountError.
    """
    login = login.strip().lower()
    wanted, sold = sorted(set(roles)), sorted(set(shops))
    unknown = [role for role in wanted if role not in ROLES]
    if not login or unknown:
        raise AccountError(
            f"没有角色 {', '.join(unknown)} · no role {', '.join(unknown)}: {', '.join(ROLES)}"
            if login
            else "缺少登录名 · no login"
        )
    row = db.execute("SELECT id FROM board.people WHERE login = %s", (login,)).fetchone()
    if row is None:
        if not wanted:
            raise AccountError(f"{login} 还没有角色 · {login} needs a role: {', '.join(ROLES)}")
        row = db.execute(
            "INSERT INTO board.people (login, name, roles, shops, made_at, made_by) VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
            (login, name or login, wanted, sold, now, by),
        ).fetchone()
    elif wanted:
        db.execute("UPDATE board.people SET roles = %s, shops = %s, disabled_at = NULL WHERE id = %s", (wanted, sold, row["id"]))
    assert row is not None
    token = secrets.token_urlsafe(32)
    db.execute(
        "INSERT INTO board.invitations (hash, person, made_at, made_by, until) VALUES (%s, %s, %s, %s, %s)",
        (_hash(token), row["id"], now, by, now + INVITED),
    )
    return token


def invited(db: Db, token: str, now: int) -> Person | None:
    """Whose link it is; None where it was used, is too old or none of ours."""
    return _one(
        db,
        "board.invitations i JOIN board.people p ON p.id = i.person WHERE i.hash = %s AND i.used_at IS NULL AND i.until > %s",
        (_hash(token), now),
        "link",
    )


def accept(db: Db, token: str, password: str, now: int) -> Person | None:
    """Chooses a password by a link, which is used up then; None where it is not good any more. Raises AccountError."""
    person = invited(db, token, now)
    if person is None:
        return None
    strong(person.login, password)
    kept = digest(password)
    # of two that come with one link, one is first
    used = db.execute(
        "UPDATE board.invitations SET used_at = %s WHERE hash = %s AND used_at IS NULL RETURNING person", (now, _hash(token))
    ).fetchone()
    if used is None:
        return None
    # a new password ends whatever was open by the old one
    db.execute("DELETE FROM board.sessions WHERE person = %s", (person.id,))
    db.execute("UPDATE board.people SET hash = %s WHERE id = %s", (kept, person.id))
    return person


# -- sessions and tokens ----------------------------------------------------------------------------------------------------


def open_session(db: Db, person: Person, how: str, now: int) -> str:
    """The cookie of a new session."""
    cookie = secrets.token_urlsafe(32)
    db.execute(
        "INSERT INTO board.sessions VALUES (%s, %s, %s, %s, %s, %s)", (_hash(cookie), person.id, how, now, now, now + LONGEST)
    )
    db.execute("UPDATE board.people SET seen_at = %s WHERE id = %s", (now, person.id))
    db.execute("DELETE FROM board.sessions WHERE until < %s OR seen_at < %s", (now, now - IDLE))
    return cookie


def of_session(db: Db, cookie: str, now: int) -> Person | None:
    """Who is signed in by a cookie; seen_at moves at most once a minute."""
    key = _hash(cookie)
    row = db.execute(
        f"SELECT {_COLUMNS}, s.how, s.seen_at FROM board.sessions s JOIN board.people p ON p.id = s.person"
        " WHERE s.hash = %s AND s.until > %s AND s.seen_at > %s AND p.disabled_at IS NULL",
        (key, now, now - IDLE),
    ).fetchone()
    if row is None:
        return None
    if now - row.pop("seen_at") > times.MINUTE:
        db.execute("UPDATE board.sessions SET seen_at = %s WHERE hash = %s", (now, key))
    return _person(row, row.pop("how"))


def close_session(db: Db, cookie: str) -> None:
    """Ends it."""
    db.execute("DELETE FROM board.sessions WHERE hash = %s", (_hash(cookie),))


def make_token(db: Db, person: Person, name: str, days: int, now: int, *, reads_only: bool) -> str:
    """A token for the HTTP API with this person's rights, shown once. days: 1 to 365. Raises AccountError."""
    if not name.strip() or not 1 <= days <= 365:
        raise AccountError("令牌要有名称，有效期 1 到 365 天 · a token has a name, and 1 to 365 days")
    token = TOKEN + secrets.token_urlsafe(32)
    db.execute(
        "INSERT INTO board.tokens (hash, person, name, reads_only, made_at, until) VALUES (%s, %s, %s, %s, %s, %s)",
        (_hash(token), person.id, name.strip()[:80], reads_only, now, now + days * times.DAY),
    )
    return token


def of_token(db: Db, token: str, now: int) -> Person | None:
    """Whose API token it is."""
    row = db.execute(
        f"SELECT {_COLUMNS}, t.reads_only, t.seen_at, t.id AS token FROM board.tokens t JOIN board.people p ON p.id = t.person"
        " WHERE t.hash = %s AND t.until > %s AND t.revoked_at IS NULL AND p.disabled_at IS NULL",
        (_hash(token), now),
    ).fetchone()
    if row is None:
        return None
    seen, number = row.pop("seen_at"), row.pop("token")
    if seen is None or now - seen > times.MINUTE:
        db.execute("UPDATE board.tokens SET seen_at = %s WHERE id = %s", (now, number))
    reads_only = row.pop("reads_only")
    return _person(row, "token", reads_only=reads_only)


def tokens(db: Db, person: Person) -> list[dict[str, Any]]:
    """A person's tokens that are good, newest first; never the tokens themselves."""
    return db.execute(
        "SELECT id, name, reads_only, made_at, until, seen_at FROM board.tokens"
        " WHERE person = %s AND revoked_at IS NULL ORDER BY id DESC",
        (person.id,),
    ).fetchall()


def revoke(db: Db, person: Person, number: int, now: int) -> None:
    """Ends one of a person's tokens."""
    db.execute(
        "UPDATE board.tokens SET revoked_at = %s WHERE id = %s AND person = %s AND revoked_at IS NULL", (now, number, person.id)
    )


# -- people -----------------------------------------------------------------------------------------------------------------


def of_subject(db: Db, subject: str, login: str | None) -> Person | None:
    """Who has an OIDC account: by issuer and subject, or, the first time, by the login that their provider vouches for."""
    found = _one(db, "board.people p WHERE p.subject = %s AND p.disabled_at IS NULL", (subject,), "oidc")
    if found is not None or not login:
        return found
    bound = db.execute(
        "UPDATE board.people SET subject = %s WHERE login = %s AND subject IS NULL AND disabled_at IS NULL RETURNING id",
        (subject, login.strip().lower()),
    ).fetchone()
    return None if bound is None else _one(db, "board.people p WHERE p.id = %s", (bound["id"],), "oidc")


def people(db: Db) -> list[dict[str, Any]]:
    """Everybody, those who are disabled last."""
    return db.execute(
        "SELECT id, login, name, roles, shops, language, made_at, made_by, seen_at, disabled_at,"
        " hash IS NOT NULL OR subject IS NOT NULL AS begun FROM board.people ORDER BY disabled_at IS NOT NULL, login"
    ).fetchall()


def disable(db: Db, login: str, now: int, *, on: bool) -> None:
    """Shuts somebody out at once, or lets them in again."""
    db.execute("UPDATE board.people SET disabled_at = %s WHERE login = %s", (now if on else None, login))
    if on:
        db.execute("DELETE FROM board.sessions s USING board.people p WHERE p.id = s.person AND p.login = %s", (login,))


def speak(db: Db, person: Person, language: str) -> None:
    """Keeps the language that somebody chose."""
    db.execute("UPDATE board.people SET language = %s WHERE id = %s", (language, person.id))


def change(db: Db, person: Person, password: str, cookie: str) -> None:
    """Another password; every session of theirs but this one ends. Raises AccountError."""
    strong(person.login, password)
    db.execute("UPDATE board.people SET hash = %s WHERE id = %s", (digest(password), person.id))
    db.execute("DELETE FROM board.sessions WHERE person = %s AND hash <> %s", (person.id, _hash(cookie)))


def guard(cookie: str) -> str:
    """The CSRF token of a session: only a page that we made for it can say it."""
    return hashlib.sha256(b"guard\0" + cookie.encode()).hexdigest()


def _one(db: Db, where: str, values: tuple[Any, ...], how: str) -> Person | None:
    row = db.execute(f"SELECT {_COLUMNS} FROM {where}", values).fetchone()
    return None if row is None else _person(row, how)


def _person(row: dict[str, Any], how: str = "password", *, reads_only: bool = False) -> Person:
    return Person(
        row["id"], row["login"], row["name"], tuple(row["roles"]), tuple(row["shops"]), row["language"], how, reads_only
    )


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
