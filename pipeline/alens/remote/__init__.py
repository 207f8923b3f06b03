"""Objects that are elsewhere: at `s3://bucket/prefix`, or at `https://host/path`. Knows neither caches nor lenses.

address.py   told apart from paths of this machine, and checked
patience.py  how often and how long a request is tried again, and what is said when it fails
failure.py   what went wrong with a request, in a few words
objects.py   lists, reads and writes the objects of one address
"""
