from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from perry.config import ArchiveConfig, Config, config_path, load
from perry.errors import UsageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_without_a_file_nothing_is_set(path: Path) -> None:
    assert load(path) == Config(ArchiveConfig(keep_days=None, largest=None, redact=False))


def test_the_users_own_file_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(path.parent))
    assert config_path() == path.parent / "perry" / "config.toml"
    config_path().parent.mkdir()
    config_path().write_text("[archive]\nkeep_days = 3\n")
    assert load().archive.keep_days == 3


def test_every_setting_is_read(path: Path) -> None:
    path.write_text('[archive]\nkeep_days = 90\nlargest = "2g"\nredact = true\n')
    assert load(path).archive == ArchiveConfig(90, load(path).archive.largest, redact=True)
    assert load(path).archive.largest == 2 * 1024**3
    path.write_text("[archive]\n")
    assert load(path) == Config()


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("[archiv]\n", "there is no table [archiv]", "The tables there may be: archive."),
        ("archive = 3\n", "archive has to be a table", "[archive]"),
        ("[archive]\nkeep = 3\n", "[archive] has no key keep", "keep_days, largest, redact"),
        ("[archive]\nkeep_days = '3'\n", "keep_days in [archive] can't be '3'", "number of days"),
        ("[archive]\nkeep_days = 0\n", "keep_days in [archive] can't be 0", "1 or more"),
        ("[archive]\nkeep_days = true\n", "keep_days in [archive] can't be True", "1 or more"),
        ("[archive]\nlargest = 5\n", "largest in [archive] can't be 5", '"512m" or "2g"'),
        ("[archive]\nlargest = '2x'\n", "largest in [archive] can't be '2x'", '"512m" or "2g"'),
        ("[archive]\nlargest = '9k'\n", "largest in [archive] can't be '9k'", "1m"),
        ("[archive]\nredact = 'yes'\n", "redact in [archive] can't be 'yes'", "true or false"),
        ("[archive\n", "is no TOML", "Mend it"),
    ],
)
def test_a_slip_is_told_with_the_file_the_key_and_what_may_be_there(
    path: Path, text: str, what: str, hint: str
) -> None:
    path.write_text(text)
    with pytest.raises(UsageError) as raised:
        load(path)
    assert raised.value.message.startswith(str(path))
    assert what in raised.value.message
    assert hint in raised.value.hint


def test_a_file_that_cannot_be_read_is_named(path: Path) -> None:
    path.mkdir()
    with pytest.raises(UsageError, match="can't be read"):
        load(path)
    path.rmdir()
    path.write_bytes(b"[archive]\n# \xff\n")
    with pytest.raises(UsageError, match="is no TOML"):
        load(path)


def test_the_documentation_sets_every_key(path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "archive.md").read_text()
    _, _, rest = text.partition("    [archive]\n")
    path.write_text("[archive]\n" + textwrap.dedent(rest.partition("\n\n")[0]))
    default = Config().archive
    told = load(path).archive
    for key in ArchiveConfig.__struct_fields__:
        assert getattr(told, key) != getattr(default, key), key
