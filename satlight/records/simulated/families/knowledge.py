"""Families of the dataset "knowledge"."""

from __future__ import annotations

from satlight.records.simulated.families.words import COUNTRIES
from satlight.records.simulated.family import Family, Neutral, Numbers

FAMILIES = (
    Family(
        name="geography",
        dataset="knowledge",
        keywords="Geography, Countries, Capitals, Rivers, Borders",
        skills={"facts": 1.0},
        difficulty=-0.1,
        guess=0.05,
        templates=(
            "What is the capital of {country1}, and does it lie north or south of the capital of {country2}?",
            "Name {n} countries or seas which border {country}, starting in the north.",
            "Which is larger by {measure}: {country1} or {country2}? Give approximate figures for both.",
            "Describe the {feature} of {country} in two sentences, with the names of places.",
            "I will travel from {country1} to {country2} over land. Which countries must I cross?",
        ),
        slots={
            "country": COUNTRIES,
            "measure": ("population", "area", "coastline", "average elevation", "forest cover"),
            "feature": (
                "climate",
                "largest cities",
                "main rivers",
                "highest mountains",
                "provinces",
                "lake districts",
            ),
            "n": Neutral(("two", "three", "four", "all")),
        },
    ),
    Family(
        name="history",
        dataset="knowledge",
        keywords="History, Wars, Empires, Treaties, Revolutions",
        skills={"facts": 0.9, "writing": 0.2},
        difficulty=0.2,
        templates=(
            "In which year did {event} take place, and what was its main consequence for {area}?",
            "Who were the leading figures of {event}? Name {n} of them and their aims.",
            "Compare the causes of {event1} with those of {event2} in {n} sentences.",
            "Explain to a {reader} why {event} still matters for {area} today.",
        ),
        slots={
            "event": (
                "the fall of the Berlin Wall",
                "the French Revolution",
                "the American Civil War",
                "the moon landing race",
                "the Black Death",
                "the Meiji Restoration",
                "the Congress of Vienna",
                "the Taiping Rebellion",
                "the partition of Bengal",
                "the Diet of Worms",
                "the Treaty of Tordesillas",
                "the Sicilian Vespers",
                "the Khmelnytsky Uprising",
                "the Peace of Antalcidas",
            ),
            "area": Neutral(
                ("Europe", "Asia", "Africa", "the Americas", "world trade", "religion", "ordinary people")
            ),
            "reader": Neutral(("pupil", "tourist", "journalist", "student", "visitor of a museum")),
            "n": Neutral(("two", "three", "four", "five")),
        },
    ),
    Family(
        name="literature",
        dataset="knowledge",
        keywords="Literature, Novels, Authors, Characters, Plays",
        skills={"facts": 0.8, "writing": 0.5},
        difficulty=0.2,
        templates=(
            "Who wrote {work}, in which century, and what is its {aspect}?",
            "Describe the {aspect} of {work} without giving away the ending, in {n} sentences.",
            "How does the {aspect} of {work1} differ from that of {work2}?",
            "Quote or paraphrase a famous passage of {work} and relate it to the {aspect}.",
        ),
        slots={
            "work": (
                "Romeo and Juliet",
                "Don Quixote",
                "Pride and Prejudice",
                "Moby Dick",
                "Crime and Punishment",
                "The Metamorphosis",
                "Things Fall Apart",
                "The Tale of Genji",
                "Buddenbrooks",
                "The Master and Margarita",
                "Pedro Paramo",
                "The Man without Qualities",
                "The Conference of the Birds",
                "Oblomov",
            ),
            "aspect": (
                "setting",
                "main character",
                "plot",
                "narrator",
                "central theme",
                "symbolism",
                "reception by critics",
            ),
            "n": Neutral(("two", "three", "four", "five")),
        },
    ),
    Family(
        name="arts",
        dataset="knowledge",
        keywords="Art, Painting, Music, Composers, Architecture",
        skills={"facts": 0.9, "writing": 0.1},
        difficulty=0.3,
        templates=(
            "Name {n} works by {artist} and say where each can be seen or heard today.",
            "What sets the style of {artist1} apart from that of {artist2}? Give {n} examples of each.",
            "Which {thing} influenced {artist} most, and how does that show in the mature works?",
            "A gallery guide needs {n} sentences about {artist} and the {thing} behind the late work.",
        ),
        slots={
            "artist": (
                *(
                    "Leonardo da Vinci",
                    "Mozart",
                    "van Gogh",
                    "Beethoven",
                    "Frida Kahlo",
                    "Hokusai",
                    "Gaudi",
                    "Debussy",
                ),
                *(
                    "Artemisia Gentileschi",
                    "Le Corbusier",
                    "Hildegard of Bingen",
                    "Giorgio Morandi",
                    "Gesualdo",
                ),
                *("Sofonisba Anguissola", "Borromini", "Obrecht"),
            ),
            "thing": Neutral(
                ("teacher", "journey", "city", "friendship", "patron", "folk tradition", "illness")
            ),
            "n": Neutral(("two", "three", "four", "five")),
        },
    ),
    Family(
        name="sports",
        dataset="knowledge",
        keywords="Sports, Rules, Olympic Games, Champions, Records",
        skills={"facts": 0.8, "logic": 0.2},
        difficulty=-0.1,
        templates=(
            "Explain the {rule} in {sport} to someone who has only ever watched {other}.",
            "Who won the {sport} title at the {year} championships, and against whom in the final?",
            "How many players or competitors take part in {sport}, and what does the {rule} say?",
            "In {sport}, which record from {year} has stood the longest, and who holds it?",
        ),
        slots={
            "sport": (
                *(
                    "football",
                    "tennis",
                    "basketball",
                    "swimming",
                    "ice hockey",
                    "volleyball",
                    "cricket",
                    "rugby",
                ),
                *("fencing", "curling", "water polo", "sepak takraw", "modern pentathlon", "jai alai"),
            ),
            "rule": (
                "scoring system",
                "penalty rule",
                "offside or fault rule",
                "tie-break",
                "substitution limit",
            ),
            "other": Neutral(("chess", "golf", "boxing", "baseball", "rowing", "skiing")),
            "year": Numbers(1948, 2019, graded=False),
        },
    ),
)
