"""Families of the dataset "language"."""

from __future__ import annotations

from satlight.records.simulated.families.words import EUROPEAN_LANGUAGES, NAMES, OTHER_LANGUAGES
from satlight.records.simulated.family import Family, Neutral

SENTENCES = (
    "The cat sleeps on the sofa.",
    "We would like a table for two.",
    "Where is the nearest railway station?",
    "My sister works in a hospital.",
    "It rained so hard that we stayed at home.",
    "Could you please send me the bill by Friday?",
    "Had I known, I would have taken an umbrella.",
    "The more he talked, the less they believed him.",
    "She is said to have sold the house behind his back.",
    "Scarcely had the curtain fallen when the quarrel broke out.",
)
WRONG_SENTENCES = (
    "She don't like coffee.",
    "He go to school every day.",
    "There is many people here.",
    "I have saw that film yesterday.",
    "Me and him was late again.",
    "Each of the boys have their own book.",
    "If I would have money, I would travel.",
    "The data shows less errors then before.",
    "Between you and I, its a bad idea.",
    "The man which I met him was kind.",
    "Walking home, the rain soaked my coat.",
    "Neither the teacher nor the pupils was ready, irregardless of whom asked.",
)

FAMILIES = (
    Family(
        name="translation_european",
        dataset="language",
        keywords="Translation, European languages, French, German, Spanish",
        skills={"languages": 1.0},
        difficulty=-0.2,
        templates=(
            'Translate the following sentence from English into {language}: "{sentence}"',
            'How would a native speaker say this in {language}, in a {tone} tone? "{sentence}"',
            'Give a {tone} {language} translation of "{sentence}" and explain one choice of word.',
            'I am learning {language}. Please translate "{sentence}" and mark the verb.',
        ),
        slots={
            "language": EUROPEAN_LANGUAGES,
            "sentence": SENTENCES,
            "tone": Neutral(("formal", "friendly", "casual", "polite", "neutral")),
        },
    ),
    Family(
        name="translation_world",
        dataset="language",
        keywords="Translation, Asian and African languages, Chinese, Arabic, Scripts",
        skills={"languages": 1.3},
        difficulty=0.7,
        templates=(
            'Translate the following sentence from English into {language}: "{sentence}"',
            'Write "{sentence}" in {language} script and add a {tone} transliteration below it.',
            'What is a {tone} way to say "{sentence}" in {language}? Add the pronunciation.',
            'A friend from abroad speaks only {language}. Put this into {tone} {language}: "{sentence}"',
        ),
        slots={
            "language": OTHER_LANGUAGES,
            "sentence": SENTENCES,
            "tone": Neutral(("formal", "friendly", "casual", "polite", "neutral")),
        },
    ),
    Family(
        name="conjugation",
        dataset="language",
        keywords="Conjugation, Verbs, Tenses, Cases, Foreign grammar",
        skills={"languages": 0.9, "logic": 0.2},
        difficulty=0.2,
        templates=(
            'Conjugate the {language} verb for "to {verb}" in the {tense}, in all persons.',
            'How is the {tense} formed in {language}? Use the verb "to {verb}" as your example.',
            'Write three {language} sentences with the verb "to {verb}" in the {tense}.',
            'Is the {language} verb meaning "to {verb}" irregular in the {tense}? Give its forms.',
        ),
        slots={
            "language": EUROPEAN_LANGUAGES,
            "verb": Neutral(
                ("be", "have", "go", "eat", "write", "sleep", "bring", "think", "drink", "run", "know")
            ),
            "tense": (
                "present tense",
                "past tense",
                "future tense",
                "conditional",
                "subjunctive",
                "pluperfect",
            ),
        },
    ),
    Family(
        name="grammar_correction",
        dataset="language",
        keywords="Grammar, Correction, Spelling, Punctuation, English usage",
        skills={"writing": 0.8, "languages": 0.4},
        difficulty=-0.4,
        templates=(
            'Correct the grammar of this sentence and name the rule for {reader}: "{wrong}"',
            'Is the sentence "{wrong}" grammatical in {place} English? If not, repair it for {reader}.',
            'Proofread "{wrong}" for {reader} in {place} English, changing as few words as possible.',
            'An examiner of {place} English marked "{wrong}" as wrong. List each mistake for {reader}.',
        ),
        slots={
            "wrong": WRONG_SENTENCES,
            "reader": Neutral(("a child", "a pupil", "an editor", "a colleague", "a beginner", "my teacher")),
            "place": Neutral(("British", "American", "Australian", "Irish", "Indian", "Canadian")),
        },
    ),
    Family(
        name="vocabulary",
        dataset="language",
        keywords="Vocabulary, Synonyms, Antonyms, Word meaning, Definitions",
        skills={"writing": 0.5, "facts": 0.5, "languages": 0.3},
        difficulty=-0.3,
        guess=0.06,
        templates=(
            'Give {n} synonyms of the English word "{word}" and use one of them in a sentence.',
            'What is the opposite of "{word}"? List {n} antonyms for {reader}, from the mildest to the '
            "strongest.",
            'Define the word "{word}" in one sentence that {reader} understands.',
            'Is "{word}" closer in meaning to "{other1}" or to "{other2}"? Answer with one word.',
            'Where does the word "{word}" come from, and how would {reader} use it?',
        ),
        slots={
            "word": (
                *("happy", "brave", "quick", "gentle", "stubborn", "generous", "fragile", "candid", "frugal"),
                *(
                    "lucid",
                    "austere",
                    "verbose",
                    "ephemeral",
                    "obsequious",
                    "pulchritudinous",
                    "tergiversate",
                ),
            ),
            "other": Neutral(
                ("kind", "strong", "quiet", "proud", "plain", "bitter", "clever", "rare", "lazy")
            ),
            "reader": Neutral(("a child", "a lawyer", "a tourist", "a poet", "a student")),
            "n": Neutral(("three", "four", "five", "six", "seven")),
        },
    ),
    Family(
        name="idioms",
        dataset="language",
        keywords="Idioms, Proverbs, Figures of speech, Culture, Meaning",
        skills={"languages": 0.6, "facts": 0.6},
        difficulty=0.1,
        templates=(
            'What does the idiom "{idiom}" mean, and when would {name} say it?',
            'Find a proverb in {language} that means the same as "{idiom}" and translate it literally.',
            'Use the expression "{idiom}" in a short dialogue between {name1} and {name2}.',
            'Explain to a speaker of {language} why nobody should take "{idiom}" literally.',
        ),
        slots={
            "idiom": (
                "break the ice",
                "piece of cake",
                "under the weather",
                "spill the beans",
                "bite the bullet",
                "a storm in a teacup",
                "to carry coals to Newcastle",
                "to cut the Gordian knot",
                "to gild the lily",
                "the pot calling the kettle black",
                "to be hoist with one's own petard",
            ),
            "language": EUROPEAN_LANGUAGES,
            "name": NAMES,
        },
    ),
)
