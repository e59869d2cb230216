"""The two C programs, read in one process by a fuzz loop that coverage leads, with address and undefined sanitizers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Proof
from contract.programs import SANITIZED, environment, short_directory

HERE = Path(__file__).parent
SEED = 5


@pytest.fixture(scope="module", params=["shim", "relay"])
def program(request: pytest.FixtureRequest) -> Iterator[Path]:
    with short_directory() as directory:
        built = directory / request.param
        # What of a program's source the loop does not call is no fault here.
        flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-fsanitize-coverage=trace-pc"]
        subprocess.run(["gcc", *flags, *SANITIZED, str(HERE / f"{request.param}.c"), "-o", str(built)], check=True)
        yield built


def test_no_input_makes_a_program_of_ours_do_what_c_does_not_define(program: Path, proof: Proof) -> None:
    count = proof.count(f"S18 {program.name}", small=2_000, full=500_000, seed=SEED)
    tried = program.with_suffix(".tried")
    words = [str(program), str(count), str(SEED), str(tried)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}\nseed {SEED}: {tried.read_bytes()[8:2000].rstrip(bytes(1))!r}"
