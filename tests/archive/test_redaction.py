"""What is blotted out, and what stays; every token here is made up."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perry.archive.redaction import DETECTORS, OWN, redactor
from perry.sessions.models import Message, Session

LETTERS = "abcdefghijklmnopqrstuvwxyz"
KEY_LINES = [f"{LETTERS}{LETTERS.upper()}0123456{number:05}" for number in range(12)]
PRIVATE_KEY = "\n".join(
    ["-----BEGIN RSA PRIVATE KEY-----", *KEY_LINES, "-----END RSA PRIVATE KEY-----"]
)
PGP_KEY = PRIVATE_KEY.replace("RSA PRIVATE KEY", "PGP PRIVATE KEY BLOCK")
JWT = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0"
    ".dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
)

SECRETS = {
    "AKIA" + "IOSFODNN7EXAMPLE": "AWS Access Key",
    "AccountKey=" + "a" * 86 + "==": "Azure Storage Account access key",
    "ghp_" + "a1B2" * 9: "GitHub Token",
    "github_pat_" + "a1B2" * 20: "GitHub Token",
    "glpat-" + "a1B2" * 5: "GitLab Token",
    JWT: "JSON Web Token",
    "sk-ant-api03-" + "a-B_" * 20: "Anthropic Token",
    "sk-proj-" + "a-B_" * 20: "OpenAI Token",
    "sk-" + "a1" * 10 + "T3BlbkFJ" + "b2" * 10: "OpenAI Token",
    "pypi-AgEIcHlwaS5vcmc" + "a1B2" * 20: "PyPI Token",
    "SG." + "a" * 22 + "." + "b" * 43: "SendGrid API Key",
    "xoxb-" + "1234567890-" * 2 + "abcdefghij": "Slack Token",
    "xapp-1-" + "A012-345-abcdef": "Slack Token",
    "sk_live_" + "a1B2c3" * 5: "Stripe Access Key",
    "AIza" + "a1-B_" * 7: "Google API Key",
    "hf_" + "aB" * 17: "Hugging Face Token",
    "npm_" + "a1B2" * 9: "NPM Token",
    PRIVATE_KEY: "Private Key",
    PGP_KEY: "Private Key",
    "PuTTY-User-Key-File-3: ssh-rsa\n" + "a" * 64 + "\nPrivate-MAC: 0123ab": "Private Key",
}


def said(text: str, **more: str) -> Message:
    return Message("tool_result", text, "2026-11-20T09:01:00.000Z", **more)


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret[:12])
def test_a_secret_is_blotted_out_whole_and_its_surroundings_stay(secret: str) -> None:
    told = f"[redacted: {SECRETS[secret]}]"
    for before, after in (("the token is ", ", I think"), ("T=", "\nnext"), ('{"a": "', '"}')):
        assert redactor().text(f"{before}{secret}{after}") == f"{before}{told}{after}"
    assert redactor().text(f"{secret} {secret}") == f"{told} {told}"


def test_of_an_address_only_the_password_is_blotted_out() -> None:
    assert redactor().text("git clone https://me:hunter2@example.org/it") == (
        "git clone https://me:[redacted: Basic Auth Credentials]@example.org/it"
    )
    aws = f"aws_secret_access_key = '{'aB3/' * 10}'"
    assert redactor().text(aws) == "aws_secret_access_key = '[redacted: AWS Access Key]'"


def test_a_key_that_was_read_with_line_numbers_is_blotted_out() -> None:
    lines = PRIVATE_KEY.split("\n")
    numbered = "\n".join(f"{number:6}\t{line}" for number, line in enumerate(lines, 1))
    assert redactor().text(numbered) == "     1\t[redacted: Private Key]"


def test_a_key_whose_end_was_cut_off_is_blotted_out_as_far_as_it_goes() -> None:
    cut = "\n".join(PRIVATE_KEY.split("\n")[:-2])
    assert redactor().text(f"{cut}\n... 20 lines more") == (
        "[redacted: Private Key]\n... 20 lines more"
    )


@pytest.mark.parametrize(
    "text",
    [
        "if line == '-----BEGIN PRIVATE KEY-----': return",
        "https://user:password@example.org and https://{name}:{secret}@example.org",
        "postgres://localhost:5432/shop",
        "sk-ant-api03-... and ghp_... are how they begin",
        "commit 0a1b2c3d4e5f60718293a4b5c6d7e8f901234567",
        "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "550e8400-e29b-41d4-a716-446655440000",
        "password = correct horse battery staple",
        "eyJub3QiOiJhIHRva2VuIn0 and eyJ.eyJ.x",
        "1790000000:abcdefghijklmnopqrstuvwxyz012345678",
    ],
)
def test_what_only_speaks_of_secrets_or_looks_random_stays(text: str) -> None:
    message = said(text)
    assert redactor()(message) is message


def test_what_a_tool_was_given_stays_json() -> None:
    given = {"command": f'echo "{PRIVATE_KEY}" > key', "env": [{"T": "ghp_" + "a1B2" * 9}, 3, None]}
    blotted = redactor()(said("x", tool_input=json.dumps(given)))
    assert json.loads(blotted.tool_input or "") == {
        "command": 'echo "[redacted: Private Key]" > key',
        "env": [{"T": "[redacted: GitHub Token]"}, 3, None],
    }
    assert blotted.content == "x"
    plain = said("x", tool_input='{"a":  1.50, "b": "see https://example.org"}')
    assert redactor()(plain) is plain
    broken = redactor()(said("x", tool_input='{"a": "ghp_' + "a1B2" * 9))
    assert broken.tool_input == '{"a": "[redacted: GitHub Token]'


def test_half_a_character_beside_a_secret_stays_an_escape() -> None:
    given = json.dumps({"a": "\ud83d ghp_" + "a1B2" * 9, "b": "ü"})
    blotted = redactor()(said("x", tool_input=given)).tool_input or ""
    assert blotted.encode().decode() == '{"a": "\\ud83d [redacted: GitHub Token]", "b": "ü"}'


@pytest.mark.parametrize("before", ["\\n", "%20", "token_", "abc.", "eyJ.", "a.b-"])
def test_a_token_is_found_whatever_stands_before_it(before: str) -> None:
    assert redactor().text(f"{before}{JWT}.") == f"{before}[redacted: JSON Web Token]."
    key = "sk-mine-" + "a1" * 10 + "T3BlbkFJ" + "b2" * 10
    assert redactor().text(f"{before}{key}-c") == f"{before}[redacted: OpenAI Token]"


BEGINNINGS = (
    "A3T", "AKIA", "aws_secret_access_key", "aws key = '", "AccountKey=", "://", "://a:", "iscord ",
    "M" * 24 + ".", "ghp_", "glpat-", "glagent-", "GR1348941", "eyJ", "eyJa.", "eyJa.a!", "eyJ=",
    "a.eyJ", "a-us1", "sk-", "sk-a ", "pypi-AgEIcHlwaS5vcmc", "SG.", "xoxb-", "xoxb-1-",
    "https://hooks.slack.com/services/T", "sq0csp-", "sk_live_", "1", "elegram", "AC",
    "-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----\n1 ",
    "PuTTY-User-Key-File-3", "sk-ant-", "sk-ant-a-", "github_pat_", "AIza", "hf_", "npm_", "xapp-",
    "xapp-1-a-1-",
)  # fmt: skip
BESIDE = "iscord elegram wilio eyJ T3BlbkFJ a-us1 "  # else not all are looked for


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_what_begins_like_a_secret_over_and_over_takes_no_longer(beginning: str) -> None:
    assert _seconds(BESIDE + beginning * (200_000 // len(beginning))) < 1
    assert _seconds(BESIDE + beginning + "a" * 200_000) < 1


def test_keys_inside_of_keys_take_no_longer() -> None:
    begin, end = PRIVATE_KEY.split("\n")[0], PRIVATE_KEY.split("\n")[-1]
    assert _seconds(f"{begin}{LETTERS}" * 2000 + f"{LETTERS}{end}" * 2000) < 1


def _seconds(text: str) -> float:
    """The time of this thread alone: others' work is none of it."""
    started = time.thread_time()
    redactor().text(text)
    return time.thread_time() - started


def test_a_sessions_title_and_first_prompt_are_blotted_out() -> None:
    secret = "ghp_" + "a1B2" * 9
    session = Session("s", "claude", f"Use {secret}", "/", "/s.jsonl", 1, f"Use {secret} now", 5)
    blotted = redactor().session(session)
    assert (blotted.title, blotted.first_prompt) == (
        "Use [redacted: GitHub Token]",
        "Use [redacted: GitHub Token] now",
    )
    assert redactor().session(blotted) is blotted


@given(st.lists(st.sampled_from([*SECRETS, "text ", "\n", '"', "ü", "://a:b@", "-----"])))
def test_the_same_gives_the_same_and_what_is_blotted_out_stays_so(parts: list[str]) -> None:
    text = "".join(parts)
    once = redactor().text(text)
    assert redactor().text(text) == once
    assert redactor().text(once) == once


def test_every_detector_that_is_named_is_there_and_finds_what_is_near() -> None:
    kinds = {rule.kind for rule in redactor()._rules}
    assert len(redactor()._rules) == len(DETECTORS) + len(OWN)
    assert set(SECRETS.values()) <= kinds


def test_nothing_of_it_is_loaded_by_the_archive() -> None:
    program = (
        "import sys, perry.archive.archive, perry.archive.search;"
        "sys.exit(bool({'detect_secrets', 'requests', 'yaml'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
