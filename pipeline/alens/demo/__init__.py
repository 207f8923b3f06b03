"""The bundled demo: a small GPT-2 trained on novels, and text sampled from it.

`MODEL` is a Hugging Face directory, `CORPUS` a parquet file; `build.py` made both and `card.json` says how.

build.py  made both
"""

from pathlib import Path

MODEL = Path(__file__).parent / "model"
CORPUS = Path(__file__).parent / "corpus.parquet"
CARD = Path(__file__).parent / "card.json"
