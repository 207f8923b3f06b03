"""The text of `make real`: stories sampled from the model that reads them, so that anyone may ship them.

    python benchmarks/real/sample.py .real/smollm2 .real/stories.jsonl benchmarks/real/stories.parquet

In: SmolLM2-135M-Instruct, as `fetch.py` makes it. Out: a .jsonl of what the model answered (`ask`, `text`), which a second
run continues; and a .parquet of the stories that are kept, with the columns `text` (a paragraph a row) and `story` (the
number of the answer). Each answer is drawn at temperature 1 from the 95 % most probable mass, 420 tokens at most, 40 at a
time from a seed of their own, in float32 on one thread. So the same versions give the same text: `stories.parquet` here
was made with torch 2.13.0 and transformers 5.23.0 on a CPU, and says so in its metadata.

The asks name no person. Answers are left out that are short, go in circles, are not prose, or name what a text that is
shipped should not. Shapes: B answers, T tokens.
"""

import itertools
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers

KINDS = (
    "a short story", "a scene of a novel", "a letter", "a chapter of an adventure novel", "a dialogue",
    "a newspaper report", "a fairy tale", "a diary entry", "an essay", "a travel report", "an explanation for pupils",
    "a detective story",
)  # fmt: skip
WHO = (
    "a fisherman", "two sisters", "a young doctor", "an old teacher", "a lost dog", "a queen", "three soldiers",
    "a clockmaker", "a train conductor", "a painter", "a judge", "a baker and his daughter", "an astronomer", "a thief",
    "a farmer", "a nurse", "a sailor", "a gardener", "twins", "a widow", "a lighthouse keeper", "a pianist",
    "a beekeeper", "a mayor",
)  # fmt: skip
WHERE = (
    "in Paris", "in a small village", "on an island", "in the mountains", "in London at night", "by a river",
    "in a desert town", "on a ship", "in a library", "during a storm", "in winter", "in Rome", "at a market",
    "in an old house", "in the woods", "in Cairo", "at school", "in a hospital", "in New York", "at sea",
)  # fmt: skip

ANSWERS = 240
AT_ONCE = 40
NEW_TOKENS = 420

FEWEST_WORDS = 120
LEAST_NEW = 0.9
"""This share of the runs of four words in an answer must be new: loops repeat theirs."""
FEWEST_LETTERS = 0.9
"""This share of the characters that are not spaces must be letters: tables, code and lists of numbers have fewer."""

LEFT_OUT = re.compile(
    r"\b(?:sex\w*|rap(?:e|ed|es|ist)|suicid\w*|naked|nude\w*|porn\w*|whore\w*|bitch\w*|fuck\w*|shit\w*|seducti\w*"
    r"|sultry|slave\w*|racis\w*|gyps\w*|nazi\w*|jews?|jewish|muslims?|islam\w*|christians?|catholics?|allah|imam|jesus"
    r"|bible|terroris\w*|tortur\w*|corpses?|bloodlust|kill(?:s|ed|ing|er|ers)?|murder\w*|drugs?|cocaine|www|https?|@\w+"
    # Persons of today or of history, and figures of other people's books, whom the model named in some answer.
    r"|obama|trump|clinton|hitler|stalin|putin|einstein|edison|shakespeare|hugo|shelley|conan doyle|dickens|napoleon"
    r"|tom bradley|ellsworth|le pen|alex morgan|bundy|elvis|beethoven|mozart|picasso|van gogh|da vinci|musk"
    r"|jodorow\w*|world trade center|oakenshield|elrond|kraven|marvel|disney)\b",
    re.IGNORECASE,
)
"""What no text that is shipped should name. Blunt on purpose: a story more or less is nothing."""


def asks() -> list[str]:
    """What the model is asked for, in the order of the answers."""
    made = [f"Write {kind} about {who} {where}." for kind, who, where in itertools.product(KINDS, WHO, WHERE)]
    random.Random(0).shuffle(made)
    return made[:ANSWERS]


def answers(model: Path, skip: int) -> Iterator[list[dict[str, str]]]:
    """What the model answers, `AT_ONCE` at a time, without the first `skip`."""
    torch.set_num_threads(1)
    file = next(model.glob("*.gguf")).name
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model, gguf_file=file)
    tokenizer.padding_side = "left"
    writer: Any = transformers.AutoModelForCausalLM.from_pretrained(
        model, gguf_file=file, dtype=torch.float32
    ).eval()
    for start in range(skip, ANSWERS, AT_ONCE):
        torch.manual_seed(start)
        batch = asks()[start : start + AT_ONCE]
        chats = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": ask}], tokenize=False, add_generation_prompt=True
            )
            for ask in batch
        ]
        given = tokenizer(chats, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            ids_BT = writer.generate(
                **given, max_new_tokens=NEW_TOKENS, do_sample=True, temperature=1.0, top_p=0.95, top_k=0
            )
        new_BT = ids_BT[:, given["input_ids"].shape[1] :]
        yield [
            {"ask": ask, "text": tokenizer.decode(ids_T, skip_special_tokens=True)}
            for ask, ids_T in zip(batch, new_BT, strict=True)
        ]


def whole(text: str) -> str:
    """The text up to the end of its last sentence."""
    ends = list(re.finditer(r"[.!?][\"'\u201d\u2019)*]*(?=\s|$)", text))
    return text[: ends[-1].end()] if ends else ""


def is_kept(text: str) -> bool:
    """Whether an answer is a story of some length that may be shipped."""
    words = text.split()
    runs = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    letters = [letter.isalpha() for letter in text if not letter.isspace()]
    return (
        len(words) >= FEWEST_WORDS
        and len(set(runs)) >= LEAST_NEW * len(runs)
        and sum(letters) >= FEWEST_LETTERS * len(letters)
        and not LEFT_OUT.search(text)
    )


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a story, without empty ones."""
    return [" ".join(part.split()) for part in text.split("\n") if part.strip()]


def write(sampled: Path, stories: Path) -> None:
    """The stories that are kept, as parquet."""
    texts = [whole(json.loads(line)["text"]) for line in sampled.read_text().splitlines()]
    kept = [(part, story) for story, text in enumerate(texts) if is_kept(text) for part in paragraphs(text)]
    table = pa.table(
        {
            "text": pa.array([text for text, _ in kept], pa.string()),
            "story": pa.array([story for _, story in kept], pa.int32()),
        },
        metadata={
            "model": "SmolLM2-135M-Instruct, Q4_1, Apache-2.0",
            "made with": f"torch {torch.__version__}, transformers {transformers.__version__}",
        },
    )
    pq.write_table(table, stories, compression="zstd", compression_level=19)
    print(
        f"{stories}: {len(set(table['story'].to_pylist()))} of {len(texts)} stories, {len(kept):,} paragraphs"
    )


def main(model: Path, sampled: Path, stories: Path) -> None:
    """Sample what is not there yet, then write the stories that are kept."""
    sampled.touch()
    there = len(sampled.read_text().splitlines()) // AT_ONCE * AT_ONCE
    with sampled.open("a") as file:
        for batch in answers(model, there) if there < ANSWERS else ():
            file.writelines(json.dumps(answer) + "\n" for answer in batch)
            file.flush()
            print(f"{sampled}: {batch[-1]['ask']}", flush=True)
    write(sampled, stories)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"usage: {sys.argv[0]} MODEL SAMPLED.jsonl STORIES.parquet")
    main(*map(Path, sys.argv[1:]))
