"""The configuration of DeepSpeed: the user's file over the settings of alens, and the keys that it may not have."""

import json
from pathlib import Path
from typing import Any

import pytest

from alens.errors import RequestError
from alens.fit import deepspeed_config
from alens.fit.deepspeed_config import OURS


def put(folder: Path, body: Any) -> Path:
    path = folder / "ds.json"
    path.write_text(body if isinstance(body, str) else json.dumps(body))
    return path


@pytest.mark.parametrize("key", OURS)
def test_what_determines_the_lenses_is_refused_with_what_to_do_instead(tmp_path: Path, key: str) -> None:
    with pytest.raises(RequestError, match=rf"ds.json has {key}: leave it out \({OURS[key]}\)"):
        deepspeed_config.read(put(tmp_path, {key: {}}))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{", "is not a JSON file"),
        ("\xff", "is not a JSON file"),
        ([1], "it must hold one JSON object"),
        ({"zero_optimization": 2}, "zero_optimization must be an object"),
        ({"bf16": True}, "bf16 must be an object"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, body: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        deepspeed_config.read(put(tmp_path, body))


def test_a_byte_order_mark_is_no_part_of_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text('{"bf16": {"enabled": true}}', encoding="utf-8-sig")
    assert deepspeed_config.read(file) == {"bf16": {"enabled": True}}


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"cannot read .*No such file"):
        deepspeed_config.read(tmp_path / "none.json")
    (tmp_path / "ds.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RequestError, match="is not a JSON file"):
        deepspeed_config.read(tmp_path / "ds.json")


@pytest.mark.parametrize(
    ("in_file", "asked", "stage"), [(None, None, 0), (None, 2, 2), (3, None, 3), (1, 1, 1), (0, None, 0)]
)
def test_the_stage_is_that_of_the_file_or_of_the_flag(
    in_file: int | None, asked: int | None, stage: int
) -> None:
    given = {} if in_file is None else {"zero_optimization": {"stage": in_file}}
    assert deepspeed_config.stage(given, asked) == stage


@pytest.mark.parametrize(
    ("in_file", "asked", "message"),
    [(2, 1, "--zero is 1 and the DeepSpeed file says stage 2"), (4, None, "it must be 0 to 3"),
     ("2", None, "it must be 0 to 3"), (True, None, "it must be 0 to 3")],
)  # fmt: skip
def test_two_stages_or_none_that_exists_are_refused(in_file: Any, asked: int | None, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        deepspeed_config.stage({"zero_optimization": {"stage": in_file}}, asked)


def test_the_file_is_laid_over_ours_and_the_batch_stays_ours() -> None:
    given = {
        "steps_per_print": 7,
        "csv_monitor": {"enabled": True},
        "zero_optimization": {"offload_optimizer": {"device": "cpu"}},
    }
    config = deepspeed_config.merged(given, zero=2, rows_a_process=32)
    assert config["steps_per_print"] == 7 and config["csv_monitor"] == {"enabled": True}
    assert config["zero_optimization"] == {"offload_optimizer": {"device": "cpu"}, "stage": 2}
    assert config["train_micro_batch_size_per_gpu"] == 32 and config["gradient_accumulation_steps"] == 1
    assert config["zero_force_ds_cpu_optimizer"] is False
    assert config["gradient_clipping"] == 0.0
    assert "stage" not in given["zero_optimization"]


def test_bfloat16_needs_a_stage_that_keeps_float32_weights() -> None:
    given = {"bf16": {"enabled": True}}
    with pytest.raises(RequestError, match="take --zero 1"):
        deepspeed_config.merged(given, zero=0, rows_a_process=32)
    assert deepspeed_config.merged(given, zero=1, rows_a_process=32)["bf16"] == {"enabled": True}
