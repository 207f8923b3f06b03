"""Rows to search on, and sequences to measure on."""

from pathlib import Path

from alens.evaluation.shards import JudgedText
from alens.store.cache_reader import open_cache
from alens.studies.basis import held_out_sample


def test_directions_are_found_on_other_sequences_than_they_are_measured_on(demo_cache: Path) -> None:
    cache = open_cache(demo_cache)
    text = JudgedText(shards=(4, 5))
    sample = held_out_sample.draw(cache, text, num_rows=100, num_sequences=3, min_position=2, seed=0)
    assert sample.tokens_ST.shape == (3, 64) and len(sample.rows_N) == 100
    measured = {tuple(tokens_T) for tokens_T in sample.tokens_ST}
    for row in sample.rows_N:
        assert 4 <= row // 1024 < 6
        assert cache.read("rows/position", [row])[0] >= 2
        assert tuple(cache.tokens[cache.read("rows/sequence", [row])[0]]) not in measured
