"""The data that a page of alens holds, however they stand in it, and the same for a larger model."""

import base64
import copy
import gzip
import json
import re
from typing import Any


def held(page: str) -> Any:
    """The data of the text of a page."""
    ((kind, content),) = re.findall(
        r'<script type="application/(json|gzip)" id="data">(.*?)</script>', page, re.DOTALL
    )
    return json.loads(content if kind == "json" else gzip.decompress(base64.b64decode(content)))


def enlarged(numbers: Any, *, layers: int, heads: int) -> Any:
    """The data of a page of two layers of two heads as a larger model would have them: its heads are repeated."""
    numbers = copy.deepcopy(numbers)
    sources = [2 * (layer % 2) + head % 2 for layer in range(layers) for head in range(heads)]

    def repeated(cells: list[Any]) -> list[Any]:
        assert len(cells) == 4
        return [copy.copy(cells[source]) for source in sources]

    numbers["layers"], numbers["heads"] = list(range(layers)), list(range(heads))
    numbers["cells"] = [[layer, head] for layer in range(layers) for head in range(heads)]
    numbers["stream_layers"] = list(range(layers))
    numbers["says_nothing"] = repeated(numbers["says_nothing"])
    for place in (place for prompt in numbers["prompts"] for place in prompt["places"]):
        for name in ("looks", "moves"):
            place[name] = repeated(place[name])
        for name in ("lens", "unembedding", "stream"):
            if (said := place[name]) is not None:
                more = repeated if name != "stream" else lambda cells: [cells[at % 4] for at in range(layers)]
                said["kl"], said["entropy"] = more(said["kl"]), more(said["entropy"])
                said["lists"] = {rank: more(lists) for rank, lists in said["lists"].items()}
                said["kept"] = [more(grid) for grid in said["kept"]]
        for said in (place["written"], place["effect"]):
            if said is not None:
                for name in ("raised", "lowered", "suppressed"):
                    said[name] = repeated(said[name])
                said["kept"] = [repeated(grid) for grid in said["kept"]]
    return numbers
