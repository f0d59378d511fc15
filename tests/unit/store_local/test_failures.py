"""A full disk, a damaged file, a file taken away: what is said, and that nothing is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ciliate.model.kinds import POD
from ciliate.store import UnavailableError
from ciliate_store_local import mend
from ciliate_store_local.driver import LocalStore
from ciliate_store_local.errors import CorruptError

from tests.unit.store_local.conftest import OpenStore, pod


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "store-test", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_is_named_loses_nothing_and_mends_itself(small_disk: Path) -> None:
    store = LocalStore({"path": str(small_disk / "store.db")}, ())
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1_500_000)
    made: set[str] = set()
    with pytest.raises(UnavailableError, match=rf"no room .* bytes are free in {small_disk}; nothing was lost"):
        for number in range(1000):
            await store.create(pod(f"p{number}", text="x" * 20_000))
            made.add(f"p{number}")
    assert len(made) > 10
    assert {o["metadata"]["name"] for o in (await store.list(POD)).items} == made
    ballast.unlink()
    await store.create(pod("after", text="x" * 20_000))
    await store.close()
    reopened = LocalStore({"path": str(small_disk / "store.db")}, ())
    assert {o["metadata"]["name"] for o in (await reopened.list(POD)).items} == made | {"after"}
    await reopened.close()


async def first_call(path: Path) -> None:
    """Open a store, which says what is wrong with its first call."""
    store = LocalStore({"path": str(path)}, ())
    try:
        await store.list(POD)
    finally:
        await store.close()


async def test_a_store_that_can_not_be_opened_opens_by_itself_when_it_can(small_disk: Path) -> None:
    path = small_disk / "store.db"
    await fill(path, 1)
    ballast = small_disk / "ballast"
    with pytest.raises(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 1024)
    store = LocalStore({"path": str(path)}, ())
    for _ in range(2):
        with pytest.raises(UnavailableError, match="no room for store"):
            await store.list(POD)
        with pytest.raises(UnavailableError, match="no room for store"):
            await store.create(pod("more"))
    ballast.unlink()
    assert len((await store.list(POD)).items) == 1
    await store.create(pod("more"))
    await store.close()


async def fill(path: Path, count: int) -> None:
    store = LocalStore({"path": str(path)}, ())
    for number in range(count):
        await store.create(pod(f"p{number}", text="x" * 2000))
    await store.close()


async def test_a_damaged_file_is_named_kept_and_can_be_mended(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await fill(path, 300)
    with path.open("r+b") as file:
        for page in (40, 41, 90):
            file.seek(page * 4096)
            file.write(os.urandom(4096))
    damaged = path.read_bytes()
    for _ in range(3):
        with pytest.raises(CorruptError, match=rf"store {path} is damaged .*a copy is in .*ciliate_store_local.mend"):
            await first_call(path)
    assert path.read_bytes() == damaged, "the file itself is left as it was"
    kept = [p for p in path.parent.iterdir() if ".corrupt-" in p.name and not p.name.endswith("-wal")]
    assert len(kept) == 1 and kept[0].read_bytes() == damaged

    assert mend.main([str(path)]) == 0
    assert "objects saved" in capsys.readouterr().out
    path.with_name("store.db.mended").rename(path)
    store = LocalStore({"path": str(path)}, ())
    saved = (await store.list(POD)).items
    assert len(saved) >= 290
    again = await store.update({**saved[0], "spec": {}})
    assert int(again["metadata"]["resourceVersion"]) > max(int(o["metadata"]["resourceVersion"]) for o in saved)
    await store.close()


async def test_damage_found_while_running_is_said_by_every_call(open_store: OpenStore, path: Path) -> None:
    await fill(path, 300)
    store = open_store()
    with path.open("r+b") as file:
        for page in range(2, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(os.urandom(4096))
    with pytest.raises(CorruptError):
        await store.list(POD)
    with pytest.raises(CorruptError):
        await store.create(pod("web"))


async def test_what_is_not_a_store_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database at all" * 1000)
    with pytest.raises(CorruptError, match="not a database"):
        await first_call(path)
    assert mend.main([str(path)]) == 1
    path.unlink()
    subprocess.run(["sqlite3", str(path), "CREATE TABLE t (a); PRAGMA user_version = 3"], check=True)
    with pytest.raises(UnavailableError, match="not a store of Ciliate"):
        await first_call(path)


async def test_a_file_taken_away_while_in_use_takes_no_writes(open_store: OpenStore, path: Path) -> None:
    store = open_store()
    path.unlink()
    with pytest.raises(UnavailableError, match="deleted or replaced"):
        await store.create(pod("web"))


async def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match=r"file/store.db can't be opened"):
        await first_call(tmp_path / "file" / "store.db")


async def test_a_closed_store_says_so(open_store: OpenStore) -> None:
    store = open_store()
    await store.close()
    await store.close()
    for call in (store.list(POD), store.create(pod("web"))):
        with pytest.raises(UnavailableError, match="closed"):
            await call
