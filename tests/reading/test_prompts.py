"""Files of prompts, and the errors for files without any."""

from pathlib import Path

import pytest

from alens.errors import RequestError
from alens.reading.prompts import read_prompts


def test_a_text_file_has_a_prompt_a_line(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("She said\n\n  He went \n")
    prompts = read_prompts(file)
    assert [(p.text, p.label, p.source) for p in prompts] == [
        ("She said", None, f"{file}:1"),
        ("  He went ", None, f"{file}:3"),
    ]


def test_json_lines_have_labels_of_several_kinds(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "a", "label": true}\n{"prompt": "b", "label": "bad"}\n{"prompt": "c"}\n')
    assert [(p.text, p.label) for p in read_prompts(file)] == [("a", "1"), ("b", "bad"), ("c", None)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.csv", "a", "is not a file of prompts"),
        ("p.txt", "\n \n", "holds no prompt"),
        ("p.jsonl", "{", "p.jsonl:1 is not JSON"),
        ("p.jsonl", '{"prompt": ' + 99_999 * "[", "p.jsonl:1 is not JSON"),
        ("p.jsonl", '\n{"text": "a"}', "p.jsonl:2 has no prompt"),
        ("p.jsonl", '{"prompt": "a", "label": 0.5}', "has the label 0.5"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(RequestError) as error:
        read_prompts(tmp_path / name)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_lines_end_as_editors_end_them_and_nowhere_else(tmp_path: Path) -> None:
    text, rows = tmp_path / "p.txt", tmp_path / "p.jsonl"
    text.write_bytes("\ufeffHe said\r\none\u2028line\x0bor\x85so\r\n".encode())
    rows.write_bytes('\ufeff{"prompt": "one\u2028line"}\r\n'.encode())
    assert [(p.text, p.source) for p in read_prompts(text)] == [
        ("He said", f"{text}:1"),
        ("one\u2028line\x0bor\x85so", f"{text}:2"),
    ]
    assert [p.text for p in read_prompts(rows)] == ["one\u2028line"]


def test_missing_and_binary_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"cannot read .*gone\.txt: No such file"):
        read_prompts(tmp_path / "gone.txt")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RequestError, match="is not UTF-8 text"):
        read_prompts(tmp_path / "b.txt")
