"""Which heads of a reading are worth a look, the first ones first.

In: a `Reading`, and what to sort by. Out: its heads at a position in that order, and the number that each is sorted by.
A head without that number comes last.
"""

from alens.errors import RequestError
from alens.reading.result import HeadReading, Reading, Written
from alens.reading.settings import Sort


def default_sort(reading: Reading) -> Sort:
    """By what the heads do to the output where that is known, else by how well their lenses read it."""
    if any(head.effect is not None for head in reading.heads):
        return "effect"
    if reading.no_write is None:
        return "written"
    return "kl" if None in reading.mean_output_kl.values() else "gain"


def check(sort: Sort | None, *, has_effects: bool, no_write: str | None, has_mean: bool, terms: bool) -> None:
    """Raises `RequestError` where there is nothing to sort by."""
    if sort == "effect" and not has_effects:
        raise RequestError("--sort effect needs effect lenses: name them with --effect")
    if sort == "written" and no_write is not None:
        raise RequestError(f"there is no write to sort by: {no_write}")
    if sort == "gain" and not has_mean:
        raise RequestError("these lenses lack the model's mean output (they were imported): sort by kl")
    if sort == "token" and not terms:
        raise RequestError("--sort token needs a token: name it with --token")


def in_order(reading: Reading, position: int, sort: Sort) -> list[HeadReading]:
    """The heads at `position`; those that are sorted alike stay in the order of layers."""
    heads = [head for head in reading.heads if head.position == position]
    if sort == "layer":
        return heads

    def last_first(head: HeadReading) -> tuple[bool, float]:
        number = _number(head, reading.mean_output_kl[position], sort)
        return number is None, 0.0 if number is None else -number

    return sorted(heads, key=last_first)


def gain(head: HeadReading, mean_output_kl: float | None) -> float | None:
    """By how many nats the lens is nearer to the model than the mean output; None where that is not known."""
    return None if mean_output_kl is None else mean_output_kl - head.lens_kl


def largest(added: Written | None) -> float | None:
    """The logit of the token that a head moves most, signed; None where that is not known."""
    if added is None:
        return None
    return max((one.logit for one in (*added.raised, *added.lowered)), key=abs, default=None)


def _number(head: HeadReading, mean_output_kl: float | None, sort: Sort) -> float | None:
    """Large for a head that comes first."""
    if sort == "kl":
        return -head.lens_kl
    if sort == "gain":
        return gain(head, mean_output_kl)
    if sort == "token":
        terms = head.effect_terms or head.written_terms
        return abs(terms[0].logit) if terms else head.lens_terms[0].probability
    size = largest(head.effect if sort == "effect" else head.written)
    return None if size is None else abs(size)
