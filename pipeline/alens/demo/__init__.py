"""The bundled demo: a small GPT-2 trained on novels, and text sampled from it.

`MODEL` is a directory in Hugging Face's layout, `CORPUS` a parquet file, and `CARD` says how both were made.

build.py  trains the model and samples the text
"""

from pathlib import Path

MODEL = Path(__file__).parent / "model"
CORPUS = Path(__file__).parent / "corpus.parquet"
CARD = Path(__file__).parent / "card.json"
