"""Errors that a user can act on: one sentence, one exit code each.

Law: what is missing around us (a broker, Java, a free port, a fit file) is a UserError, and the command line prints its
sentence and nothing else; whatever is not a UserError is a bug. Reason: an on-call person at three in the morning acts on
a sentence and a script on an exit code; neither can read a traceback.

A sentence is Chinese first, then English, on one line: `中文 · English`. It never carries a secret.
"""

# ruff: noqa: N818  they are named for what is wrong; none is caught as an "Error"
from __future__ import annotations

from typing import ClassVar


class UserError(Exception):
    """Something that the user can put right. exit_code: distinct per class, stable, documented by `orderstream --help`."""

    exit_code: ClassVar[int] = 1

    def __init__(self, sentence: str, exit_code: int | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.code = self.exit_code if exit_code is None else exit_code


class BadSettings(UserError):
    """An environment variable or the secrets file cannot be used."""

    exit_code = 3


class NoBroker(UserError):
    """No Kafka answers where one should."""

    exit_code = 4


class NoRuntime(UserError):
    """Nothing here can run a Kafka: no Docker engine, no Java 17+, or no Maven to fetch its jars."""

    exit_code = 5


class PortTaken(UserError):
    """Another program listens on the port that we were told to use."""

    exit_code = 6


class TopicsUnfit(UserError):
    """The broker's topics are missing or have the wrong partition counts."""

    exit_code = 7


class BadPack(UserError):
    """A rule pack does not load, or its examples fail."""

    exit_code = 8


class BadFile(UserError):
    """A file that we were given is missing, unreadable or not of its format."""

    exit_code = 9


class BrokerFailed(UserError):
    """A broker was started and did not come up."""

    exit_code = 10


class NoDatabase(UserError):
    """No PostgreSQL answers where one should."""

    exit_code = 11


class NotInstalled(UserError):
    """A part of the installation is missing."""

    exit_code = 12


class RunFailed(UserError):
    """A run came to its end and its result is not what it must be (orders lost, verdicts that differ)."""

    exit_code = 13


class NotAdmitted(UserError):
    """Kafka is there and turns us away: its certificate, our user and password, or a right that is missing."""

    exit_code = 14


BUG = 70
"""Exit code of what is not a UserError (EX_SOFTWARE)."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells expect it."""

CODES: tuple[type[UserError], ...] = (
    BadSettings,
    NoBroker,
    NoRuntime,
    PortTaken,
    TopicsUnfit,
    BadPack,
    BadFile,
    BrokerFailed,
    NoDatabase,
    NotInstalled,
    RunFailed,
    NotAdmitted,
)
"""Every class of them, in the order of its exit code; 2 is the command line's own (wrong usage)."""
