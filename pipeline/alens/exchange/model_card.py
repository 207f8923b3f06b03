"""The model card of an export: its `README.md`, as the Hugging Face hub reads it.

In: the content of `config.json`. Out: Markdown with a YAML head; every number in it also stands in `config.json`.
Whoever publishes the export chooses its license.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from alens.exchange import markdown
from alens.heads import Heads
from alens.lens import marks
from alens.lens.directory import layer_file
from alens.pictures.numbers import fixed
from alens.sources import hub

TAGS = ("interpretability", "mechanistic-interpretability", "attention-lens", "safetensors")
UNKNOWN = "unknown"


def text(config: Mapping[str, Any]) -> str:
    """The whole card."""
    parts = [head(config), title(config), _use(config), fitted(config), figures(config), limits(config)]
    return "\n".join(part for part in parts if part)


def head(config: Mapping[str, Any]) -> str:
    """The YAML head; `license` is None or absent where none was chosen."""
    model = config["model"]
    lines = ["---", "library_name: alens", "tags:", *(f"- {tag}" for tag in TAGS)]
    if model["revision"] and hub.looks_like_id(model["id"]):  # directories and `demo` have no revision
        lines.append(f"base_model: {json.dumps(model['id'])}")
    lines.append(
        f"license: {config['license']}"
        if config.get("license")
        else "# license: yours to choose; mind those of the model and of the text"
    )
    return "\n".join([*lines, "---", ""])


def title(config: Mapping[str, Any]) -> str:
    """What these lenses are, and which model they read."""
    model, layers, lenses = config["model"], config["layers"], heads_of(config)
    affine = config["form"] != "translated"
    at = f" at revision {markdown.code(model['revision'])}" if model["revision"] else ""
    what = (
        heads_named(lenses)
        if config["site"] == "attn.z"
        else f"{markdown.code(config['site'])} of layers {_numbers(layers)}"
    )
    return f"""\
# Attention lenses of {markdown.name(model["id"])}

A lens is {"an affine map" if affine else "a map"} from what one part of a language model computes to a distribution over its vocabulary: \
it says which tokens that part speaks for ("Attention Lens", [arXiv 2310.16270](https://arxiv.org/abs/2310.16270)). \
Here are lenses of {what}.

Model: {markdown.code(model["id"])}{at}, {markdown.name(model["architecture"])}, SHA-256 of its weights {markdown.code(model["weights_sha256"])}.
"""


def heads_of(config: Mapping[str, Any]) -> Heads:
    """The heads that have lenses, by `lens.json` or `config.json`."""
    return Heads.from_json(config["layers"], config["heads"])


def heads_named(lenses: Heads) -> str:
    """`heads 0 to 5 of layers 2, 3`, or the names of the heads."""
    if lenses.shared is None:
        return f"heads {str(lenses).replace(',', ', ')}"
    return f"heads {_numbers(lenses.shared)} of layers {_numbers(lenses.layers)}"


def _use(config: Mapping[str, Any]) -> str:
    layer, head = heads_of(config).pairs[0]
    weight = config["tensors"][f"head.{head}.weight"]
    names = "a" if config["form"] == "paper" else "z" if config["site"] == "attn.z" else "h"
    return f"""\
## Use

One file a layer; `head.N.weight` is {weight[0]} x {weight[1]:,}, `head.N.bias` has {weight[1]:,} numbers, {config["dtype"]}. \
The input is {markdown.name(config["input"])}.

```python
from safetensors import safe_open
with safe_open("{layer_file(layer)}", framework="pt") as file:
    weight, bias = (file.get_tensor(f"head.{head}.{{part}}").float() for part in ("weight", "bias"))
logits = {names} @ weight + bias  # {names}: (..., {weight[0]})
```

`alens import` makes lenses for `alens eval` and `alens read` of this directory.
"""


def fitted(config: Mapping[str, Any]) -> str:
    """How the lenses were fitted, and on what."""
    fit, cache = config["fit"], config["cache"]
    rows = [
        ("design", config["design"]),
        ("objective", config["objective"]),
        ("steps", _number(fit.get("steps"))),
        ("rows seen", _number(fit.get("rows_seen"))),
        ("first position fitted on", _number(fit.get("min_position"))),
        *(
            [("token that sequences begin with (BOS)", config["bos"])]
            if config.get("bos") is not None
            else []
        ),
        ("text", _corpus(cache.get("corpus"))),
        ("identity of the cache's plan", cache.get("plan")),
        ("fingerprint of the cache", cache.get("fingerprint")),
    ]
    lines = "\n".join(
        f"| {name} | {UNKNOWN if value is None else markdown.name(str(value))} |" for name, value in rows
    )
    return f"## How they were fitted\n\n| | |\n| --- | --- |\n{lines}\n"


def _corpus(corpus: Mapping[str, Any] | None) -> str | None:
    if not corpus:
        return None
    revision = f" at {corpus['revision']}" if corpus.get("revision") else ""
    return f"{corpus['id']}{revision}, split {corpus['split']}"


def figures(config: Mapping[str, Any]) -> str:
    """Held-out figures, one line for each head; says so where weights were rounded after them."""
    if not config["held_out"]:
        return "## Held-out figures\n\nNone are known.\n"
    by_layer = heads_of(config).by_layer
    heads = [
        (int(layer), head, of_head)
        for layer, by_head in config["held_out"].items()
        for head, of_head in zip(by_layer[int(layer)], by_head, strict=True)
    ]
    lines = [
        f"| {marks.label(layer, head, bool(of_head.get('says_nothing')))} | {fixed(of_head['kl'], 4)} | "
        f"{fixed(of_head['cross_entropy'], 4)} | {fixed(of_head['top1_agreement'], 4)} |"
        for layer, head, of_head in heads
    ]
    note = marks.note((layer, head) for layer, head, of_head in heads if of_head.get("says_nothing"))
    mean_kl = config.get("mean_output_kl")
    nothing = "not known" if mean_kl is None else f"{fixed(mean_kl, 4)} nats"
    rounded = f", before rounding to {config['dtype']}" if config.get("dtype") else ""
    columns = "| head | KL(model, lens) | cross-entropy | top-1 agreement |\n| --- | --- | --- | --- |"
    return (
        "## Held-out figures\n\nOn rows that the fit did not see; KL to the model's own output and cross-entropy of the "
        f"text's next token in nats a row{rounded}. KL of the mean output, which looks at nothing: {nothing}.\n\n{columns}\n"
        + "\n".join(lines)
        + (f"\n\n{note}.\n" if note else "\n")
    )


def limits(config: Mapping[str, Any]) -> str:
    """The limits of what a lens can show."""
    lines = [
        "A lens reads the model it was fitted on, with its weights as they are; weights that a library has folded or centred give other values.",
        "It says what can be read linearly, which need not be what later layers use.",
    ]
    if config["form"] == "paper":
        lines.append(
            "`weight` is `pinv(W_O) w` with the lens `w` on z: the same function on every head output. Of an input outside "
            "the head's output space the part that is orthogonal to it is read as nothing (the map of least norm)."
        )
    if config["design"] == "summed":
        lines.append(
            "The readings of a layer's heads were summed before the loss: read alone, a head says its part of the sum."
        )
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"


def _numbers(values: Sequence[int]) -> str:
    if len(values) > 2 and list(values) == list(range(values[0], values[-1] + 1)):
        return f"{values[0]} to {values[-1]}"
    return ", ".join(map(str, values))


def _number(value: Any) -> str | None:
    return None if value is None else f"{value:,}"
