"""STAGE ONE: run the model once over the text and write what every head computes. In data order.

text.py               corpus -> documents
listing.py            a directory -> the names of what lies in it
card.py               a data set's card -> which files are which split
splits.py             names of files -> the split that each is of
text_files.py         names -> the files that are the text, and what is left out
text_rows.py          one file -> its rows
text_columns.py       which columns are read, and what a row is
text_lines.py         lines of .txt, long ones in parts
text_json.py          objects of .jsonl
long_json.py          a long line of JSON, whose strings stay in the file
text_tables.py        .parquet and .arrow, long cells in parts
held_out.py           which documents are held out, how many sequences each side gives
passages.py           a few passages out of a long text
joining.py            tokens of pieces -> tokens of whole documents
text_tokens.py        documents -> tokens
vocabulary.py         tokens that the model does not have
packing.py            tokens -> whole sequences, each side by itself
tokens.py             text -> token rows
model.py              the frozen model
configuration.py      config.json: what a record keeps of it
weights.py            which files are loaded, and their hash
checkpoint.py         every weight from its file, or refused
bridge.py             TransformerLens around it, each layer's own W_O
probe.py              logits of a few fixed tokens
examine.py            what the loaded model does, by numbers
last_norm.py          its last norm, measured
quiet.py              no bars and advice of libraries
refusing.py           what a library says of a file it cannot use: one line
activations.py        token rows -> z and final residuals
targets.py            final residuals -> compressed targets
shard.py              one shard, tokens to arrays
collect.py            device -> rows of a shard, without waiting
plan.py               which shards this worker writes (pure)
request.py            what is asked for
prepare.py            tokens, skeleton, plan: made once
provenance.py         host and versions
run.py                plan -> forward -> write, resumable
recompute.py          some rows again, beside what is stored
recompute_targets.py  stored targets beside the model's logits
tolerance.py          how far rounding may take them apart
differences.py        the largest of each array
"""
