"""Figures: how well the line and its people do, as charts that one looks at, and as CSV.

Law: a number is counted by `board.figures` and only drawn here; of how many it is always said, and what is not known is a dash.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from orderstream import money, times
from orderstream.board import figures as counted
from orderstream.board.figures import Day, Share
from orderstream.board.web import picture
from orderstream.board.web.language import N_
from orderstream.board.web.site import Visit, enter

router = APIRouter(include_in_schema=False)
DAYS = 30

SHARES: tuple[tuple[str, str, str], ...] = (
    ("recognised", N_("Recognised"), N_("of the orders that turned out wrong, those that were held before they were out")),
    ("wrong_shipments", N_("Wrong shipments"), N_("of the orders shipped")),
    ("first_contact", N_("Settled by the first contact"), N_("of the orders whose customer was asked")),
    ("complaints", N_("Complaints"), N_("of all orders")),
    ("by_hand", N_("Decided by hand"), N_("of all orders")),
    (
        "needless",
        N_("Sales missed by needless holds"),
        N_("of the orders that people released, those that the customer then cancelled"),
    ),
)


class Panel(msgspec.Struct):
    """One figure: its value over all days, what it counts, and its days as a drawing."""

    title: str
    value: str
    counts: str
    chart: str


@router.get("/figures")
def page(request: Request) -> Response:
    """The last thirty days, campaigns, and how often each rule was right."""
    with enter(request, "figures") as visit:
        days = _days(visit)
        since, until = days[0].since, visit.now + 1
        rules = counted.precision(visit.db, since, until, visit.person.shops)
        return visit.page(
            "figures.html", panels=_panels(visit, days), rules=rules, campaigns=_campaigns(visit), shares=SHARES, today=days[-1]
        )


@router.get("/figures/days.csv")
def days_csv(request: Request) -> Response:
    """The days as CSV."""
    with enter(request, "figures") as visit:
        return _csv(counted.days_csv(_days(visit)), "days.csv")


@router.get("/figures/rules.csv")
def rules_csv(request: Request) -> Response:
    """The rules' precision as CSV."""
    with enter(request, "figures") as visit:
        since = visit.now - DAYS * times.DAY
        return _csv(counted.rules_csv(counted.precision(visit.db, since, visit.now + 1, visit.person.shops)), "rules.csv")


@router.get("/figures/campaigns.csv")
def campaigns_csv(request: Request) -> Response:
    """The campaigns as CSV."""
    with enter(request, "figures") as visit:
        return _csv(counted.days_csv(_campaigns(visit)), "campaigns.csv")


def _csv(text: str, name: str) -> Response:
    # by this mark a spreadsheet knows that it is UTF-8
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response("\ufeff" + text, media_type="text/csv; charset=utf-8", headers=headers)


def _days(visit: Visit) -> list[Day]:
    settings = visit.site.settings
    return counted.days(visit.db, settings.timezone, settings.currency, visit.now, DAYS, visit.person.shops)


def _campaigns(visit: Visit) -> list[Day]:
    """The campaigns that the catalogue names, one after the other: of two that overlap the one that began first."""
    periods: dict[str, tuple[int, int]] = {}
    for article in visit.site.articles.catalogue().articles(visit.now):
        for gift in article.gifts:
            if gift.campaign and gift.since and gift.until:
                periods[gift.campaign] = (times.parse(gift.since), times.parse(gift.until))
    kept: list[tuple[str, int, int]] = []
    for name, (since, until) in sorted(periods.items(), key=lambda one: (one[1], one[0])):
        if not kept or since >= kept[-1][2]:
            kept.append((name, since, until))
    return counted.campaigns(visit.db, visit.site.settings.currency, kept, visit.person.shops)


def _panels(visit: Visit, days: list[Day]) -> list[Panel]:
    out = []
    for field, title, of in SHARES:
        shares: list[tuple[str, Share]] = [(day.day, getattr(day, field)) for day in days]
        whole = Share(sum(one.n for _, one in shares), sum(one.of for _, one in shares))
        heading = visit.say(title)
        chart = picture.bars(
            [(day, None if one.share is None else round(100 * one.share, 1)) for day, one in shares], f"{heading} %", most=100
        )
        out.append(Panel(heading, _percent(whole), f"{whole.n} / {whole.of} · {visit.say(of)}", chart))
    currency = visit.site.settings.currency
    out += [
        _plain(visit, days, N_("Orders"), lambda day: day.orders, sum),
        _plain(
            visit,
            days,
            N_("Time to a decision, median (minutes)"),
            lambda day: None if day.decide_ms is None else day.decide_ms / 60_000,
            _mean,
        ),
        _plain(visit, days, N_("Money held now"), lambda day: _major(day.held_total, currency), sum),
        _plain(visit, days, N_("Money missed by needless holds"), lambda day: _major(day.lost_total, currency), sum),
    ]
    return out


def _plain(
    visit: Visit, days: list[Day], title: str, value: Callable[[Day], float | None], together: Callable[[list[float]], float]
) -> Panel:
    heading = visit.say(title)
    values = [(day.day, value(day)) for day in days]
    known = [one for _, one in values if one is not None]
    whole = f"{together(known):,.1f}".removesuffix(".0") if known else "—"
    return Panel(
        heading, whole, "", picture.bars([(day, None if one is None else round(one, 2)) for day, one in values], heading)
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _major(amount: int, currency: str) -> float:
    return float(money.major(amount, currency))


def _percent(share: Share) -> str:
    return "—" if share.share is None else f"{100 * share.share:.1f}%"
