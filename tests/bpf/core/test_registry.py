"""The registry: who owns which map, what survives a restart, what gives way to a new layout."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from ciliate.kernel.errors import KernelError
from ciliate.maps.ownership import MapOwnedError
from ciliate.maps.registry import MapDeclarationError, MapRegistry

from tests.bpf.core.conftest import COUNTERS, DECLARED, RECORDS

KEY = (128, bytes(16))


def restarted(registry: MapRegistry) -> MapRegistry:
    registry.close()
    return MapRegistry(registry.root)


def test_an_equal_map_is_adopted_with_its_content(registry: MapRegistry) -> None:
    registry.declare(DECLARED, "policy")
    assert registry.create() == []
    registry.open("declared", writable=True).update(KEY, (5, 0, 0))
    number = registry.open("declared").info().id
    with restarted(registry) as again:
        again.declare(DECLARED, "policy")
        assert again.create() == []
        assert again.open("declared").info().id == number
        found = again.open("declared").lookup(KEY)
        assert found is not None
        assert found["identity"] == 5


OTHER_FIELDS = np.dtype([("port", ">u2"), ("pad", "<u2"), ("identity", "<u4")])


@pytest.mark.parametrize(
    "changed",
    [
        dataclasses.replace(DECLARED, max_entries=7),
        dataclasses.replace(DECLARED, value=np.dtype([("identity", "<u8")])),
        dataclasses.replace(DECLARED, value=OTHER_FIELDS),
    ],
    ids=["more entries", "a larger value", "other fields of the same size"],
)
def test_a_changed_map_is_made_anew_and_the_old_one_kept(registry: MapRegistry, changed: object) -> None:
    registry.declare(DECLARED, "policy")
    registry.create()
    registry.open("declared", writable=True).update(KEY, (5, 0, 0))
    with restarted(registry) as again:
        again.declare(changed, "policy")  # type: ignore[arg-type]
        (change,) = again.create()
        assert (change.name, again.changes) == ("declared", [change])
        assert again.open("declared").count() == 0
        with MapRegistry(again.root) as reader:
            attached = reader.open(DECLARED)
            assert attached.count() == 1  # until the programs of the new one are attached
            attached.close()
        again.swap()
        assert change.kept.exists() and again.changes == []
        assert again.names() == ["declared"]
        again.drop_old()
        assert not change.kept.exists()


def test_a_new_map_that_was_not_swapped_yet_is_found_again(registry: MapRegistry) -> None:
    changed = dataclasses.replace(DECLARED, max_entries=7)
    registry.declare(DECLARED, "policy")
    registry.create()
    with restarted(registry) as second:
        second.declare(changed, "policy")
        second.create()
        number = second.open("declared").info().id
        with restarted(second) as third:
            third.declare(changed, "policy")
            assert len(third.create()) == 1
            assert third.open("declared").info().id == number
            with restarted(third) as fourth:  # back to the version before
                fourth.declare(DECLARED, "policy")
                assert fourth.create() == []
                assert fourth.open("declared").info().id != number
                assert list((fourth.root / "new").iterdir()) == []


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_a_swap_that_death_cuts_short_is_finished_at_the_next_start(
    registry: MapRegistry, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    changed = dataclasses.replace(DECLARED, max_entries=7)
    registry.declare(DECLARED, "policy")
    registry.create()
    with restarted(registry) as second:
        second.declare(changed, "policy")
        second.create()
        number = second.open("declared").info().id
        rename, done = Path.rename, []

        def dies(self: Path, target: Path) -> Path:
            done.append(target)
            if len(done) > steps:
                raise SystemExit
            return rename(self, target)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", dies)
            with contextlib.suppress(SystemExit):
                second.swap()
        with restarted(second) as third:
            third.declare(changed, "policy")
            assert third.create() == []
            assert third.open("declared").info().id == number
            assert third.names() == ["declared"]


def test_a_map_stands_for_what_another_gave_way_to(registry: MapRegistry) -> None:
    before = dataclasses.replace(DECLARED, name="declared_old", max_entries=1, predecessor_of="declared")
    for spec in (DECLARED, before):
        registry.declare(spec, "policy")
    registry.create()
    registry.open("declared", writable=True).update(KEY, (5, 0, 0))
    empty = registry.open("declared_old").info().id
    number = registry.open("declared").info().id
    with restarted(registry) as again:
        for spec in (dataclasses.replace(DECLARED, max_entries=7), before):
            again.declare(spec, "policy")
        again.create()
        assert again.open("declared_old").info().id == number
        again.swap()
        with restarted(again) as third:
            for spec in (dataclasses.replace(DECLARED, max_entries=7), before):
                third.declare(spec, "policy")
            assert third.create() == []
            assert third.open("declared_old").info().id == number
            third.drop_old()
            assert third.open("declared_old").info().id == empty


def test_what_has_other_fields_is_not_read_through(registry: MapRegistry) -> None:
    registry.declare(DECLARED, "policy")
    registry.create()
    with restarted(registry) as again:
        changed = dataclasses.replace(DECLARED, value=OTHER_FIELDS)
        again.declare(changed, "policy")
        again.declare(
            dataclasses.replace(changed, name="declared_old", max_entries=1, predecessor_of="declared"), "policy"
        )
        again.create()
        assert again.open("declared_old").info().max_entries == 1


def test_stray_things_in_the_folder_do_no_harm(registry: MapRegistry) -> None:
    (registry.folder / "declared").mkdir(parents=True)
    (registry.folder / "somebody").mkdir()
    (registry.folder / "link").symlink_to("nowhere")
    registry.declare(DECLARED, "policy")
    registry.declare(COUNTERS, "policy")
    assert [change.name for change in registry.create()] == ["declared"]
    registry.swap()
    assert set(registry.names()) == {"counters", "declared"}
    registry.delete_all()
    assert list(registry.root.iterdir()) == []


def test_a_map_belongs_to_one_plugin(registry: MapRegistry) -> None:
    registry.declare(DECLARED, "policy")
    registry.declare(DECLARED, "policy")
    with pytest.raises(MapDeclarationError, match="dns declares it, but it belongs to policy"):
        registry.declare(DECLARED, "dns")
    with pytest.raises(MapDeclarationError, match=r"declares it twice, .* 500 entries.* 9 entries"):
        registry.declare(dataclasses.replace(DECLARED, max_entries=9), "policy")


def test_a_map_belongs_to_one_process(registry: MapRegistry) -> None:
    code = (
        "import sys; from pathlib import Path; from ciliate.maps.registry import MapRegistry\n"
        "from tests.bpf.core.conftest import DECLARED\n"
        f"r = MapRegistry(Path({str(registry.root)!r})); r.declare(DECLARED, 'policy'); r.create()\n"
        "r.open('declared', writable=True).update((128, bytes(16)), (9, 0, 0)); print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True, cwd=Path.cwd()) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        registry.declare(DECLARED, "policy")
        with pytest.raises(MapOwnedError, match=f"map declared is owned by process {other.pid} "):
            registry.create()
        with pytest.raises(MapOwnedError, match="is not this process's"):
            registry.open(DECLARED, writable=True)
        reader = registry.open(DECLARED)
        found = reader.lookup(KEY)
        reader.close()
        other.kill()
    assert found is not None
    assert found["identity"] == 9
    registry.create()
    assert registry.open("declared", writable=True).count() == 1


def test_opening_what_nobody_made_or_declared_says_so(registry: MapRegistry) -> None:
    with pytest.raises(KernelError, match=r"opening the pin .*/maps/declared: No such file"):
        registry.open(DECLARED)
    with pytest.raises(MapDeclarationError, match="map nonsense is declared by nobody here"):
        registry.open("nonsense")


def test_a_reader_of_another_version_is_refused(registry: MapRegistry) -> None:
    registry.declare(DECLARED, "policy")
    registry.create()
    with pytest.raises(MapDeclarationError, match=r"500 entries.*not.*9 entries"):
        MapRegistry(registry.root).open(dataclasses.replace(DECLARED, max_entries=9))


def test_without_a_bpffs_the_mount_command_is_named() -> None:
    with tempfile.TemporaryDirectory(prefix="coreb-") as folder:
        registry = MapRegistry(Path(folder) / "ciliate")
        registry.declare(DECLARED, "policy")
        with pytest.raises(KernelError, match="mount -t bpf bpf") as refused:
            registry.create()
        assert folder in str(refused.value)
        assert list(Path(folder).iterdir()) == []


def test_a_ring_buffer_is_made_and_adopted(registry: MapRegistry) -> None:
    registry.declare(RECORDS, "hubble")
    registry.create()
    with restarted(registry) as again:
        again.declare(RECORDS, "hubble")
        assert again.create() == []


def test_without_rights_the_error_says_which(registry: MapRegistry) -> None:
    registry.declare(DECLARED, "policy")
    registry.create()
    code = (
        "import os; from pathlib import Path; from ciliate.maps.registry import MapRegistry\n"
        "from tests.bpf.core.conftest import DECLARED\n"
        f"r = MapRegistry(Path({str(registry.root)!r})); os.setuid(65534)\n"
        "try: r.open(DECLARED)\n"
        "except OSError as error: print(error)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert "CAP_BPF" in shown.stdout


def test_maps_of_a_plugin_go_when_it_is_disabled_but_not_before(registry: MapRegistry) -> None:
    registry.leaving = {"limiter": "agent"}
    registry.declare(DECLARED, "limiter")
    registry.declare(COUNTERS, "policy")  # an essential plugin's
    registry.create()
    with MapRegistry(registry.root) as other:
        assert other.drop_left("agent", []) == []  # its owner lives
    with restarted(registry) as again:
        assert again.drop_left("agent", ["limiter"]) == []
        assert again.drop_left("operator", []) == []  # not that process's
        assert again.drop_left("agent", ["policy"]) == ["declared"]
        assert again.names() == ["counters"]
        assert not list(registry.root.glob("*/declared"))


def test_maps_of_a_plugin_that_has_become_essential_stay(registry: MapRegistry) -> None:
    registry.leaving = {"limiter": "agent"}
    registry.declare(DECLARED, "limiter")
    registry.create()
    with restarted(registry) as again:
        again.declare(DECLARED, "limiter")
        again.create()
    with restarted(registry) as third:
        assert third.drop_left("agent", []) == []
