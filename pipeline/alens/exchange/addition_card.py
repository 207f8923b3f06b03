"""Parts of the model card of published lenses that say what heads add to the logits: effect and Jacobian lenses.

In: `lens.json` as it is published. Out: Markdown: what they are, how to use them, and a figure for each head.
"""

from collections.abc import Mapping
from typing import Any

from alens.exchange import markdown
from alens.exchange.model_card import heads_named, heads_of
from alens.lens.record import EFFECT
from alens.pictures.numbers import fixed, interval, percent

WHAT = {
    "effect": "An effect lens is a linear map from what an attention head mixes (z) to what the model loses without the head: "
    "it was fitted to the change of the final normed residual when z is replaced by its mean at every position, and, "
    "unembedded, gives logits",
    "jacobian": "A Jacobian lens of a head is the mean derivative of the residual stream before the last norm by what the head "
    "mixes (z): it takes the place of W_O in the head's direct write, and so counts what later layers make of it to first order",
}


def title(lenses: Mapping[str, Any]) -> str:
    """What these lenses are, and which model they belong to."""
    model = lenses["model"]
    at = f" at revision {markdown.code(model['revision'])}" if model["revision"] else ""
    return f"""\
# What attention heads of {markdown.name(model["id"])} add

{WHAT[lenses["design"]]}. What it gives is added to the logits, signed, and no distribution. Here are lenses of \
{heads_named(heads_of(lenses))}.

Model: {markdown.code(model["id"])}{at}, {markdown.name(model["architecture"])}, SHA-256 of its weights {markdown.code(model["weights_sha256"])}.
"""


def use(repository: str, needs: str) -> str:
    """How to read with them; `needs` says where the model comes from."""
    return f"""\
## Use

LENSES are lenses of the same model that say what heads know (`alens fit`), STORE a cache of it with effects (`alens effects`).

```
alens info hf://{repository}
alens read LENSES "The man worked as a" --effect hf://{repository}
alens eval LENSES STORE --also hf://{repository}
```

```python
from alens.lens.effect_lenses import load_effect_lenses

lenses = load_effect_lenses("hf://{repository}")
```

{needs}
"""


def figures(lenses: Mapping[str, Any]) -> str:
    """How far each lens is to be believed."""
    fit, by_layer = lenses["fit"], heads_of(lenses).by_layer
    effect = lenses["design"] == EFFECT
    heads = [
        (f"{layer}.{head}", of_head)
        for layer, of_heads in fit["effects" if effect else "jacobians"].items()
        for head, of_head in zip(by_layer[int(layer)], of_heads, strict=True)
    ]
    if effect:
        above = (
            f"The share of the effect that the lens explains on {fit['held_out_rows']:,} rows of documents that were held out, "
            "and the share that the head's direct write explains, with 95 % intervals: 1 is all of it.\n\n"
            "| head | effect lens | direct write |\n| --- | --- | --- |"
        )
        rows = [f"| {name} | {_share(one['explained'])} | {_share(one['written'])} |" for name, one in heads]
    else:
        above = (
            f"The standard error of each Jacobian ({fit['reach']}), as a share of it, and its cosine with W_O.\n\n"
            "| head | standard error | cosine with W_O |\n| --- | --- | --- |"
        )
        rows = [
            f"| {name} | {'unknown' if one['standard_error'] is None else percent(one['standard_error'])} | "
            f"{fixed(one['cosine_with_write'])} |"
            for name, one in heads
        ]
    return f"## Figures\n\n{above}\n" + "\n".join(rows) + "\n"


def limits() -> str:
    """The limits of what such a lens can show."""
    return """\
## Limits

- A lens belongs to the model it was made from, with its weights as they are.
- It sees z at one position. What a head does through other positions, or only together with other heads, it does not see: \
in the lower half of a model that is most of what heads do.
"""


def _share(explained: Mapping[str, Any]) -> str:
    ends = explained["interval"]
    return fixed(explained["share"]) + (f" ({interval(tuple(ends))})" if ends else "")
