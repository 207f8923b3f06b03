"""From a name to files of this machine: paths, ids of the Hugging Face hub, pointers of git-lfs.

hub.py             a hub id or an address becomes a local directory
local_or_hub.py    is a name a path here, or a hub id
lfs.py             a file that git did not fetch
fetch_progress.py  what is fetched from the hub, as lines of the log
"""
