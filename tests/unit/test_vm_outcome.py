"""What is made of a machine's console: a run counts as passed only when the machine said so and its kernel was calm."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import pytest
from conftest import recorded
from vm import boot
from vm.boot import options_from, outcome
from vm.image import write_archive

PASSED = "KERNEL 6.1.0, up after 5 s\n========= 12 passed in 3.40s =========\nRESULT 0\n"


def test_pytests_own_line_is_kept() -> None:
    found = outcome("6.1.0", PASSED, 60)
    assert (found.status, found.summary) == (0, "========= 12 passed in 3.40s =========")


def test_a_machine_that_stops_half_way_has_no_result() -> None:
    assert outcome("6.1.0", PASSED.replace("RESULT 0", "Kernel panic"), 60).status is None


def test_a_kernel_that_complains_fails_the_run_although_all_tests_passed() -> None:
    found = outcome("6.1.0", PASSED.replace("RESULT 0", "WARNING: CPU: 0\nRESULT 99"), 60)
    assert found.status == 99
    assert "COMPLAINED" in str(found)


def test_an_unknown_kernel_is_refused_and_the_known_ones_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options_from(["--kernels", "4.19"])
    assert "6.1, 5.10, 6.12" in capsys.readouterr().err


def test_a_kernel_that_passed_at_this_commit_is_not_booted_again_when_proving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, options, at = tmp_path / "proof.json", options_from(["--kernels", "6.1,5.10", "--", "-q"]), "abc"
    monkeypatch.setattr(boot, "PROVING", True)
    monkeypatch.setattr(boot, "commit", lambda: at)
    monkeypatch.setattr(boot, "proven", partial(boot.proven, file=file))
    monkeypatch.setattr(boot, "record", partial(boot.record, file=file))
    boot.write_down("6.1", options, outcome("6.1.0-9", PASSED, 60))
    boot.write_down("5.10", options, outcome("5.10.0-9", PASSED.replace("RESULT 0", "RESULT 1"), 60))
    assert list(boot.left_to_run(options)) == ["5.10"]
    assert "6.1: passed" in capsys.readouterr().out
    assert recorded(file)[0] == {
        "id": "kernel 6.1", "count": 12, "seed": 0, "release": "6.1.0-9", "result": "passed", "commit": "abc",
        "test": "make test-kernels 6.1 tests/bpf -q",
    }  # fmt: skip
    at = "def"
    assert list(boot.left_to_run(options)) == ["6.1", "5.10"]


def entries(archive: bytes) -> dict[str, bytes]:
    """A second reader of cpio's newc form: thirteen hexadecimal fields, a name, a body, each padded to four bytes."""
    found, at = {}, 0
    while True:
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        size, name_size = fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        start = at + (110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = archive[start : start + size]
        at = start + (size + 3) // 4 * 4


def test_an_archive_holds_files_and_links_and_begins_with_what_contains_them(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", io.BytesIO()
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/tool").write_bytes(b"abcde")
    (tree / "sbin").symlink_to("bin")
    write_archive(tree, out)
    assert list(entries(out.getvalue()).items()) == [(".", b""), ("bin", b""), ("bin/tool", b"abcde"), ("sbin", b"bin")]
