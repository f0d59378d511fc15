"""What the .proto files come to is what is committed."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_generated_code_is_that_of_the_proto_files(tmp_path: Path) -> None:
    subprocess.run([ROOT / "scripts" / "proto", tmp_path], check=True, timeout=60)
    made = {path.name: path.read_text() for path in (tmp_path / "ciliate_hubble" / "api").iterdir()}
    committed = {path.name: path.read_text() for path in (ROOT / "plugins/hubble/ciliate_hubble/api").glob("*_pb2*")}
    assert made == committed, "run `make proto` and commit what it writes"
