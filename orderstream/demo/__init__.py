"""`orderstream demo`: a live-stream peak on a real Kafka, with every incident of the articles, and the score at its end."""

from orderstream.demo.runner import run
from orderstream.demo.tally import Summary, Tally

__all__ = ["Summary", "Tally", "run"]
