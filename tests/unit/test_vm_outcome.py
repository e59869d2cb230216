"""What is made of a machine's console: a run counts as passed only when the machine said so and its kernel was calm."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
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
