"""Conversations as prompts, by the chat template of a tokenizer: text, turns, tokens, and refusals in one line."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import alens
from alens import HeadReader, Prompt, demo
from alens.errors import RequestError
from alens.reading.chat import read_chat
from alens.reading.prompts import text_of, tokens_of

from ..outcomes import refusal

END = "<|endoftext|>"
TEMPLATE = """\
{%- for message in messages %}
{%- if message.role not in ("system", "user", "assistant") %}{{ raise_exception("no role " + message.role) }}{% endif %}
{%- if loop.first and message.role != "system" %}{{ "<|endoftext|>system: be kind\\n" }}{% endif %}
{{- "<|endoftext|>" + message.role + ": " + message.content + "\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|endoftext|>assistant:" }}{% endif %}"""

ASK = {"role": "user", "content": "He took her hand and"}
REPLY = {"role": "assistant", "content": "kissed it. He"}


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's model as a chat model."""
    folder = tmp_path_factory.mktemp("chat") / "model"
    shutil.copytree(demo.MODEL, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def reader(demo_lenses: Path, chat_model: Path) -> HeadReader:
    return HeadReader(demo_lenses, model=str(chat_model), device="cpu")


def by_transformers(folder: Path, messages: list[dict[str, str]]) -> str:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def turns(text: str, starts: Any) -> list[tuple[str, str]]:
    """Name and text of each turn."""
    ends = [turn.start for turn in starts[1:]] + [None]
    return [(turn.name, text[turn.start : end]) for turn, end in zip(starts, ends, strict=True)]


def test_a_conversation_ends_where_the_answer_begins(reader: HeadReader, chat_model: Path) -> None:
    text, starts = text_of(reader, Prompt.chat([ASK, REPLY, ASK]))
    assert text == by_transformers(chat_model, [ASK, REPLY, ASK])
    assert turns(text, starts) == [
        ("template", f"{END}system: be kind\n"),
        ("user", f"{END}user: He took her hand and\n"),
        ("assistant", f"{END}assistant: kissed it. He\n"),
        ("user", f"{END}user: He took her hand and\n"),
        ("assistant", f"{END}assistant:"),
    ]


def test_a_last_message_of_the_assistant_is_left_open(reader: HeadReader) -> None:
    text, starts = text_of(reader, Prompt.chat([{"role": "system", "content": "Be brief."}, ASK, REPLY]))
    assert turns(text, starts) == [
        ("system", f"{END}system: Be brief.\n"),
        ("user", f"{END}user: He took her hand and\n"),
        ("assistant", f"{END}assistant: kissed it. He"),
    ]


def test_a_plain_prompt_takes_a_role(reader: HeadReader, chat_model: Path) -> None:
    text, _ = text_of(reader, Prompt(text="Hello", role="user"))
    assert text == by_transformers(chat_model, [{"role": "user", "content": "Hello"}])


def test_special_tokens_are_tokens_and_a_page_has_the_turns(reader: HeadReader) -> None:
    page = alens.read(reader, "Hello", chat=[ASK], positions=[-1], top=2)
    plain, prompt = page.prompts
    assert (plain["text"], plain["turns"]) == ("Hello", [])
    tokens = [page.tokens[index][0] for index in prompt["tokens"]]
    assert [name for name, _ in prompt["turns"]] == ["template", "user", "assistant"]
    assert [tokens[start] for _, start in prompt["turns"]] == [END] * 3 and tokens.count(END) == 3
    assert "".join(tokens) == prompt["text"]


def test_a_template_that_begins_with_bos_gets_no_second_one(
    reader: HeadReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    bos = reader.model.tokenizer.token_to_id(END)
    monkeypatch.setattr(reader.lenses, "record", dataclasses.replace(reader.lenses.record, bos=bos))
    ids = tokens_of(reader, Prompt.chat([ASK]))
    assert ids[0] == bos and ids[1] != bos
    (prompt,) = alens.read(reader, chat=[ASK], positions=[-1], heads="3.1").prompts
    assert prompt["turns"][0] == ["template", 0]


def test_a_tokenizer_without_a_template_is_refused(demo_lenses: Path) -> None:
    with pytest.raises(
        RequestError, match=r"^the tokenizer in \S+ has no chat template: give prompts as plain text"
    ):
        alens.read(demo_lenses, "Hello", role="user", device="cpu")


def test_what_a_template_refuses_is_said_in_a_line(reader: HeadReader) -> None:
    with pytest.raises(RequestError, match=r"refuses chat, conversation 2: .*no role tool"):
        alens.read(reader, chat=[[ASK], [{"role": "tool", "content": "x"}]])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "chat.json is not JSON"),
        ("[]", "chat.json is not a list of messages: write"),
        ('{"role": "user"}', "chat.json is not a list of messages"),
        ("[[], []]", "chat.json, conversation 1 is not a list of messages"),
        ('[{"role": "user"}]', "chat.json, message 1 has no content: write"),
        ('[[{"role": "user", "content": "x"}], [{"content": "x"}]]', "chat.json, conversation 2, message 1 has no role"),
        ('["Hello"]', "chat.json, message 1 has no role"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_refused(content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    path.write_text(content)
    with pytest.raises(RequestError) as refused:
        read_chat(path)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_read_takes_files_of_conversations_and_a_role(
    demo_lenses: Path, chat_model: Path, reader: HeadReader, tmp_path: Path, run_alens: Any
) -> None:
    file = tmp_path / "chat.json"
    file.write_text(json.dumps([[ASK], [ASK, REPLY]]))
    outcome = run_alens(
        "read", demo_lenses, "Hello", "--chat", file, "--role", "user", "--model", chat_model, "--json"
    )
    assert outcome.code == 0, outcome.stderr
    asked = [Prompt(text="Hello", role="user"), Prompt.chat([ASK]), Prompt.chat([ASK, REPLY])]
    assert [one["prompt"] for one in json.loads(outcome.stdout)] == [text_of(reader, one)[0] for one in asked]
    assert refusal(run_alens("read", demo_lenses)).startswith(
        "no prompt was given: write one, or name a file"
    )


@pytest.mark.slow
def test_the_other_commands_apply_the_template_too(
    demo_lenses: Path, chat_model: Path, reader: HeadReader, tmp_path: Path, run_alens: Any
) -> None:
    words = {"men": ("man", "boy", "king"), "women": ("woman", "girl", "queen")}
    for name, nouns in words.items():
        chats = [[{"role": "user", "content": f"The {noun} said that"}] for noun in nouns]
        (tmp_path / f"{name}.json").write_text(json.dumps(chats))
        (tmp_path / f"{name}.txt").write_text("".join(f"{chat[0]['content']}\n" for chat in chats))
    (tmp_path / "terms.txt").write_text("he\n")

    def result(*words: object) -> Any:
        outcome = run_alens(*words, "--model", chat_model, "--device", "cpu", "--json")
        assert outcome.code == 0, outcome.stderr
        return json.loads(outcome.stdout)

    men, women = tmp_path / "men", tmp_path / "women"
    locate = ("locate", demo_lenses, "--terms", tmp_path / "terms.txt", "--permutations", "19")
    chats = result(*locate, "--chat", f"{men}.json", "--control", f"{women}.json")
    lines = result(*locate, "--prompts", f"{men}.txt", "--control", f"{women}.txt", "--role", "user")
    assert chats["heads"] == lines["heads"]
    assert lines["heads"] != result(*locate, "--prompts", f"{men}.txt", "--control", f"{women}.txt")["heads"]
    compare = ("compare", demo_lenses, "--resamples", "9")
    chats = result(*compare, "--clean", f"{men}.json", "--suspect", f"{women}.json")
    lines = result(*compare, "--clean", f"{men}.txt", "--suspect", f"{women}.txt", "--role", "user")
    assert chats["heads"] == lines["heads"]
    inject = ("inject", demo_lenses, "--head", "3.1", "--ablate", "zero")
    (tmp_path / "one.json").write_text(json.dumps([ASK]))
    chats = result(*inject, "--chat", tmp_path / "one.json")
    assert chats == result(*inject, ASK["content"], "--role", "user")
    assert chats["prompts"] == [text_of(reader, Prompt.chat([ASK]))[0]]
