"""Numbers as text, each kind in one form: for tables, pictures, pages and lines of a log.

In: a number, or None where it is not known. Out: a few characters. Counts need no function: `f"{count:,}"`.
"""

import math

UNKNOWN = "-"
"""Stands for a number that is not known."""

Interval = tuple[float, float]


def fixed(value: float | None, digits: int = 3) -> str:
    """`0.123`: nats, shares, areas and ratios, with this many digits after the point. Zero has no sign."""
    return UNKNOWN if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """`+0.123`: differences and effects. Zero is `+0.000`."""
    return UNKNOWN if value is None else f"{round(value, digits) + 0.0:+.{digits}f}"


def interval(ends: Interval | None, digits: int = 3, *, sign: bool = False) -> str:
    """`0.123 to 0.456`: the two ends of an interval or a range."""
    if ends is None:
        return UNKNOWN
    write = signed if sign else fixed
    return f"{write(ends[0], digits)} to {write(ends[1], digits)}"


def plus_minus(ends: Interval, digits: int = 3) -> str:
    """`±0.123`: half the width of an interval that lies evenly around its value."""
    return f"±{fixed((ends[1] - ends[0]) / 2, digits)}"


def significant(value: float | None, digits: int = 3) -> str:
    """`1.23`, `0.00123` or `1.2e-06`: numbers of any size, in plain digits where they fit."""
    if value is None:
        return UNKNOWN
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.{digits}g}"
    return f"{value:.{max(1, digits - 2)}e}"


def percent(share: float | None, unit: str = "%") -> str:
    """`12.3%`, `0.61%` or `<0.001%`: a share of one; small ones keep two digits that count.

    `unit` is empty where the heading of a column names it.
    """
    if share is None:
        return UNKNOWN
    if abs(share) >= 0.01:
        return f"{100 * share:.1f}{unit}"
    if abs(share) >= 1e-5:
        return f"{100 * share:.2g}{unit}"
    return f"0{unit}" if share == 0 else f"<0.001{unit}"


def percent_change(difference: float) -> str:
    """`+1.2%`: how far one share is above another."""
    return f"{'-' if difference < 0 else '+'}{percent(abs(difference))}"


def p_value(p: float | None, digits: int = 4) -> str:
    """`0.0123`, or `<0.0001` where all digits would be 0: no p-value is 0."""
    if p is None:
        return UNKNOWN
    text = f"{p:.{digits}f}"
    return f"<{10.0**-digits:.{digits}f}" if float(text) == 0.0 else text


def times(ratio: float | None) -> str:
    """`1.6x`, `0.045x` or `1,650x`: how many times as large; `>99,999x` and `<0.001x` beyond what can be read."""
    if ratio is None:
        return UNKNOWN
    if ratio >= 99_950:
        return ">99,999x"
    if ratio >= 10:
        return f"{float(f'{ratio:.3g}'):,.0f}x"
    if ratio >= 0.1:
        return f"{ratio:.1f}x"
    return f"{ratio:.2g}x" if ratio >= 1e-3 or ratio == 0 else "<0.001x"


def number_of(count: int, noun: str, nouns: str | None = None) -> str:
    """`1 layer` or `1,234 layers`: a count of things; `nouns` where the plural has no plain s."""
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"


def whole(value: float) -> str:
    """`1,234`: rates and counts that were measured."""
    return f"{value:,.0f}"


def tenths(value: float) -> str:
    """`1,234.5`: large numbers that are not whole, such as bytes a row."""
    return f"{value:,.1f}"


def perplexity(nats: float) -> str:
    """`31.97`: exp of a cross-entropy in nats."""
    return significant(math.exp(nats), 4)


def size(num_bytes: float) -> str:
    """`1.23 GB`: bytes; a GB is 10^9 of them."""
    for unit, worth in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= worth:
            short = num_bytes < 999.5 * worth
            return f"{num_bytes / worth:.3g} {unit}" if short else f"{num_bytes / worth:,.0f} {unit}"
    return f"{num_bytes:.0f} B"


def duration(seconds: float) -> str:
    """`8.8 s`, `1.1 min` or `2.3 h`: an estimate, or a time that was taken."""
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def clock(seconds: float) -> str:
    """`0:38` or `1:02:03`: a time that is left, or has passed."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{s:02d}" if hours else f"{minutes}:{s:02d}"
