"""The contract between the stages: what a cache is on disk. This room imports neither stage.

schema.py            what plan.json holds
typed.py             checks that a document's fields have their types and limits
records.py           what commit records and the manifest hold
read_documents.py    reads all documents of a cache, whole or not, for verify
model_record.py      what a cache or lenses record of the frozen model
same_model.py        how two records of models differ
plan_differences.py  how a stored plan differs from a request
document.py          JSON documents that hold their own hash
arrays.py            which arrays a plan defines
encoding.py          rounded and 8-bit z, covariances with a scale
final_moments.py     whether sums for the closed form are kept
paths.py             where each file of a cache is
durable.py           writes a file whole or not at all
leftovers.py         clears what killed processes left unfinished
claim.py             says which process works in a directory, and whether it lives
one_writer.py        lets one process at a time write into a directory
writer.py            writes a shard's files, then its commit record
stage.py             copies of a cache that is elsewhere, on a disk of this machine
stage_space.py       the room that copies may take, and which are in use
stage_settings.py    where copies are kept
directory_source.py  a slow directory that copies are made from
commits.py           the commit records of a cache
cache_reader.py      reads numbers from committed shards
opened_cache.py      a cache that was given open, or by its directory
head_files.py        writes what is measured of heads beside a cache, and finds it
head_check.py        what verify checks of it
effect_files.py      the files of measured effects of heads
effect_reader.py     reads them, and which rows they are of
jacobian_files.py    the files of measured Jacobians of heads
jacobian_reader.py   reads their mean, and how certain it is
checked_arrays.py    reads spans of rows through Zarr
compressed_files.py  checks what chunks claim before they are decompressed
checked_files.py     remembers which files were compared with their hashes
token_file.py        reads token sequences and their documents
values.py            which numbers an array can hold
status.py            how much of a cache is written, and which workers to submit again
verify.py            reads every byte and names what is damaged, missing or foreign
verdict.py           what verify says of a cache
verify_far.py        what verify reads of a cache at an address
findings.py          what one finding says
hashing.py           hashes many files, several at a time
metadata.py          compares a zarr.json with the plan
foreign.py           finds what else lies in a cache directory
repair.py            queues what was found for rewriting
parcels.py           what a cache consists of when it is sent elsewhere
push.py              sends it to objects, each record after its files
links.py             opens folders that are not reached through a link
result_file.py       checks the path of a result before the work, and writes it whole after
"""
