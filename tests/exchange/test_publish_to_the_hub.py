"""`alens publish --upload` and `hf://` with the real huggingface_hub, against a small hub on this machine.

huggingface_hub reads its environment when it is imported, so commands run in processes of their own: one that
publishes, one that reads, one that reads without network what the other fetched.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..fake_hub import Hub, serving
from ..outcomes import Outcome, refusal

REPOSITORY = "me/demo-lenses"
PROMPT = "He took her hand and"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment of a reader, whose hub cache is empty at first."""
    return tmp_path_factory.mktemp("reader")


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serving() as running:
        running.publish("me/something-else", {"README.md": b"mine", "model.bin": b"1", "data.csv": b"2"})
        running.publish("me/public", {".gitattributes": b""})
        running.fail = {
            "models/me/dying-commit/commit": 0,
            "models/me/refused/preupload": 403,
            "models/me/unknown-token/preupload": 401,
            "models/me/meanwhile/commit": 412,
            "models/me/broken/commit": 504,
        }
        yield running


@pytest.fixture(scope="module")
def published(hub: Hub, demo_lenses: Path, demo_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:  # fmt: skip
    """Outcomes of `alens publish --upload`, one after the other."""
    figure = tmp_path_factory.mktemp("figures") / "heads.html"
    figure.write_text("<p>heads</p>")
    whole = ["publish", demo_lenses, "--upload", "--store", demo_cache, "--figures", figure, "--json"]
    plain = ["publish", demo_lenses, "--upload"]
    commands = {
        "first": [*whole, "--repo", REPOSITORY],
        "again": [*whole, "--repo", REPOSITORY],
        "changed": [*whole, "--repo", REPOSITORY, "--license", "mit"],
        "branch": [*plain, "--repo", REPOSITORY, "--revision", "trial"],
        "private": [*plain, "--repo", "me/private", "--private"],
        "public-as-private": [*plain, "--repo", "me/public", "--private"],
        **{
            name: [*plain, "--repo", f"me/{name}"]
            for name in ("something-else", "dying-commit", "refused", "unknown-token", "meanwhile", "broken")
        },
    }
    outcomes = hub.run(tmp_path_factory.mktemp("publisher"), *commands.values())
    return dict(zip(commands, outcomes, strict=True))


@pytest.fixture(scope="module")
def asked() -> dict[str, list[str]]:
    """What the commands of `read` and `offline` requested from the hub."""
    return {}


@pytest.fixture(scope="module")
def read(
    hub: Hub, published: dict[str, Outcome], home: Path, demo_lenses: Path, demo_cache: Path, asked: dict[str, list[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Outcome]:  # fmt: skip
    """Outcomes of commands that read lenses from the hub."""
    assert published["first"].code == 0, published["first"].stderr
    files = hub.repositories[REPOSITORY].files
    damaged = files["layer-03.safetensors"][:-1] + b"?"
    hub.publish("me/damaged", {**files, "layer-03.safetensors": damaged})
    hub.publish("me/none", {"README.md": b"nothing"})
    hub.fail["GET /me/dying/resolve/.*/layer-03"] = 0
    hub.publish("me/dying", dict(files))
    narrow = [PROMPT, "--layer", "3", "--head", "4", "--top", "3", "--json"]
    commands = {
        "info": ["info", f"hf://{REPOSITORY}", "--json"],
        "read": ["read", f"hf://{REPOSITORY}", *narrow],
        "local": ["read", demo_lenses, *narrow],
        "branch": ["info", f"hf://{REPOSITORY}@trial", "--json"],
        "eval": ["eval", f"hf://{REPOSITORY}", demo_cache, "--layers", "3", "--rows", "100", "--json"],
        "export": ["export", f"hf://{REPOSITORY}", tmp_path_factory.mktemp("exports") / "out", "--layers", "3", "--form", "z"],
        "layer": ["read", f"hf://{REPOSITORY}", PROMPT, "--layer", "2"],
        "damaged": ["read", "hf://me/damaged", *narrow],
        "dying": ["read", "hf://me/dying", *narrow],
        "none": ["info", "hf://me/none"],
        "nowhere": ["info", "hf://me/nowhere"],
        "revision": ["info", f"hf://{REPOSITORY}@nope"],
    }  # fmt: skip
    before = len(hub.asked)
    outcomes = hub.run(home, *commands.values())
    asked["read"] = hub.asked[before:]
    return dict(zip(commands, outcomes, strict=True))


@pytest.fixture(scope="module")
def offline(
    hub: Hub, read: dict[str, Outcome], home: Path, asked: dict[str, list[str]]
) -> dict[str, Outcome]:
    """The same reader without network."""
    commands = {
        "read": ["read", f"hf://{REPOSITORY}", PROMPT, "--layer", "3", "--head", "4", "--top", "3", "--json"],
        "unread": ["read", f"hf://{REPOSITORY}", PROMPT, "--layer", "0"],
        "never": ["read", "hf://me/private", PROMPT],
        "upload": ["publish", home, "--repo", "me/x", "--upload"],
    }
    before = len(hub.asked)
    outcomes = hub.run(home, *commands.values(), env={"HF_HUB_OFFLINE": "1"})
    asked["offline"] = hub.asked[before:]
    return dict(zip(commands, outcomes, strict=True))


# Publishing


def test_everything_of_the_bundle_is_in_one_commit(
    hub: Hub, published: dict[str, Outcome], demo_lenses: Path
) -> None:
    body = json.loads(published["first"].stdout)
    repository = hub.repositories[REPOSITORY]
    first = repository.commits[body["uploaded"]["commit"]]
    assert set(first) == {".gitattributes", *(file["path"] for file in body["files"])}
    assert first["layer-03.safetensors"] == (demo_lenses / "layer-03.safetensors").read_bytes()
    assert first["figures/heads.html"] == b"<p>heads</p>"
    assert body["uploaded"]["changed"] and not body["uploaded"]["replaced"]
    assert repository.messages[:2] == ["initial commit", body["message"]]


def test_nothing_new_makes_no_commit(hub: Hub, published: dict[str, Outcome]) -> None:
    first, again = (json.loads(published[name].stdout)["uploaded"] for name in ("first", "again"))
    assert not again["changed"]
    assert again["commit"] == first["commit"]


def test_what_is_replaced_is_said_and_kept(hub: Hub, published: dict[str, Outcome]) -> None:
    first, changed = (json.loads(published[name].stdout)["uploaded"] for name in ("first", "changed"))
    assert changed["commit"] != first["commit"]
    assert "README.md" in changed["replaced"]
    commits = hub.repositories[REPOSITORY].commits
    assert b"license: mit" in commits[changed["commit"]]["README.md"]
    assert b"license: mit" not in commits[first["commit"]]["README.md"]


def test_a_branch_is_made(hub: Hub, published: dict[str, Outcome]) -> None:
    assert published["branch"].code == 0, published["branch"].stderr
    assert "branch trial" in published["branch"].stdout
    branches = hub.repositories[REPOSITORY].branches
    assert branches["trial"] != branches["main"]


def test_private_is_private(hub: Hub, published: dict[str, Outcome]) -> None:
    assert hub.repositories["me/private"].private
    assert "uploaded to me/private, private" in published["private"].stdout
    assert not hub.repositories[REPOSITORY].private


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("public-as-private", 2, "me/public is there and public, and --private was asked for"),
        ("something-else", 2, "holds something else (data.csv, model.bin) and no lens.json"),
        ("refused", 2, "the token may not write to me/refused (403)"),
        ("unknown-token", 2, "the hub does not take the token (401): run `hf auth login`"),
        ("meanwhile", 1, "me/meanwhile got another commit meanwhile (412)"),
        ("dying-commit", 1, "the commit is there whole or not at all: look at"),
        ("broken", 1, "the commit is there whole or not at all: look at"),
    ],
)
def test_a_refusal_is_one_line_and_no_commit(
    hub: Hub, published: dict[str, Outcome], name: str, code: int, says: str
) -> None:
    assert says in refusal(published[name], code, after_log=True)
    repository = hub.repositories["me/public" if name == "public-as-private" else f"me/{name}"]
    assert set(repository.messages) <= {"by hand", "initial commit"}


def test_a_connection_that_breaks_says_that_running_again_is_safe(published: dict[str, Outcome]) -> None:
    assert "run the same command again, what is there is not sent twice" in refusal(
        published["dying-commit"], 1, after_log=True
    )


# Reading


def test_readings_are_those_of_the_directory(read: dict[str, Outcome]) -> None:
    assert read["read"].code == 0, read["read"].stderr
    assert json.loads(read["read"].stdout) == json.loads(read["local"].stdout)


def test_info_names_address_and_commit(hub: Hub, read: dict[str, Outcome]) -> None:
    body, branch = json.loads(read["info"].stdout), json.loads(read["branch"].stdout)
    assert body["lenses"] == f"hf://{REPOSITORY}"
    assert body["commit"] == hub.repositories[REPOSITORY].branches["main"]
    assert branch["lenses"] == f"hf://{REPOSITORY}@trial"
    assert branch["commit"] == hub.repositories[REPOSITORY].branches["trial"]


def test_only_what_is_read_is_fetched(read: dict[str, Outcome], asked: dict[str, list[str]]) -> None:
    ours = [line for line in asked["read"] if line.startswith(f"GET /{REPOSITORY}/resolve/")]
    assert {line.rsplit("/", 1)[1] for line in ours} == {
        "lens.json",
        "layer-03.safetensors",
        "output.safetensors",
    }


def test_other_commands_take_an_address(read: dict[str, Outcome]) -> None:
    for name in ("eval", "export"):
        assert read[name].code == 0, read[name].stderr
    assert json.loads(read["eval"].stdout)["rows"] == 100


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("layer", 2, f"hf://{REPOSITORY} has no lens for layer 2: it has layers 0, 3"),
        ("damaged", 1, "layer-03.safetensors was altered since it was written: fetch it again with `hf download me/damaged layer-03.safetensors --revision"),
        ("dying", 2, "hf://me/dying: the hub cache"),
        ("none", 2, "hf://me/none holds no lenses (it has no lens.json)"),
        ("nowhere", 2, "there is no model me/nowhere on the hub, or it is private"),
        ("revision", 2, f"model {REPOSITORY} has no revision nope on the hub"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(read: dict[str, Outcome], name: str, code: int, says: str) -> None:
    assert says in refusal(read[name], code, after_log=True)


# Offline


def test_what_was_fetched_is_read_without_network(
    read: dict[str, Outcome], offline: dict[str, Outcome], asked: dict[str, list[str]]
) -> None:
    assert offline["read"].code == 0, offline["read"].stderr
    assert offline["read"].stdout == read["read"].stdout
    assert asked["offline"] == []


def test_what_was_not_fetched_says_what_to_run(hub: Hub, home: Path, offline: dict[str, Outcome]) -> None:
    commit = hub.repositories[REPOSITORY].branches["main"]
    line = refusal(offline["unread"], after_log=True)
    assert f"the hub cache {home}/hub has no whole copy, and HF_HUB_OFFLINE is set" in line
    assert f"run `hf download {REPOSITORY} --revision {commit}` where there is network" in line
    assert "run `hf download me/private` where there is network" in refusal(offline["never"], after_log=True)


def test_an_upload_without_network_is_refused_first(offline: dict[str, Outcome]) -> None:
    assert "HF_HUB_OFFLINE is set: unset it to upload; nothing was sent" in refusal(
        offline["upload"], after_log=True
    )
