"""Downloads against a real server on this machine: whole, wrong, cut short, missing, silent, killed, no room."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_host import FOREVER, Server, closed_port, running_host
from forked import forked

from misure.errors import MisureError
from misure.io.atomic import partial_of
from misure.io.download import (
    LONGEST_PAUSE,
    DamagedError,
    NotServedError,
    Patience,
    TooLargeError,
    UnreachableError,
    fetch,
    file_digest,
    file_name_of,
    is_reachable,
)

BODY = bytes(range(256)) * 1000  # several blocks
DIGEST = hashlib.sha256(BODY).hexdigest()
SHORT_WAIT = 0.3  # seconds; what an unresponsive server is given here
QUICK = Patience(attempts=2, wait=0.01, timeout=SHORT_WAIT)


@pytest.fixture
def server() -> Iterator[Server]:
    with running_host({"/file": BODY}) as running:
        yield running


@pytest.fixture
def url(server) -> str:
    return f"{server.url}/file"


@pytest.mark.parametrize("older", [None, BODY[:-1], b""])
def test_a_whole_file_arrives_and_is_not_fetched_again(server, url, tmp_path, older):
    path = tmp_path / "folder" / "file"
    if older is not None:
        path.parent.mkdir()
        path.write_bytes(older)
    assert is_reachable(f"{server.url}/any")  # whatever it answers
    for _ in range(2):
        assert fetch(url, path, digest=DIGEST) == path
    assert path.read_bytes() == BODY
    assert file_digest(path) == DIGEST
    assert server.asked == ["/file"]
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_without_a_digest_the_check_decides_and_a_file_is_fetched_anew(server, url, tmp_path):
    path = tmp_path / "file"
    for _ in range(2):
        fetch(url, path, digest=None, check=lambda partial: partial.read_bytes() == BODY)
    assert len(server.asked) == 2

    def refuse(partial):
        raise DamagedError("no picture")

    with pytest.raises(DamagedError, match="no picture"):
        fetch(url, path, digest=None, check=refuse, patience=QUICK)
    assert len(server.asked) == 4  # what fails its check is asked for again
    assert path.read_bytes() == BODY


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("sha256", DIGEST.upper()),
        ("sha256", DIGEST[:8]),  # as in the names of PyTorch's files
        ("md5", hashlib.md5(BODY).hexdigest()),
    ],
)
def test_the_start_of_a_digest_in_any_case_suffices(server, url, tmp_path, algorithm, digest):
    for _ in range(2):
        fetch(url, tmp_path / "file", digest=digest, algorithm=algorithm)
    assert server.asked == ["/file"]


OTHER = f"{'0' if DIGEST[0] != '0' else '1'}{DIGEST[1:8]}"


@pytest.mark.parametrize(
    ("fault", "digest", "kind", "asked"),
    [
        ("none", "", DamagedError, 1),  # another file on the server does not change by asking again
        ("none", DIGEST + "0", DamagedError, 1),
        ("none", OTHER, DamagedError, 1),
        ("cut", DIGEST, DamagedError, 2),
        ("stall", DIGEST, UnreachableError, 2),
        ("garbled", DIGEST, UnreachableError, 2),
        ("other tag", DIGEST, DamagedError, 2),
        ("404", DIGEST, NotServedError, 1),
        ("500", DIGEST, UnreachableError, 2),
        ("429", DIGEST, UnreachableError, 2),
    ],
)
def test_a_bad_answer_leaves_what_was_there_and_nothing_half_written(server, url, tmp_path, fault, digest, kind, asked):  # noqa: PLR0917
    target = tmp_path / "file"
    target.write_bytes(b"older")
    server.faults = {"/file": [fault] * FOREVER}
    with pytest.raises(kind, match=rf"^.*{url}.*$") as caught:
        fetch(url, target, digest=digest, patience=QUICK)
    assert type(caught.value) is kind
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert target.read_bytes() == b"older"
    assert len(server.asked) == asked


def test_an_md5_is_believed_from_s3_alone(server, url, tmp_path):
    server.software, server.faults = "another", {"/file": ["other tag"]}
    assert fetch(url, tmp_path / "file", digest=DIGEST).read_bytes() == BODY


def test_a_closed_or_silent_port_and_a_local_address_are_unreachable(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        quiet = f"http://127.0.0.1:{silent.getsockname()[1]}/whole"
        for url, reason in ((closed_port(), "refused"), (quiet, "timed out"), (Path(__file__).as_uri(), "file:")):
            assert not is_reachable(url, timeout=SHORT_WAIT)
            with pytest.raises(UnreachableError, match=reason):
                fetch(url, tmp_path / "file", digest=DIGEST, patience=QUICK)
    assert not list(tmp_path.iterdir())


def test_the_reason_is_the_downloads_own_while_another_error_is_handled(tmp_path):
    try:
        {}["handled meanwhile"]
    except KeyError:
        with pytest.raises(UnreachableError, match="refused"):
            fetch(closed_port(), tmp_path / "file", digest=DIGEST, patience=QUICK)


class Clock:
    """Stands in for the event that is waited on: notes the pauses, and is set after some of them."""

    def __init__(self, set_after: int) -> None:
        self.pauses: list[float] = []
        self.set_after = set_after

    def wait(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        return len(self.pauses) >= self.set_after


@pytest.mark.parametrize(
    ("set_after", "pauses"), [(FOREVER, [1, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE]), (2, [1, 2])]
)
def test_faults_are_waited_out_with_doubling_pauses_until_that_is_no_use_any_more(
    server, url, tmp_path, set_after, pauses
):
    clock = Clock(set_after)
    server.faults = {"/file": ["500"] * FOREVER}
    with pytest.raises(UnreachableError):
        fetch(url, tmp_path / "file", digest=DIGEST, patience=Patience(attempts=9), stop=clock)
    assert clock.pauses == pauses


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full: Linux alone has a disk that is always full")
def test_a_full_disk_is_one_line_and_not_asked_for_again(server, url, tmp_path):
    partial_of(tmp_path / "file").symlink_to("/dev/full")
    with pytest.raises(MisureError, match=r"^cannot write .*file: No space left on device.*$"):
        fetch(url, tmp_path / "file", digest=DIGEST)
    assert server.asked == ["/file"]
    assert not list(tmp_path.iterdir())


def test_a_killed_download_leaves_no_file_and_the_next_one_cleans_up(server, url, tmp_path):
    path = tmp_path / "file"
    server.faults = {"/file": ["stall"]}
    with forked(fetch, url, path, digest=DIGEST, patience=Patience(timeout=600)) as process:
        while process.is_alive() and not (server.asked and list(tmp_path.iterdir())):
            time.sleep(0.02)
    assert [left.suffix for left in tmp_path.iterdir()] == [".part"]
    fetch(url, path, digest=DIGEST)
    assert [left.name for left in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("most", [0, 1, len(BODY) - 1])
def test_a_server_that_sends_more_than_a_file_can_have_is_stopped(server, url, tmp_path, most):
    with pytest.raises(TooLargeError, match=f"{url} has more than"):
        fetch(url, tmp_path / "file", digest=DIGEST, patience=QUICK, most_bytes=most)
    assert server.asked == ["/file"]
    assert not any(tmp_path.iterdir())
    assert fetch(url, tmp_path / "file", digest=DIGEST, most_bytes=len(BODY)).read_bytes() == BODY


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.org/a/weights-1234.pth", "weights-1234.pth"),
        ("https://example.org/weights.pth?x=/../../y#z", "weights.pth"),
        ("https://example.org/a/%2e%2e%2fb", "%2e%2e%2fb"),
        *((f"https://example.org{path}", None) for path in ("", "/", "/a/..", "/a/b%5c".replace("%5c", "\\"))),
    ],
)
def test_the_last_part_of_an_address_names_a_file(url, name):
    if name is None:
        with pytest.raises(MisureError, match="names no file"):
            file_name_of(url)
    else:
        assert file_name_of(url) == name
