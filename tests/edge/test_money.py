"""Amounts are exact or refused."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderstream.money import MAX_MINOR, AmountError, minor


@pytest.mark.parametrize("digits", [27, 28, 29, 60, 10_000])
def test_a_trace_too_much_is_refused_however_far_behind(digits: int) -> None:
    """A fraction past what arithmetic keeps (28 digits) is no whole amount, as a string and as a Decimal."""
    amount = "1." + "0" * digits + "1"
    for given_as in (amount, Decimal(amount)):
        with pytest.raises(AmountError, match="more decimals than CNY"):
            minor(given_as, "CNY")


@pytest.mark.parametrize(
    ("amount", "currency", "expected"),
    [("1." + "0" * 10_000, "CNY", 100), ("0E-50", "CNY", 0), ("1E3", "CNY", 100_000), ("12E-1", "BHD", 1200), ("7", "JPY", 7)],
)
def test_how_it_is_written_does_not_matter(amount: str, currency: str, expected: int) -> None:
    """Zeros behind the point and exponents change no amount."""
    assert minor(amount, currency) == expected


@given(st.integers(0, MAX_MINOR), st.sampled_from(["CNY", "JPY", "BHD"]), st.integers(0, 40))
def test_what_is_exact_comes_back(amount: int, currency: str, zeros: int) -> None:
    """Every amount up to the limit is read to the last unit, whatever zeros follow it."""
    places = {"CNY": 2, "JPY": 0, "BHD": 3}[currency]
    text = f"{amount // 10**places}." + (f"{amount % 10**places:0{places}d}" if places else "") + "0" * zeros

    assert minor(text + ("0" if text.endswith(".") else ""), currency) == amount


@pytest.mark.parametrize("amount", [str(MAX_MINOR // 100) + ".01", "1e21", "9" * 500, "NaN", "-Infinity", "-0.01", "x", ""])
def test_what_is_no_amount_is_refused(amount: str) -> None:
    """Too large, not finite, below zero or no number."""
    with pytest.raises(AmountError):
        minor(amount, "CNY")
