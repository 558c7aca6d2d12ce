"""The judged specs: true for their generation alone, kept in the store, told again when lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from nexus_api import LLMBackend
from nexus_api.fingerprint import verdict_fingerprint
from nexus_operator.specs import SpecRow, Specs
from nexus_operator.store import FILE, Store
from nexus_quality.saved import Batch

Build = Callable[..., LLMBackend]


def published(backend: Build, *, generation: int = 1, observed: int = 1) -> LLMBackend:
    return backend(meta={"generation": generation}, status={"observedGeneration": observed})


def test_a_fingerprint_is_given_for_its_generation_alone(backend: Build) -> None:
    specs, thing = Specs(), published(backend)
    specs.published(thing)
    assert specs.fingerprint("uid-a", 1) == verdict_fingerprint(thing.spec)
    assert specs.fingerprint("uid-a", 2) is None and specs.fingerprint("uid-b", 1) is None


def test_a_spec_that_its_status_is_not_about_is_not_taken_for_judged(backend: Build) -> None:
    specs = Specs()
    specs.published(published(backend, generation=2, observed=1))
    assert not specs.changed and specs.fingerprint("uid-a", 2) is None


def test_what_is_known_already_is_not_saved_again(backend: Build) -> None:
    specs = Specs()
    specs.published(published(backend))
    specs.collect(everything=False)
    specs.saved()
    specs.published(published(backend))
    assert not specs.changed


def test_what_could_not_be_saved_comes_again_as_it_is_by_then(backend: Build) -> None:
    specs = Specs()
    specs.published(published(backend))
    (row,), gone = specs.collect(everything=False)
    assert row.generation == 1 and gone == []
    specs.published(published(backend, generation=2, observed=2))
    specs.put_back()
    (row,), _ = specs.collect(everything=False)
    assert row.generation == 2
    specs.put_back()
    specs.forget("uid-a")
    assert specs.collect(everything=False) == ([], ["uid-a"])


def test_a_new_file_gets_all_of_them() -> None:
    specs = Specs()
    specs.recall([SpecRow("uid-a", 1, "f"), SpecRow("uid-b", 3, "g")])
    assert not specs.changed
    assert specs.collect(everything=True) == (
        [SpecRow("uid-a", 1, "f"), SpecRow("uid-b", 3, "g")],
        [],
    )


def test_the_store_keeps_them_and_lets_deleted_ones_go(tmp_path: Path) -> None:
    store = Store(tmp_path / FILE)
    store.write(Batch(), [SpecRow("uid-a", 1, "f"), SpecRow("uid-b", 3, "g")])
    store.write(Batch(), [SpecRow("uid-a", 2, "h")], ["uid-b"])
    store.close()
    again = Store(tmp_path / FILE)
    assert again.specs() == [SpecRow("uid-a", 2, "h")]
    specs = Specs()
    specs.recall(again.specs())
    specs.only({"uid-c"})
    again.write(Batch(), *specs.collect(everything=False))
    assert again.specs() == []
    again.close()


@pytest.mark.parametrize("rows", [0, 1])
def test_a_file_from_before_they_were_kept_is_taken_over(tmp_path: Path, rows: int) -> None:
    store = Store(tmp_path / FILE)
    store.close()
    connection = sqlite3.connect(tmp_path / FILE)
    with connection:
        connection.execute("DROP TABLE spec")
        for _ in range(rows):
            connection.execute("INSERT INTO reporter VALUES ('pod', 1.0, 0)")
    connection.close()
    again = Store(tmp_path / FILE)
    assert not again.new and again.specs() == []
    assert len(again.load(2.0).reporters) == rows
    again.write(Batch(), [SpecRow("uid-a", 1, "f")])
    assert again.specs() == [SpecRow("uid-a", 1, "f")]
    again.close()
