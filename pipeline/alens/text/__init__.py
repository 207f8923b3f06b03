"""Corpus -> text: which files it has, their rows, the tokens of its documents in order. Runs no model.

dataset_card.py  a data set's card -> which files are which split
listing.py       a directory -> the names of what lies in it
splits.py        names of files -> the split that each is of
files.py         names -> the files that are the text, and what is left out
file_rows.py     one file -> its rows
text_tokens.py   documents -> tokens
corpus.py        corpus -> documents
packing.py       tokens -> whole sequences, each side by itself
joining.py       tokens of pieces -> tokens of whole documents
long_json.py     a long line of JSON, whose strings stay in the file
text_columns.py  which columns are read, and what a row is
json_rows.py     objects of .jsonl
line_rows.py     lines of .txt, long ones in parts
table_rows.py    .parquet and .arrow, long cells in parts
"""
