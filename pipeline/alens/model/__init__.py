"""THE MODEL: found, compared with its record, loaded through TransformerLens, run. The only room that imports model libraries.

importing.py          large libraries, imported sooner
models.py             the frozen model
pretrained.py         every weight from its file, or refused
configuration.py      config.json: what a record keeps of it
weights.py            which files are loaded, and their hash
logit_fingerprint.py  logits of a few fixed tokens
last_norm.py          its last norm, measured
examine.py            what the loaded model does, by numbers
activations.py        token rows -> z and final residuals
quiet.py              no bars and advice of libraries
edits.py              the model run with heads changed
token_bytes.py        tokens -> how many bytes of text
within_text.py        a tokenizer in the middle of a text
bridge.py             TransformerLens around it, each layer's own W_O
refusing.py           what a library says of a file it cannot use: one line
"""
