"""The configuration of DeepSpeed: the settings of alens, and the user's JSON file over them.

In: the ZeRO stage, the rows of a step for each process, and the JSON file of `--deepspeed`. Out: one dictionary for
`deepspeed.initialize`. The file may partition, offload, take bfloat16 and turn monitors on; what determines the
lenses (optimiser, schedule, batch) belongs to alens, and is refused in the file.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alens.errors import RequestError

OURS = {
    "optimizer": "alens has its own: --lr and --batch-rows",
    "scheduler": "alens has its own: --lr is its peak",
    "train_batch_size": "take --batch-rows",
    "train_micro_batch_size_per_gpu": "it is --batch-rows over the processes",
    "gradient_accumulation_steps": "a step is --batch-rows rows at once",
    "gradient_clipping": "lenses share nothing: one norm for all would couple them",
    "fp16": "take bf16: lenses have no loss scale",
}
"""Keys that the file may not have, and what to do instead."""

EXAMPLES = {"zero_optimization": '{"stage": 1}', "bf16": '{"enabled": true}'}


def read(path: Path) -> dict[str, Any]:
    """Read a JSON file of DeepSpeed. Raises `RequestError` for another file, or one with keys that belong to alens."""
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise RequestError(f"{path} is not a JSON file: {error}") from None
    if not isinstance(config, dict):
        raise RequestError(f"{path} is not a DeepSpeed configuration: it must hold one JSON object")
    for key, instead in OURS.items():
        if key in config:
            raise RequestError(f"{path} has {key}: leave it out ({instead})")
    for key in ("zero_optimization", "bf16"):
        if not isinstance(config.get(key) or {}, dict):
            raise RequestError(f"{path}: {key} must be an object, such as {EXAMPLES[key]}")
    return config


def stage(given: Mapping[str, Any], zero: int | None) -> int:
    """The ZeRO stage that the file and `--zero` ask for. Raises `RequestError` where they differ."""
    in_file = (given.get("zero_optimization") or {}).get("stage")
    if in_file is not None and (type(in_file) is not int or not 0 <= in_file <= 3):
        raise RequestError(f"the ZeRO stage of the DeepSpeed file is {in_file!r}: it must be 0 to 3")
    if zero is not None and in_file is not None and zero != in_file:
        raise RequestError(f"--zero is {zero} and the DeepSpeed file says stage {in_file}: say one of them")
    return zero if zero is not None else (in_file or 0)


def merged(given: Mapping[str, Any], *, zero: int, rows_a_process: int) -> dict[str, Any]:
    """The configuration of an engine. Raises `RequestError` for what alens cannot do with the file."""
    if zero == 0 and (given.get("bf16") or {}).get("enabled"):
        raise RequestError(
            "bf16 in the DeepSpeed file needs ZeRO 1, 2 or 3, which keep float32 weights: take --zero 1"
        )
    partition = {**(given.get("zero_optimization") or {}), "stage": zero}
    offload: dict[str, Any] = {}
    if "offload_optimizer" in partition or "offload_param" in partition:
        offload["zero_force_ds_cpu_optimizer"] = (
            False  # the optimiser of alens is elementwise PyTorch: it runs on any device
        )
    return {
        **offload,
        "steps_per_print": 2**62,
        "timers": {"throughput": {"enabled": False}},  # it would wait for the GPU twice a step
        **given,
        "zero_optimization": partition,
        "train_micro_batch_size_per_gpu": rows_a_process,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,  # DeepSpeed's default is 1.0, over the norm of all lenses together
        "zero_allow_untested_optimizer": True,
    }
