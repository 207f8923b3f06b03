"""A copy of the demo whose tokenizer has a BOS token of its own, and may put it before each text, as Llama 2's does."""

import json
import shutil
from pathlib import Path

from alens import demo

BOS, BOS_TEXT = 3, "<s>"


def model_with_bos(folder: Path, *, adds_it: bool) -> Path:
    """Writes the demo to `folder`, with a tokenizer in which token 3 is `<s>`; token 0 still ends documents."""
    shutil.copytree(demo.MODEL, folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    (old,) = (text for text, number in vocabulary.items() if number == BOS)
    del vocabulary[old]
    vocabulary[BOS_TEXT] = BOS
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"].append({"id": BOS, "content": BOS_TEXT, **flags})
    if adds_it:
        tokenizer["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": BOS_TEXT, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {BOS_TEXT: {"id": BOS_TEXT, "ids": [BOS], "tokens": [BOS_TEXT]}},
        }
    path.write_text(json.dumps(tokenizer))
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "bos_token": BOS_TEXT}))
    return folder
