"""`alens push` from the command line: what it prints, and the codes it ends with."""

import json
from pathlib import Path
from typing import Any

import pytest

from ..object_servers import S3Server


@pytest.mark.slow
def test_push_says_what_it_would_send_what_it_sent_and_what_is_there(
    run_alens: Any, demo_cache: Path, s3: S3Server
) -> None:
    place = f"s3://{s3.new_bucket()}/cache"
    outcome = run_alens("push", demo_cache, place, "--dry-run")
    assert (outcome.code, outcome.stdout.split(" shards, ")[0]) == (0, "would send 6")
    outcome = run_alens("push", demo_cache, place)
    sent, sealed = outcome.stdout.splitlines()
    assert sent.startswith("sent 6 shards, ") and sent.endswith("; 0 shards of 6 were there")
    assert (outcome.code, sealed) == (0, f"sealed: {place}")
    told = json.loads(run_alens("push", demo_cache, place, "--json").stdout)
    assert (told["to"], told["shards_sent"], told["shards_there"], told["sealed"]) == (place, 0, 6, True)


def test_what_cannot_be_pushed_is_refused_in_a_line(run_alens: Any, demo_cache: Path, tmp_path: Path) -> None:
    outcome = run_alens("push", tmp_path, "s3://bucket/cache")
    assert (outcome.code, outcome.stderr.count("\n")) == (
        2,
        1,
    ) and f"{tmp_path} is not a cache" in outcome.stderr
    outcome = run_alens("push", demo_cache, tmp_path)
    assert outcome.code == 2 and "give an address, s3://BUCKET/PREFIX" in outcome.stderr
