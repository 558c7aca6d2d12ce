"""The tables of the store's file, and which files are its own.

Promises that a file of another version of the tables is refused by name and left as it is. What
adds columns to the counters needs no other version, for they are bytes that later versions still
read; nor does a table of facts that an older process may leave alone (`LATER`).
"""

from __future__ import annotations

import sqlite3
from typing import Final

VERSION: Final = 1
APPLICATION_ID: Final = 0x4E58514C  # "NXQL"

TABLES: Final = """
CREATE TABLE reporter (name TEXT PRIMARY KEY, heard REAL, gone INTEGER) WITHOUT ROWID, STRICT;
CREATE TABLE life (
  reporter TEXT, incarnation TEXT, offset REAL, heard REAL, told_ms INTEGER,
  ten INTEGER, minute INTEGER, hour INTEGER,
  PRIMARY KEY (reporter, incarnation)) WITHOUT ROWID, STRICT;
CREATE TABLE used (
  reporter TEXT, uid TEXT, model TEXT, PRIMARY KEY (reporter, uid, model)) WITHOUT ROWID, STRICT;
CREATE TABLE cells (
  reporter TEXT, incarnation TEXT, family INTEGER, bucket INTEGER, cells BLOB,
  PRIMARY KEY (reporter, incarnation, family, bucket)) STRICT;
CREATE TABLE sealed (
  family INTEGER, bucket INTEGER, reporter TEXT, uid TEXT, model TEXT, generation INTEGER,
  counts BLOB,
  PRIMARY KEY (family, bucket, reporter, uid, model, generation)) WITHOUT ROWID, STRICT;
CREATE TABLE failure (
  uid TEXT, model TEXT, at REAL, PRIMARY KEY (uid, model)) WITHOUT ROWID, STRICT;
"""
LATER: Final = """
CREATE TABLE IF NOT EXISTS spec (
  uid TEXT PRIMARY KEY, generation INTEGER, fingerprint TEXT) WITHOUT ROWID, STRICT;
"""
NAMES: Final = ("reporter", "life", "used", "cells", "sealed", "failure", "spec")


class OtherVersion(Exception):
    """The file's tables are not those of this version, or not ours at all."""


def prepare(connection: sqlite3.Connection) -> bool:
    """Make the tables of an empty file; True if it was. Raises OtherVersion."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables and version == 0:
        connection.executescript(
            f"BEGIN IMMEDIATE; {TABLES} {LATER} PRAGMA user_version = {VERSION};"
            f"PRAGMA application_id = {APPLICATION_ID}; COMMIT;"
        )
        return True
    if owner != APPLICATION_ID:
        raise OtherVersion("it is not a store of this operator")
    if version != VERSION:
        raise OtherVersion(f"its tables are version {version}, this operator's {VERSION}")
    connection.execute(LATER)
    return False
