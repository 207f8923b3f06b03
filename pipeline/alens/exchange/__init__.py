"""Lenses go out in the paper's form, and come in from the programs that others published.

export.py          lenses -> a directory for others       card.py           its README.md
importing.py       a published directory or file -> lenses
attention_lens.py, tuned_lens.py, exported.py             what is read, a module a program
found.py           what each of them gives                weights_only.py   torch files, and no code in them
streams.py         safetensors, one tensor in memory      folder.py         a directory, whole or absent
"""
