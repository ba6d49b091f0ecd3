"""The databases that the feedback store is tested on: a SQLite file, and a PostgreSQL that the tests start themselves
where its programs are found. conftest.py makes the fixtures known to every test."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from understudy.feedback.store import FeedbackStore

USERS = ("postgres", "nobody")
"""The user of PostgreSQL where the tests run as root, which it refuses."""


DATABASES = ("sqlite", pytest.param("postgresql", marks=pytest.mark.slow))


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind in turn."""
    return empty_database(request, tmp_path)


def empty_database(request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of a new database of the kind that the asking fixture's parameter names; a file of SQLite in the folder.
    Skips tests of PostgreSQL where there is none."""
    if request.param == "sqlite":
        return f"sqlite:///{folder}/feedback.db"
    return empty_postgres(request.getfixturevalue("postgres"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeedbackStore]:
    """An empty store in a SQLite file, for all tests of a file."""
    with FeedbackStore(f"sqlite:///{tmp_path_factory.mktemp('feedback') / 'f.db'}") as store:
        yield store


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a new PostgreSQL server, which listens on a socket in a folder and nowhere else."""
    pytest.importorskip("psycopg", reason="the driver of PostgreSQL is missing (extra `postgres`)")
    programs = find_programs()
    if programs is None:
        pytest.skip("initdb and pg_ctl of PostgreSQL are not found")
    user = next((name for name in USERS if is_user(name)), None) if os.getuid() == 0 else pwd.getpwuid(os.getuid())[0]
    if user is None:
        pytest.skip(f"PostgreSQL does not run as root, and there is none of {', '.join(USERS)}")
    folder = Path(tempfile.mkdtemp(prefix="understudy-pg-", dir="/tmp"))  # short: a socket's path may have 107 bytes
    as_user: dict[str, Any] = {"cwd": "/", "check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    if os.getuid() == 0:
        account = pwd.getpwnam(user)
        os.chown(folder, account.pw_uid, account.pw_gid)
        as_user |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    data, settings = str(folder / "data"), f"-k {folder} -c listen_addresses='' -c fsync=off -F"
    try:
        subprocess.run([programs / "initdb", "-D", data, "-A", "trust", "-U", "tester", "-E", "UTF8", "-N"], **as_user)
        start = [programs / "pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", settings, "start"]
        subprocess.run(start, **as_user)
        try:
            yield f"postgresql://tester@/postgres?host={folder}"
        finally:
            subprocess.run([programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"], **as_user)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def empty_postgres(server: str) -> str:
    """The URL of a new database on the server."""
    import psycopg

    name = f"t{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    return server.replace("/postgres?", f"/{name}?")


def find_programs() -> Path | None:
    """The folder of initdb and pg_ctl: on the path, or where Debian keeps those of each version."""
    on_path = [Path(program).parent for program in (shutil.which("initdb"),) if program]
    newest_first = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True)
    for folder in (*on_path, *newest_first):
        if all((folder / name).exists() for name in ("initdb", "pg_ctl", "postgres")):
            return folder
    return None


def is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
