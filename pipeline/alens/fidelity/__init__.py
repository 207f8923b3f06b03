"""What the compression of a cache costs, and what other choices would cost, measured on the cache itself.

request.py       the request: what to measure
measure.py       cache -> all figures
forms.py         the forms of z and targets that are tried
sample.py        some rows of a cache
target_error.py  kept mass, KL to exact
z_error.py       errors of z and of z W_O
z_bytes.py       bytes a row of each form
reencode.py      a cache -> the same rows in another form
probe_fits.py    lenses fitted to each form, judged alike
probe_time.py    how long that takes, before it begins
"""
