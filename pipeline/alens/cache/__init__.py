"""Stage one: runs the model once over the text and writes what every attention head computes.

The data path. A row is one position of one sequence: N rows, B sequences, T tokens a sequence, L layers, H heads,
E d_head, D d_model, K top-k, M tail samples.

1. Find. In: MODEL and CORPUS. Out: a `ModelSource` with the model's record, nothing loaded, and a `Corpus`.
   `model.models.find`, `text.corpus.resolve`
2. Tokenise. In: the documents of the corpus. Out: `tokens.npy`, (B, T) uint16 or uint32, sequences in the order in
   which they are run; where documents are known also `documents.npy`, (B, T) uint32. `token_sequences.write_tokens`
3. Plan. In: the model's record, the corpus, the tokens' hash, settings. Out: `plan.json`, and the metadata of all
   arrays; nothing is left to decide. `prepare.prepare`
4. Share. In: the plan, worker I of N, what is committed. Out: the shards to write. `write_cache.shards_to_write`
5. Run. In: a batch of sequences, (B, T). Out: z of each head, (B, T, H, E) a layer, and the final residual,
   (B, T, D). `model.activations.run`
6. Compress. In: final residuals, (N, D). Out: top ids and log-probabilities, (N, K), logsumexp and entropy, (N), ids
   drawn from the tail, (N, M). `target_compression.compress`
7. Collect. In: the values of a batch, on the model's device. Out: the arrays of one shard in memory, rows permuted,
   z (N, H, E) float16 or int8 a layer. `shard.compute`, `row_collector.RowCollector`
8. Commit. In: the arrays of a shard. Out: its files in `arrays.zarr` and its record in `commits`; after the last
   shard `MANIFEST.json`. `write_cache.ShardJob`, `store.writer`

`recompute` does steps 5 and 6 again for some rows of a cache, and compares.

request.py             the request, checked
held_out_documents.py  which documents are held out, and how many sequences each side of the text gives
passages.py            a few passages of a long text
token_sequences.py     text -> sequences of tokens
prepare.py             tokens and plan, made once
target_compression.py  final residuals -> compressed targets
row_collector.py       values on the device -> rows of a shard, without waiting
shard_moments.py       one shard of a cache of moments alone
shard.py               one shard, from tokens to arrays
write_cache.py         plan -> committed shards, resumable
recompute.py           some rows computed again, beside what is stored
recompute_writes.py    what heads write, beside what blocks add
recompute_targets.py   stored targets beside the model's logits
recompute_sums.py      stored sums of a shard beside those computed again
recompute_effects.py   stored effects of heads beside those computed again
tolerance.py           how far rounding may take the two apart
array_differences.py   the largest difference of each array
"""
