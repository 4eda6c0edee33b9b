"""Word lists that several families share."""

from __future__ import annotations

from satlight.records.simulated.family import Neutral

NAMES = Neutral(
    (
        *("Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo", "Ines"),
        *("Jonas", "Kira", "Leon", "Maya", "Noah", "Olga", "Paul", "Rosa", "Sam"),
    )
)

COUNTRIES = (
    *(
        "France",
        "Japan",
        "Brazil",
        "Egypt",
        "Canada",
        "India",
        "Mexico",
        "Kenya",
        "Norway",
        "Peru",
        "Vietnam",
    ),
    *("Morocco", "Hungary", "Ethiopia", "Uruguay", "Mongolia", "Bolivia", "Latvia", "Oman", "Zambia"),
    *("Bhutan", "Suriname", "Kyrgyzstan", "Lesotho", "Vanuatu", "Djibouti"),
)
"""From the best known to the least."""

EUROPEAN_LANGUAGES = (
    *(
        "Spanish",
        "French",
        "German",
        "Italian",
        "Portuguese",
        "Dutch",
        "Swedish",
        "Polish",
        "Romanian",
        "Czech",
    ),
    *("Greek", "Finnish", "Hungarian", "Lithuanian", "Icelandic", "Basque"),
)

OTHER_LANGUAGES = (
    *(
        "Chinese",
        "Japanese",
        "Arabic",
        "Korean",
        "Hindi",
        "Turkish",
        "Vietnamese",
        "Thai",
        "Swahili",
        "Bengali",
    ),
    *("Tamil", "Georgian", "Khmer", "Amharic"),
)
