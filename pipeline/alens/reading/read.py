"""`alens.read`: lenses and prompts -> what every head says at every position, in one call.

In: a lens directory or `hf://OWNER/NAME`, lenses that are open, or a `HeadReader`; one prompt or several. Out: a
`PageData`, which a notebook shows as the page of `alens read --html`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alens.errors import RequestError
from alens.heads import HeadNames
from alens.job.progress import Report, silent
from alens.lens.lenses import Lenses
from alens.reading.head_reader import HeadReader
from alens.reading.page_data import PageData
from alens.reading.page_reader import read_page
from alens.reading.prompts import Prompt, in_role
from alens.reading.settings import MIN_PROBABILITY, Rank, Role


def read(
    lenses: HeadReader | Lenses | Path | str,
    prompts: str | Prompt | Sequence[str | Prompt] = (),
    *,
    chat: Sequence[Any] = (),
    role: Role | None = None,
    layers: Sequence[int] | None = None,
    heads: HeadNames | None = None,
    positions: Sequence[int] | None = None,
    top: int = 8,
    rank: Rank | None = None,
    min_probability: float = MIN_PROBABILITY,
    terms: Sequence[str] = (),
    model: str | None = None,
    store: Path | str | None = None,
    device: str = "auto",
    report: Report = silent,
) -> PageData:
    """Read one prompt or several, at all positions by default.

    `chat` is a conversation, a list of messages such as {"role": "user", "content": "Hi"}, or a list of such lists, read
    behind the prompts as the chat template of the model puts it. With `role`, plain prompts are messages of that role.
    Each call loads the model, unless a `HeadReader` is given, which has it. `model`, `store` and `device` are as for
    `HeadReader`, the rest as for its `read`; `terms` are words. Lenses on the hub, and a model that these lenses name by
    its hub id, are fetched where the hub cache lacks them, as the command does; with HF_HUB_OFFLINE=1 nothing is.
    Raises `RequestError` like both.
    """
    if isinstance(lenses, HeadReader):
        if (model, store, device) != (None, None, "auto"):
            raise RequestError(
                "a HeadReader has its model loaded: give model, store and device to HeadReader(...), not to read"
            )
        reader = lenses
    else:
        reader = HeadReader(lenses, model=model, store=store, device=device, report=report)
    return read_page(
        reader,
        in_role([*_prompts(prompts), *_conversations(chat)], role),
        layers=layers,
        heads=heads,
        positions=positions,
        top=top,
        rank=rank,
        min_probability=min_probability,
        terms=reader.terms(terms),
        report=report,
    )


def _prompts(prompts: str | Prompt | Sequence[str | Prompt]) -> list[Prompt]:
    several = [prompts] if isinstance(prompts, str | Prompt) else prompts
    return [Prompt(text=one) if isinstance(one, str) else one for one in several]


def _conversations(chat: Sequence[Any]) -> list[Prompt]:
    """One conversation or several as prompts."""
    nested = bool(chat) and all(isinstance(one, list | tuple) for one in chat)
    several = chat if nested else [chat] if chat else []
    return [Prompt.chat(one, f"chat, conversation {number}") for number, one in enumerate(several, start=1)]
