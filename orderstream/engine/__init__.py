"""Faust, hardened: batches, effects in a safe order, memory in the broker. Nothing here knows what an order is."""

from orderstream.engine.app import Engine, EngineApp, NotCopartitioned, Tuning, attach, make_app, run
from orderstream.engine.changelog import Fenced
from orderstream.engine.hop import Effects, Headers, Hop, Record, Send, State, archive_topic, changelog_topic
from orderstream.engine.partitioner import partition_for
from orderstream.engine.reference import Reference
from orderstream.engine.topics import TopicsUnfit, check_topics
from orderstream.engine.watch import Watch

__all__ = [
    "Effects",
    "Engine",
    "EngineApp",
    "Fenced",
    "Headers",
    "Hop",
    "NotCopartitioned",
    "Record",
    "Reference",
    "Send",
    "State",
    "TopicsUnfit",
    "Tuning",
    "Watch",
    "archive_topic",
    "attach",
    "changelog_topic",
    "check_topics",
    "make_app",
    "partition_for",
    "run",
]
