"""The tutorial on publishing: its commands run, in its order, with a small hub on this machine."""

from pathlib import Path

from ..fake_hub import Hub
from . import pages

PAGE = pages.ROOT / "docs" / "tutorials" / "publish.md"
COMMANDS = list(pages.alens_commands(PAGE))


def test_its_commands_run(hub: Hub, demo_cache: Path, demo_lenses: Path, tmp_path: Path) -> None:
    places = {".demo/cache": demo_cache, ".demo/lenses": demo_lenses, "bundle": tmp_path / "bundle"}
    # the demo has lenses of all heads, the tests' have those of heads 1 and 4
    commands = [[places.get(word, word) for word in words] for words in COMMANDS]
    for words, outcome in zip(COMMANDS, hub.run(tmp_path / "home", *commands), strict=True):
        assert outcome.code == 0, (words, outcome.stderr)
    assert set(hub.repositories) == {"me/demo-lenses"}
    assert "cache/MANIFEST.json" in hub.repositories["me/demo-lenses"].files


def test_it_looks_before_it_uploads() -> None:
    assert [words[0] for words in COMMANDS] == ["publish", "publish", "info", "read", "publish", "info", "read", "read"]  # fmt: skip
    assert "--upload" not in COMMANDS[0] and "--upload" in COMMANDS[4]


def test_it_names_every_file_of_a_bundle(demo_cache: Path, demo_lenses: Path, run_alens) -> None:
    import json

    words = ("publish", demo_lenses, "--repo", "me/x", "--store", demo_cache, "--json")
    text = PAGE.read_text()
    for file in json.loads(run_alens(*words).stdout)["files"]:
        name = file["path"]
        assert f"`{'layer-NN.safetensors' if name.startswith('layer-') else name}`" in text
