"""What an installation has agreed on for its people: who must approve, and how long anybody may take. From the settings."""

from orderstream.board.consume import Limits
from orderstream.board.deadlines import Clock
from orderstream.board.decide import Terms
from orderstream.rules.model import duration
from orderstream.settings import Settings


def terms(settings: Settings) -> Terms:
    """What this installation asks of those who release."""
    return Terms(settings.board_approval_from, settings.board_two_approvers_from, settings.board_verify)


def clock(settings: Settings) -> Clock:
    """When whoever is told of a deadline is told, and what is done at its end."""
    return Clock(settings.board_at_deadline)


def limits(settings: Settings) -> Limits:
    """How long a person may take where the pack does not say."""
    return Limits(duration(settings.board_decide_within) or None)
