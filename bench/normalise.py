"""CPU of the normaliser an order, and of an address: the simulated peak in process, no Kafka.

    python -m bench.normalise [--orders 3000] [--rounds 7]

Prints medians over the rounds, in µs of CPU. Each round has other buyers, so that no cache knows their addresses.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from orderstream import identity, times
from orderstream.catalogue import Catalogue, read_article
from orderstream.channels import registry
from orderstream.identity import Keys
from orderstream.normalise import Books, Normaliser
from orderstream.orders import Order, Raw
from orderstream.replay import read_file
from orderstream.rules import pack
from orderstream.rules.book import PackBook
from orderstream.settings import data_file
from orderstream.simulators import make, write_catalogue, write_replay

START = times.parse("2026-11-11T20:00:00+08:00")
KEYS = Keys(b"bench")


def raws(orders: int, seed: int, folder: Path) -> list[Raw]:
    """The raw records of one peak."""
    scenario = make(orders, rate=50, start=START, seed=seed, first_buyer=seed * 1_000_000)
    write_replay(folder / "replay.jsonl", scenario)
    write_catalogue(folder / "catalogue.jsonl", scenario)
    return [item for item in read_file(folder / "replay.jsonl", KEYS, "CNY") if isinstance(item, Raw)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    book = PackBook([pack.load(data_file("rules/standard"))])
    per_order: list[float] = []
    per_address: list[float] = []
    with TemporaryDirectory() as folder:
        for seed in range(1, given.rounds + 1):
            records = raws(given.orders, seed, Path(folder))
            catalogue = Catalogue(read_article(line) for line in (Path(folder) / "catalogue.jsonl").read_bytes().splitlines())
            normaliser = Normaliser(Books(catalogue, book.at), KEYS)
            began = time.process_time_ns()
            for position, raw in enumerate(records):
                normaliser.process(raw, position, raw.received_at)
            per_order.append((time.process_time_ns() - began) / len(records) / 1000)
            strangers = raws(given.orders, seed + given.rounds, Path(folder))
            orders = [o for raw in strangers if isinstance(o := registry()[raw.channel].parse(raw), Order)]
            addresses = [o.ship_to for o in orders if o.ship_to is not None]
            began = time.process_time_ns()
            for address in addresses:
                identity.address(address)
            per_address.append((time.process_time_ns() - began) / len(addresses) / 1000)
    print(f"normalise: {statistics.median(per_order):.1f} µs an order ({min(per_order):.1f} to {max(per_order):.1f})")
    print(f"address: {statistics.median(per_address):.1f} µs each ({min(per_address):.1f} to {max(per_address):.1f})")


if __name__ == "__main__":
    main()
