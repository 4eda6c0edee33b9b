"""Texts on which scores of tiny random models differ visibly."""

import pytest

from satlight.types import Capability, Result

INSTRUCTIONS = [
    "What is 2+2?",
    "Name a river that flows through three countries, and say which countries these are, in order.",
    "Is it?",
    "Translate the word 'and' into four languages of your choice.",
]
CAPABILITIES = [
    Capability((Result("sums", "Sums", 0.85, 20, 1.5), Result("law", "Law", 0.1, 20, -2.0))),
    Capability((Result("sums", "Sums", 0.05, 20, -1.5),)),
    Capability(
        (Result("sums", "Sums", 0.5), Result("law", "Law", 0.6, 20, 0.5)),
        ("It can handle long documents, tables and most European languages.",),
    ),
]


@pytest.fixture
def instructions() -> list[str]:
    return list(INSTRUCTIONS)


@pytest.fixture
def capabilities() -> list[Capability]:
    return list(CAPABILITIES)
