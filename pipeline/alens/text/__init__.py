"""From a corpus to its tokens: which files it has, their rows, the tokens of its documents in order. No model runs here.

dataset_card.py  the card of a data set: which files are which split
listing.py       the names of the files below a directory
splits.py        which split each file belongs to, by its name
files.py         which of the files are the text, and which are left out
file_rows.py     the rows of one file
text_tokens.py   the tokens of the documents
corpus.py        finds a corpus and reads its documents
packing.py       packs tokens into whole sequences, training and held-out text apart
joining.py       joins the tokens of pieces to those of whole documents
long_json.py     reads a long line of JSON and leaves its long strings in the file
text_columns.py  which columns are read, and what a row is
json_rows.py     rows of a .jsonl file
line_rows.py     rows of a .txt file, long ones in parts
table_rows.py    rows of a .parquet or .arrow file, long cells in parts
"""
