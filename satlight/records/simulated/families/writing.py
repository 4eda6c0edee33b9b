"""Families of the dataset "writing"."""

from __future__ import annotations

from satlight.records.simulated.families.words import NAMES
from satlight.records.simulated.family import Family, Neutral, Numbers

THEMES = Neutral(
    (
        *(
            "autumn leaves",
            "a lighthouse",
            "the first snow",
            "an old bicycle",
            "a lost letter",
            "the night train",
        ),
        *(
            "my grandmother's kitchen",
            "a city at dawn",
            "a retired sailor",
            "an empty theatre",
            "two rival bakers",
        ),
    )
)

FAMILIES = (
    Family(
        name="poetry",
        dataset="writing",
        keywords="Poetry, Rhyme, Metre, Verse, Haiku",
        skills={"writing": 1.1},
        difficulty=0.3,
        templates=(
            "Write a {form} about {theme} in a {mood} mood, without using the letter {letter}.",
            "Compose {n} lines of verse on {theme} in the manner of a {form}.",
            "Turn {theme} into a {form} whose first letters spell a name with {n} letters.",
            "I need a {mood} {form} on {theme} to read aloud at a party. Keep the rhyme strict.",
        ),
        slots={
            "form": (
                *("nursery rhyme", "limerick", "haiku", "ballad", "free-verse poem", "sonnet", "villanelle"),
                *("sestina", "ghazal", "terza rima poem"),
            ),
            "theme": THEMES,
            "mood": Neutral(("cheerful", "sad", "solemn", "wry", "dreamy")),
            "letter": Neutral(("q", "z", "x", "j", "k", "v")),
            "n": Numbers(4, 20),
        },
    ),
    Family(
        name="stories",
        dataset="writing",
        keywords="Stories, Fiction, Dialogue, Plot, Characters",
        skills={"writing": 1.0, "facts": 0.1},
        difficulty=0.0,
        templates=(
            "Tell a {genre} story of {n} words about {theme}, ending with a surprise.",
            "Write the opening scene of a {genre} novel in which {name} discovers {theme}.",
            "Continue this story: {name} had never believed in {theme}. Make it a {genre} tale in {n} "
            "sentences.",
            "Write a dialogue between {name1} and {name2} about {theme}, as in a {genre} film.",
        ),
        slots={
            "genre": (
                *(
                    "fairy",
                    "bedtime",
                    "detective",
                    "science fiction",
                    "romantic",
                    "horror",
                    "historical",
                    "satirical",
                ),
                *("magical realist", "diary-style", "stream-of-consciousness"),
            ),
            "theme": THEMES,
            "name": NAMES,
            "n": Numbers(40, 600, 10),
        },
    ),
    Family(
        name="business_email",
        dataset="writing",
        keywords="Emails, Letters, Politeness, Customers, Office",
        skills={"writing": 0.7, "business": 0.4},
        difficulty=-0.5,
        templates=(
            "Write an email to {who} in which you {aim}. Use a {tone} tone and at most {n} words.",
            "Draft a reply to {who}, who is annoyed; the letter should {aim} and stay {tone}.",
            "Make this note to {who} more {tone}: I want to {aim}, so please answer soon.",
            "Help {name} {aim} by a {tone} message to {who}, with a subject line.",
        ),
        slots={
            "who": (
                "a colleague",
                "a customer",
                "my landlord",
                "a supplier",
                "the head of sales",
                "a journalist",
                "the board",
            ),
            "aim": (
                *(
                    "confirm a meeting",
                    "thank them",
                    "ask for a refund",
                    "postpone a deadline",
                    "decline an offer",
                ),
                *("announce a price increase", "explain a data leak", "withdraw a public accusation"),
            ),
            "tone": Neutral(("friendly", "formal", "firm", "warm", "brief", "diplomatic")),
            "name": NAMES,
            "n": Numbers(40, 200, 10),
        },
    ),
    Family(
        name="summarising",
        dataset="writing",
        keywords="Summaries, Articles, Abstracts, Key points, Headlines",
        skills={"writing": 0.7, "facts": 0.3, "logic": 0.2},
        difficulty=-0.3,
        templates=(
            "Summarise {text} about {topic} in {n} bullet points for {reader}.",
            "Reduce {text} on {topic} to one headline and a lead of {n} words.",
            "Condense {text} about {topic} for {reader}, keeping every number and name.",
            "What are the {n} key points of {text} on {topic}? Leave out opinions and examples.",
        ),
        slots={
            "text": (
                *("a short news item", "a blog post", "an interview", "a product review", "meeting minutes"),
                *(
                    "a research abstract",
                    "a parliamentary debate",
                    "a court ruling",
                    "a 90-page audit report",
                ),
            ),
            "topic": Neutral(
                (
                    *(
                        "electric buses",
                        "school lunches",
                        "bee keeping",
                        "remote work",
                        "a new bridge",
                        "sleep research",
                    ),
                    *("tax reform", "city parks", "coral reefs", "a museum opening"),
                )
            ),
            "reader": Neutral(("busy managers", "children", "voters", "engineers", "the press")),
            "n": Numbers(2, 30),
        },
    ),
    Family(
        name="slogans",
        dataset="writing",
        keywords="Advertising, Slogans, Product descriptions, Marketing, Brands",
        skills={"writing": 0.7, "business": 0.5},
        difficulty=-0.1,
        templates=(
            "Invent {n} slogans for a brand of {product} aimed at {group}; each should rhyme.",
            "Write a product description of {n} words for {product} that appeals to {group}.",
            "Name a start-up that sells {product} to {group} and write its advertising claim.",
            "Plan a small marketing campaign for {product} with {n} posts that win over {group}.",
        ),
        slots={
            "product": (
                *(
                    "chocolate",
                    "running shoes",
                    "coffee",
                    "umbrellas",
                    "garden tools",
                    "headphones",
                    "life insurance",
                ),
                *("accounting software", "industrial valves", "compliance training", "funeral services"),
            ),
            "group": (
                "families",
                "students",
                "travellers",
                "pensioners",
                "night workers",
                "beekeepers",
                "chief auditors",
            ),
            "n": Numbers(2, 60),
        },
    ),
)
