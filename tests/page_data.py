"""The data that a page of alens holds, however they stand in it."""

import base64
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
