"""THE CONTRACT between the stages: what a cache is on disk. Imports neither stage.

schema.py   what plan.json holds              arrays.py   which arrays a plan makes
paths.py    where each file is                durable.py  a file is either not there or whole
writer.py   shard -> files -> commit record   reader.py   committed shards -> numbers
claim.py    who works in a directory          one_writer.py  one at a time
statistics.py   moments that stage one counts
"""
