"""Where an embedded farm of a home keeps its things: in the home, whatever it is called."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import make_url

from farm.embedded import embedded_settings
from farm.errors import BadInput
from farm.storage import open_store


@pytest.mark.parametrize("name", ["plain", "a space", "what?x=1", "50%41", "#1", "é", "h" * 200])
def test_everything_of_a_home_lies_in_it(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    chosen = embedded_settings(home)
    assert make_url(chosen.database_url).database == str(home / "farm.db")
    assert not make_url(chosen.database_url).query
    open_store(chosen.storage_url)
    assert (home / "objects").is_dir()
    socket = chosen.redis_url.removeprefix("redis+socket://")
    assert quote(socket) == socket
    assert len(os.fsencode(socket)) <= 100


def test_a_home_that_is_no_text_is_refused_in_printable_words(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"h\\xff has a name that is no UTF-8"):
        embedded_settings(tmp_path / os.fsdecode(b"h\xff"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FARM_LEASE_SECONDS", "abc", "valid number"),
        ("FARM_LEASE_SECONDS", "0", "greater than 0"),
        ("FARM_MAX_ATTEMPTS", "0", "greater than or equal to 1"),
        ("FARM_BATCH_CROPS", "many", "valid integer"),
    ],
)
def test_a_setting_that_is_wrong_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=f"^{name} is '{value}': .*{said}") as raised:
        embedded_settings(tmp_path)
    assert "\n" not in str(raised.value)
