"""Words that are written down twice, since commands must begin quickly, are the same."""

from __future__ import annotations

import subprocess
import sys

from ciliate.model.identity import Reserved
from ciliate.model.reasons import DropReason
from ciliate_hubble.words import DROP_TEXTS, RESERVED_NAMES


def test_names_of_reserved_identities_are_those_of_the_contract() -> None:
    assert tuple(member.label.partition(":")[2] for member in Reserved) == RESERVED_NAMES


def test_drop_reasons_of_the_data_path_have_hubbles_texts() -> None:
    assert {int(reason): DROP_TEXTS[reason] for reason in DropReason} == {int(r): r.text for r in DropReason}


def test_help_needs_neither_grpc_nor_numpy_and_a_request_no_numpy() -> None:
    script = (
        "import sys; import ciliate_hubble.commands; assert not {'grpc', 'numpy', 'google'} & set(sys.modules);"
        "import ciliate_hubble.cli.observe; assert 'grpc' in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
