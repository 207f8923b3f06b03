"""Do lenses give the answer where it is known? Indirect objects, capitals, agreement: rank, probability, sign.

    python benchmarks/real/known_answers.py LENSES [LENSES ...] [--heads 23.0,24.4] [--model DIR]

Prompts are made here from tables of words; each has an answer and a foil, both a single token of the model's. For each
kind and head the table gives: KL(model, lens) in nats at the last position, the mean probability of the answer, the
median number of tokens that the lens finds more probable, and on how many prompts the lens puts the answer above the foil;
then the mean of what the head writes on the answer and on the foil, in logits, on how many prompts it raises each, and on
how many it knows the answer and suppresses it. The model itself stands in the first line of a kind. Prints Markdown.
"""

import argparse
import itertools
import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from alens import HeadReader, load_lenses

NAMES = [
    "Mary",
    "John",
    "Tom",
    "Anna",
    "James",
    "Sarah",
    "Peter",
    "Emma",
    "David",
    "Laura",
    "Paul",
    "Alice",
    "Mark",
    "Kate",
    "Simon",
    "Lucy",
]
GIVING = (
    "When {A} and {B} went to the store, {B} gave a drink to",
    "After {A} and {B} had lunch together, {B} handed the keys to",
    "While {A} and {B} were working at the office, {B} passed the report to",
    "Then {A} and {B} sat down in the garden, and {B} gave a flower to",
    "Yesterday {A} and {B} met at the station, where {B} sold a ticket to",
)
PAIRS = 60
"""How many pairs of names are asked for."""

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Russia": "Moscow", "Japan": "Tokyo",
    "China": "Beijing", "England": "London", "Greece": "Athens", "Egypt": "Cairo", "Austria": "Vienna",
    "Poland": "Warsaw", "Ireland": "Dublin", "Portugal": "Lisbon", "Cuba": "Havana", "Norway": "Oslo",
    "Iran": "Tehran", "Iraq": "Baghdad", "Peru": "Lima", "Kenya": "Nairobi", "Belgium": "Brussels", "Canada": "Ottawa",
}  # fmt: skip
ASKING = ("The capital of {} is the city of", "We flew to {} and landed in its capital city,")
FOIL = 7
"""The foil of a capital is the one so many places further on."""

SUBJECTS = ["key", "author", "dog", "picture", "farmer", "window", "letter", "teacher", "ship", "road"]
BETWEEN = ("to the cabinet{}", "near the house{}", "behind the tree{}")


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt whose next token is known."""

    kind: str
    prompt: str
    answer: str
    foil: str


def questions() -> list[Question]:
    """All prompts, by kind; the same in every run."""
    return [*_indirect_objects(), *_capitals(), *_agreement()]


def _indirect_objects() -> Iterator[Question]:
    pairs = list(itertools.permutations(NAMES, 2))
    random.Random(0).shuffle(pairs)
    for (a, b), text in zip(pairs[:PAIRS], itertools.cycle(GIVING), strict=False):
        yield Question(kind="indirect object", prompt=text.format(A=a, B=b), answer=f" {a}", foil=f" {b}")


def _capitals() -> Iterator[Question]:
    cities = list(CAPITALS.values())
    for place, (country, city) in enumerate(CAPITALS.items()):
        foil = cities[(place + FOIL) % len(cities)]
        for text in ASKING:
            yield Question(kind="capital", prompt=text.format(country), answer=f" {city}", foil=f" {foil}")


def _agreement() -> Iterator[Question]:
    """The noun between subject and verb has the other number."""
    for subject, between in itertools.product(SUBJECTS, BETWEEN):
        yield Question(
            kind="agreement", prompt=f"The {subject} {between.format('s')}", answer=" is", foil=" are"
        )
        yield Question(
            kind="agreement", prompt=f"The {subject}s {between.format('')}", answer=" are", foil=" is"
        )


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one reading says at the last position of one prompt."""

    kl: float
    probability: float
    above: int | None
    """How many tokens have a higher probability, among the listed ones. None: more than are listed."""
    right: bool
    """Whether the answer stands above the foil."""
    written: tuple[float, float] | None = None
    """What the head writes on the answer and on the foil, in logits. None for the model."""
    suppresses: bool = False
    """Whether the answer is marked as known and suppressed."""


LISTED = 1000
"""Tokens in a list: a rank beyond it counts as this one."""


def answers(reader: HeadReader, question: Question, heads: str | None) -> dict[str, Answer]:
    """By name of a head, and for `model`, what it says to a question."""
    terms = reader.terms([question.answer, question.foil])
    reading = reader.read(question.prompt, heads=heads, terms=terms, top=LISTED, rank="probability")
    (position,) = reading.positions
    target = reader.model.tokenizer.encode(question.answer, add_special_tokens=False).ids[0]
    listed = [score.id for score in reading.model[position]]
    yes, no = (score.probability for score in reading.model_terms[position])
    said = {"model": Answer(kl=0.0, probability=yes, above=_place(listed, target), right=yes > no)}
    for head in reading.heads:
        yes, no = (score.probability for score in head.lens_terms)
        said[f"{head.layer}.{head.head}"] = Answer(
            kl=head.lens_kl,
            probability=yes,
            above=_place([score.id for score in head.lens], target),
            right=yes > no,
            written=(head.written_terms[0].logit, head.written_terms[1].logit) if head.written else None,
            suppresses=head.written is not None and target in (one.id for one in head.written.suppressed),
        )
    return said


def _place(listed: list[int], token: int) -> int | None:
    return listed.index(token) if token in listed else None


def table(said: list[dict[str, Answer]]) -> Iterator[str]:
    """The lines of a table, one for the model and one for each head."""
    yield (
        "| head | KL, nats | probability | tokens above | above the foil | writes on the answer | raises it "
        "| on the foil | raises it | knows and suppresses the answer |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for name in said[0]:
        of_head = [by_name[name] for by_name in said]
        above = statistics.median(LISTED if one.above is None else one.above for one in of_head)
        yield (
            f"| {name} | {statistics.mean(one.kl for one in of_head):.2f} "
            f"| {statistics.mean(one.probability for one in of_head):.4f} "
            f"| {above:,.0f}{'+' if above >= LISTED else ''} | {sum(one.right for one in of_head)} of {len(of_head)} "
            f"| {_written(of_head)} |"
        )


def _written(of_head: list[Answer]) -> str:
    """The cells of what a head writes."""
    pairs = [one.written for one in of_head if one.written is not None]
    if not pairs:
        return "- | - | - | - | -"
    cells = [
        f"{statistics.mean(logits):+.2f} | {sum(logit > 0 for logit in logits)} of {len(logits)}"
        for logits in zip(*pairs, strict=True)
    ]
    return f"{' | '.join(cells)} | {sum(one.suppresses for one in of_head)} of {len(of_head)}"


def main() -> None:
    """Print a table for each lens directory and kind."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lenses", nargs="+", help="lens directories of one model")
    parser.add_argument("--heads", help="heads to ask, such as 23.0,24.4; all by default")
    parser.add_argument("--model", help="where the model lies, if not where the lenses say")
    args = parser.parse_args()
    for directory in args.lenses:
        reader = HeadReader(load_lenses(directory), model=args.model)
        for kind, asked in itertools.groupby(questions(), key=lambda question: question.kind):
            said = [answers(reader, question, args.heads) for question in asked]
            print(f"\n## {directory}: {kind}, {len(said)} prompts\n")
            print("\n".join(table(said)), flush=True)


if __name__ == "__main__":
    main()
