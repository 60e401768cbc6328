"""What is hidden in text that people or machines will read, and what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.secrets import mask_secrets

RANDOM = "aZ9_-" * 8


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("tl_abcdefgh12345678", "tl_****"),
        ("sk-proj-abc_DEF-123456", "sk-****"),
        ("'sk-ant-api03-abcdef'", "'sk-****'"),
        (f"Incorrect API key provided: gsk_{RANDOM}.", "Incorrect API key provided: gsk_****."),
        (f"xai-{RANDOM}", "xai-****"),
        (f"key=AIza{RANDOM}, more", "key=AIza****, more"),
        (f"pplx-{RANDOM} nvapi-{RANDOM} hf_{RANDOM} r8_{RANDOM}", "pplx-**** nvapi-**** hf_**** r8_****"),
        (f"e2b_{RANDOM} dtn_{RANDOM}", "e2b_**** dtn_****"),
        (f"ghp_{RANDOM} github_pat_{RANDOM} glpat-{RANDOM}", "ghp_**** github_pat_**** glpat-****"),
        ("AKIAABCDEFGHIJKLMNOP", "AKIA****"),
        ("Authorization: Bearer eyJhbGciOi.J9.x", "Authorization: Bearer ****"),
        ("redis://:p@ss/w0rd@host:1/0", "redis://****@host:1/0"),
        ("postgresql+asyncpg://user:pw@host/db and more", "postgresql+asyncpg://****@host/db and more"),
        ("at http://user:pass@host:8081/v1)", "at http://****@host:8081/v1)"),
        ("http://token@host/v1 and http://token:@host/v1", "http://****@host/v1 and http://****@host/v1"),
        ("postgresql://us@er:pw@host/db", "postgresql://****@host/db"),
        ("/a?b=1&token=xyz&c=2", "/a?b=1&token=****&c=2"),
        ("risk-management of task-oriented-things", "risk-management of task-oriented-things"),
        ("xai-models, hf_hub_download, e2b_sandbox", "xai-models, hf_hub_download, e2b_sandbox"),
        ("http://host:8000/path?key_name=1", "http://host:8000/path?key_name=1"),
        ("https://example.com/@user and a@b.c", "https://example.com/@user and a@b.c"),
        ("12:30 see://x", "12:30 see://x"),
    ],
)
def test_what_looks_like_a_secret_is_masked_and_the_rest_is_not(text: str, masked: str) -> None:
    assert mask_secrets(text) == masked


@given(st.text(alphabet="tl_sk-:/@?& Bearer=key\"'0123456789abcdef", max_size=60))
def test_masking_twice_is_masking_once(text: str) -> None:
    assert mask_secrets(mask_secrets(text)) == mask_secrets(text)
