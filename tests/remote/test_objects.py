import ssl
import sys
import time
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from alens.errors import AlensError, DamageError, RequestError, RunError
from alens.remote import objects
from alens.remote.address import address
from alens.remote.objects import Objects
from alens.remote.patience import Patience

from ..object_servers import FaultyServer, S3Server, faulty_server

SHORT = Patience(tries=3, silence_s=0.3, request_s=5, first_wait_s=0.01)


def at(text: str) -> Objects:
    where = address(text)
    assert where is not None
    return Objects(where, SHORT)


@pytest.fixture
def bucket(s3: S3Server) -> Objects:
    return at(f"s3://{s3.new_bucket()}/some/prefix")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "BLOCK_BYTES", 1000)


def content(size: int) -> bytes:
    return bytes(i * 7 % 251 for i in range(size))


def whole(where: Objects, path: str, size: int) -> bytes:
    return b"".join(where.blocks(path, size))


def refusal(error: type[AlensError], work: object, *arguments: object) -> str:
    with pytest.raises(error) as refused:
        work(*arguments)  # type: ignore[operator]  # a function of the test
    line = str(refused.value)
    assert "\n" not in line
    return line


def test_objects_are_written_listed_and_read(bucket: Objects, tmp_path: Path, small_blocks: None) -> None:
    (tmp_path / "file").write_bytes(content(9_500))
    bucket.put("a/b.0.0", tmp_path / "file")
    bucket.put("plan.json", b"{}")
    assert bucket.size("a/b.0.0") == 9_500 and bucket.exists("plan.json") and bucket.size("a") is None
    assert dict(bucket.names() or ()) == {"a/b.0.0": 9_500, "plan.json": 2}
    assert whole(bucket, "a/b.0.0", 9_500) == content(9_500)
    assert bucket.read("plan.json") == b"{}"
    assert whole(bucket, "plan.json", 2) == b"{}"


def test_every_page_of_a_long_list_is_read(bucket: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PAGE", 2)
    for number in range(5):
        bucket.put(f"folder/{number}", b"")
    assert [name for name, _ in bucket.names() or ()] == [f"folder/{number}" for number in range(5)]


def test_a_large_object_is_sent_in_parts(
    bucket: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PART_BYTES", 5 * 2**20)
    (tmp_path / "file").write_bytes(bytes(11 * 2**20))
    bucket.put("large", tmp_path / "file")
    assert bucket.size("large") == 11 * 2**20


def test_what_is_not_there_is_absent(bucket: Objects) -> None:
    with pytest.raises(FileNotFoundError) as absent:
        bucket.read("nothing")
    assert absent.value.filename == f"{bucket.address}/nothing"
    with pytest.raises(FileNotFoundError):
        whole(bucket, "nothing", 5)


def test_a_bucket_that_does_not_exist_is_named(s3: S3Server) -> None:
    line = refusal(RequestError, at("s3://no-such-bucket/x").read, "plan.json")
    assert line == (
        "cannot read s3://no-such-bucket/x/plan.json: there is no such bucket; look at its name and at AWS_ENDPOINT_URL"
    )


def test_without_credentials_the_variables_are_named(
    faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", faulty.endpoint)
    faulty.fail("404", "latest")
    line = refusal(RequestError, at("s3://bucket/x").read, "plan.json")
    assert line.startswith(
        "cannot read s3://bucket/x/plan.json: there are no credentials; set AWS_ACCESS_KEY_ID and"
    )


def test_without_obstore_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    line = refusal(RequestError, at, "s3://bucket/x")
    assert line == "s3://bucket/x is read with obstore, which is not installed: pip install 'alens[s3]'"


@pytest.mark.parametrize("fault", ["503", "close", "silent", "stall", "cut"])
def test_a_request_that_fails_is_made_again(
    bucket: Objects, faulty: FaultyServer, small_blocks: None, fault: str
) -> None:
    bucket.put("object", content(9_500))
    faulty.requests.clear()
    faulty.fail(fault, "GET .*object", times=2)  # type: ignore[arg-type]  # one of the faults
    assert whole(bucket, "object", 9_500) == content(9_500)
    assert len(faulty.requests) == 12


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("503", "the server answers 503 Service Unavailable"),
        ("silent", "nothing came in time"),
        ("close", ""),
    ],
)
def test_a_server_that_fails_to_the_end_gives_one_line(
    bucket: Objects, faulty: FaultyServer, fault: str, why: str
) -> None:
    bucket.put("object", content(100))
    faulty.fail(fault, "object")  # type: ignore[arg-type]  # one of the faults
    line = refusal(RunError, whole, bucket, "object", 100)
    assert line.startswith(f"cannot read {bucket.address}/object: {why}")
    assert line.endswith(
        "3 tries in 0 s; look at the network and at the server, then run again: what was fetched or sent whole is kept"
        if fault != "silent"
        else "3 tries in 1 s; look at the network and at the server, then run again: what was fetched or sent whole is kept"
    )


def test_no_server_gives_one_line_within_the_time(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    line = refusal(RunError, at("s3://bucket/x").put, "plan.json", b"{}")
    assert line.startswith(
        "cannot write s3://bucket/x/plan.json: connection refused, 3 tries in 0 s; look at"
    )
    assert time.monotonic() - began < 5


def test_an_object_of_another_size_is_damaged(bucket: Objects, faulty: FaultyServer) -> None:
    bucket.put("object", content(100))
    line = refusal(DamageError, whole, bucket, "object", 200)
    assert line == f"{bucket.address}/object has 100 bytes, not the 200 that were committed"


def test_a_directory_is_read_over_http_with_and_without_ranges(tmp_path: Path, small_blocks: None) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "c.0.0").write_bytes(content(9_500))
    with faulty_server(tmp_path) as server:
        where = at(f"{server.endpoint}/a b")
        assert whole(where, "c.0.0", 9_500) == content(9_500)
        server.ranges = False
        server.fail("cut", "c.0.0", times=2)
        assert whole(where, "c.0.0", 9_500) == content(9_500)
        assert where.names() is None and where.size("c.0.0") == 9_500 and where.size("d") is None
        line = refusal(RequestError, where.put, "x", b"")
        assert line == f"{where.address} can only be read: write to s3://BUCKET/PREFIX"


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of 127.0.0.1 that nobody else knows, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    written, secret = folder / "certificate.pem", folder / "key.pem"
    pem = serialization.Encoding.PEM
    written.write_bytes(made.public_bytes(pem))
    secret.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(written, secret)
    return written, context


def test_https_is_read_where_the_certificate_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "object").write_bytes(content(100))
    known, context = certificate(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with faulty_server(tmp_path, context) as server:
        line = refusal(RunError, whole, at(server.endpoint), "object", 100)
        assert line.startswith(f"cannot read {server.endpoint}/object: ") and "3 tries" in line
        monkeypatch.setenv("SSL_CERT_FILE", str(known))
        assert whole(at(server.endpoint), "object", 100) == content(100)
