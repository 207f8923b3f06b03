"""THE CONTRACT between the stages: what a cache is on disk. Imports neither stage.

schema.py            what plan.json holds
typed.py             a document's fields: of their type, within their limits
records.py           what commit records and the manifest hold
read_documents.py    all documents of a cache, whole or not: what verify begins with
model_record.py      what is kept of the frozen model
same_model.py        in which way two records of models differ
plan_differences.py  in what a stored plan is not what is asked for
document.py          JSON with its own hash
arrays.py            which arrays a plan makes
encoding.py          rounded and 8-bit z
paths.py             where each file is
durable.py           a file is either not there or whole
leftovers.py         what killed processes left, and who clears it
claim.py             who works in a directory, and whether it lives
one_writer.py        the second in a directory is refused, a dead one is followed
writer.py            shard -> files -> commit record
commits.py           what is committed
cache_reader.py      committed shards -> numbers
checked_arrays.py    spans of rows through Zarr
compressed_files.py  what chunks claim, before they are decompressed
checked_files.py     files already compared with their hashes
values.py            which numbers an array can hold
cache_statistics.py  the log of the mean output
status.py            how far a cache is, what to submit again
verify.py            every byte -> what is damaged, missing, foreign
findings.py          one finding
hashing.py           many files, several at a time
metadata.py          what a zarr.json says
foreign.py           what else lies there
repair.py            findings -> what is written again
links.py             folders that are reached through no link
result_file.py       files of results: checked before, written whole after
"""
