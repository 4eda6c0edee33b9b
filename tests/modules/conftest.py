"""Texts on which scores of tiny random models differ visibly."""

import pytest

INSTRUCTIONS = [
    "What is 2+2?",
    "Name a river that flows through three countries, and say which countries these are, in order.",
    "Is it?",
    "Translate the word 'and' into four languages of your choice.",
]
CAPABILITIES = [
    ('The model achieves accuracy 85.0% on the task of "Sums".', 'accuracy 10.0% on the task of "Law".'),
    ('The model achieves accuracy 5.0% on the task of "Sums".',),
    (
        'The model achieves accuracy 50.0% on the task of "Sums".',
        'The model achieves accuracy 60.0% on the task of "Law".',
        "It can handle long documents, tables and most European languages.",
    ),
]


@pytest.fixture
def instructions() -> list[str]:
    return list(INSTRUCTIONS)


@pytest.fixture
def capabilities() -> list[tuple[str, ...]]:
    return list(CAPABILITIES)
