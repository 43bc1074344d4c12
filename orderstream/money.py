"""Amounts: decimal text of a channel to integer minor units of an ISO 4217 currency.

Law: exact or refused. An amount with more decimals than its currency has, one that is not finite, or one past MAX_MINOR
is an AmountError, never a rounded value; money that does not add up is seen, not smoothed.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal, Inexact, InvalidOperation

_TWO = (
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP "
    "CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR "
    "JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN "
    "NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP "
    "SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG"
)
EXPONENT: dict[str, int] = {
    **dict.fromkeys(_TWO.split(), 2),
    **dict.fromkeys(
        ["BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"], 0
    ),
    **dict.fromkeys(["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"], 3),
}
"""Decimals of every ISO 4217 currency in use (list one of the standard, 2025)."""

MAX_MINOR = 10**14
"""A thousand billion yuan: past it an amount is a mistake, and sums would leave 63 bits."""


_EXACT = Context(prec=40, traps=[Inexact])
"""Arithmetic that refuses to round: the usual context keeps 28 digits and takes 1.00…001 for 1."""


class AmountError(ValueError):
    """The text is no exact, finite, non-negative amount of this currency."""


_PLAIN = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,3}))?")
"""Digits that no currency makes more than MAX_MINOR of."""


def plain(amount: Decimal | str | int, currency: str) -> int | None:
    """What `minor` gives of an amount as nearly all are written (12, 12.5, 12.50), at a third of the cost; None for any other."""
    match = _PLAIN.fullmatch(str(amount))
    if match is None:
        return None
    digits, part = EXPONENT[currency], match[2] or ""
    return int(match[1] + part.ljust(digits, "0")) if len(part) <= digits else None


def minor(amount: Decimal | str | int, currency: str) -> int:
    """Minor units of a decimal amount in major units; currency must be a key of EXPONENT.

    Raises AmountError for what is not finite, negative, too precise or too large.
    """
    quick = plain(amount, currency)
    if quick is not None:
        return quick
    try:
        value = amount if isinstance(amount, Decimal) else Decimal(amount)
    except (InvalidOperation, ValueError) as error:
        raise AmountError("is not a number") from error
    if not value.is_finite():
        raise AmountError("is not finite")
    if value < 0:
        raise AmountError("is below zero")
    if value.adjusted() > 20:
        raise AmountError("is too large")
    try:
        scaled = value.scaleb(EXPONENT[currency], _EXACT)
        whole = int(scaled)
        exact = whole == scaled
    except Inexact:
        exact = False
    if not exact:
        raise AmountError(f"has more decimals than {currency} knows")
    if whole > MAX_MINOR:
        raise AmountError("is too large")
    return whole


def major(amount: int, currency: str) -> str:
    """The decimal text of an amount in minor units, with all its decimals: 35800 CNY is "358.00"."""
    digits = EXPONENT.get(currency, 2)
    if digits == 0:
        return str(amount)
    sign = "-" if amount < 0 else ""
    whole, part = divmod(abs(amount), 10**digits)
    return f"{sign}{whole}.{part:0{digits}d}"
