"""The model card of a published lens directory: its `README.md`, as the Hugging Face hub shows it.

In: `lens.json` as it is published, the repository, and the figures beside it. Out: Markdown with a YAML head, made
of the same parts as the card of an export; the same every time it is made.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from alens.exchange import addition_card, markdown, model_card
from alens.exchange.local_paths import LOCAL
from alens.exchange.model_card import heads_of
from alens.lens.directory import layer_file
from alens.lens.record import ADDITIONS

PICTURES = (".png", ".jpg", ".jpeg", ".svg")


def text(
    lenses: Mapping[str, Any],
    *,
    repository: str,
    figures: Sequence[str],
    has_cache: bool,
    license_id: str | None,
) -> str:
    """The whole card. `lenses` is the content of `lens.json`; `figures` are paths in the repository."""
    content = {
        **lenses,
        "license": license_id,
        "model": {**lenses["model"], "id": lenses["model"]["id"].removeprefix(LOCAL)},
    }
    adds = lenses["form"] in ADDITIONS
    parts = [
        model_card.head(content),
        addition_card.title(content) if adds else model_card.title(content),
        addition_card.use(repository, _needs(lenses)) if adds else _use(lenses, repository),
        model_card.fitted(content) + (_cache() if has_cache else ""),
        addition_card.figures(content) if adds else model_card.figures(content),
        _figures(figures),
        addition_card.limits() if adds else model_card.limits(content),
    ]
    return "\n".join(part for part in parts if part)


def _use(lenses: Mapping[str, Any], repository: str) -> str:
    model = lenses["model"]
    own = model["id"].startswith(LOCAL)
    where = " --model DIRECTORY" if own else ""
    argument = ', model="DIRECTORY"' if own else ""
    layer = lenses["layers"][0]
    return f"""\
## Use

```
alens info hf://{repository}
alens read hf://{repository} "The man worked as a"{where}
```

```python
from alens import HeadReader, load_lenses

lenses = load_lenses("hf://{repository}")
reading = HeadReader(lenses{argument}).read("The man worked as a", layers=[{layer}])
```

{_needs(lenses)} A file is checked against `lens.json` when it is read, and layers that are not read are not fetched. \
A version: `hf://{repository}@REVISION`.
{_by_hand(lenses, layer)}"""


def _needs(lenses: Mapping[str, Any]) -> str:
    """Where the model comes from."""
    name = lenses["model"]["id"]
    if not name.startswith(LOCAL):
        return "alens finds the model by its name, and refuses one with other weights."
    return (
        f"The model {markdown.code(name.removeprefix(LOCAL))} is on no hub that these lenses know: say where you have it. "
        "A model with other weights is refused."
    )


def _by_hand(lenses: Mapping[str, Any], layer: int) -> str:
    if lenses["form"] != "affine":
        return ""
    on_z = lenses["site"] == "attn.z"
    width = lenses["model"]["d_head"] if on_z else lenses["model"]["d_model"]
    value = (
        f"z, what the head mixes before W_O, {width} numbers: hook_z of TransformerLens"
        if on_z
        else markdown.name(f"{lenses['site']}, {width} numbers: hook_{lenses['site']} of TransformerLens")
    )
    heads = heads_of(lenses).by_layer[layer]
    return f"""
Without alens: `{layer_file(layer)}` holds `weight` ({len(heads)} heads x {width} x \
{lenses["model"]["d_vocab"]:,}) and `bias`, float32, and `logits = value @ weight[i] + bias[i]`, with i the place of \
the head in `heads` of `lens.json`. The value is {value}.
"""


def _cache() -> str:
    return (
        "\n`cache/plan.json` and `cache/MANIFEST.json` are those of the cache: model, text, settings and the hash of "
        "each file of the text. Whoever writes the cache again can compare its identity and its fingerprint.\n"
    )


def _figures(paths: Sequence[str]) -> str:
    if not paths:
        return ""
    lines = [
        f"![{markdown.sentence(PurePosixPath(path).stem)}]({quote(path)})"
        if path.endswith(PICTURES)
        else f"[{markdown.sentence(PurePosixPath(path).name)}]({quote(path)})"
        for path in paths
    ]
    return "## Figures\n\n" + "\n\n".join(lines) + "\n"
