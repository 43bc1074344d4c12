"""The line composed, in process: what the agents do hop by hop, as one function of records.

Law: here and in the agents run the same Normaliser, Detector and Router; this module only carries what one says to the
next. The kernel does not know whether it is live or in a backtest; that is how the backtest cannot lie.
"""

from __future__ import annotations

from collections.abc import Iterator

from orderstream.catalogue import Catalogue
from orderstream.detect import Detector
from orderstream.facts import Answers, Mail, News, Outcome, batch
from orderstream.identity import Keys
from orderstream.normalise import Books, Normaliser
from orderstream.orders import Raw
from orderstream.replay import Item
from orderstream.route import Public, Router
from orderstream.rules.book import PackBook
from orderstream.verdict import Line, Rejects, complete, judge, rejected_line


class Pipeline:
    """One normaliser, one detector, one router. zone: IANA name of the shop's calendar day."""

    def __init__(self, catalogue: Catalogue, book: PackBook, keys: Keys, zone: str) -> None:
        self._book = book
        self._normaliser = Normaliser(Books(catalogue, book.at), keys)
        self._detector = Detector(book.pack, zone)
        self._router = Router(book.pack)
        self._rejects = Rejects()
        self._position = 0
        self.skipped = 0

    def feed(self, item: Item) -> list[Public]:
        """Takes one record in; what would go to public topics because of it."""
        if isinstance(item, Raw):
            return self._raw(item)
        if isinstance(item, Outcome):
            return self._route([(item.order, [item])])
        news: dict[str, list[News]] = {}
        for update in item:
            news.setdefault(update.entity, []).append(update)
        return self._route(self._answers(news))

    def _route(self, mail: list[Mail]) -> list[Public]:
        """What follows from mail, and from what entities have to say of what they are told because of it."""
        out = self._router.process(mail, 0)
        while lessons := self._router.lessons():
            out += self._router.process(self._answers(lessons), 0)
        return out

    def _raw(self, raw: Raw) -> list[Public]:
        self._position += 1
        done = self._normaliser.process(raw, self._position, 0)
        if done.skipped is not None:
            self.skipped += 1
        if done.rejected is not None:
            line = rejected_line(done.rejected.order_id, done.rejected.sentence, done.rejected.pack)
            self._rejects.add(raw.received_at, line)
        self._normaliser.orders.cool(2)
        told: list[Mail] = [] if done.dossier is None else [(done.dossier.order, [done.dossier])]
        return self._route([*told, *self._answers({entity: [fact] for entity, fact in done.facts.items()})])

    def _answers(self, news: dict[str, list[News]]) -> list[Mail]:
        if not news:
            return []
        answers = self._detector.process(batch(0, self._normaliser.progress, news))
        return [(order, [Answers(by)]) for order, by in answers.items()]

    def verdicts(self) -> Iterator[Line]:
        """The final verdict of every order and reject so far, by order id. An order goes before a reject of its id."""
        lines = self._rejects.lines()
        for order in self._router.cases:
            case = self._router.cases.peek(order)
            dossier = case.dossier if case is not None else None
            if case is not None and dossier is not None and complete(dossier, case.answers):
                lines[case.order] = judge(dossier, case.answers, self._book.pack(dossier.pack), case.shipped_at).line
        for order in sorted(lines):
            yield lines[order]
