"""Families of the dataset "reasoning"."""

from __future__ import annotations

from satlight.records.simulated.families.words import NAMES
from satlight.records.simulated.family import Family, Neutral, Numbers

KINDS = Neutral(
    ("poets", "bakers", "sailors", "dancers", "farmers", "painters", "singers", "pilots", "gardeners")
)

FAMILIES = (
    Family(
        name="deduction",
        dataset="reasoning",
        keywords="Deduction, Syllogisms, Truth tellers, Liars, Conclusions",
        skills={"logic": 1.0},
        difficulty=0.3,
        guess=0.15,
        templates=(
            "All {kind1} are {kind2}, and some {kind2} are {kind3}. Does it follow that {claim}?",
            'On an island knights tell the truth and knaves lie. {name1} says: "{name2} is a knave." '
            "{name2} says that {claim}. Who is what?",
            "No {kind1} are {kind2}. {name1} is one of the {kind2}. Is it certain that {claim}?",
            "If {name1} comes, {name2} stays at home. {name3} comes only without {name1}. Can we "
            "conclude that {claim}?",
        ),
        slots={
            "kind": KINDS,
            "name": NAMES,
            "claim": (
                "someone lies",
                "nobody is left out",
                "at least one of them is honest",
                "not everyone is at home",
                "either both or neither is right",
                "exactly one statement is true",
                "the first holds only if the second fails",
                "unless two agree, none is right",
            ),
        },
    ),
    Family(
        name="ordering",
        dataset="reasoning",
        keywords="Ordering, Seating, Ranking, Constraints, Puzzles",
        skills={"logic": 1.0, "mathematics": 0.2},
        difficulty=0.4,
        guess=0.1,
        templates=(
            "{name1} is taller than {name2}, and {name3} is shorter than {name2}. Who of the three is "
            "{which}?",
            "{name1}, {name2}, {name3} and {name4} sit in a row. {name1} is not next to {name2}; {name3} "
            "is {which}. "
            "Where can {name4} sit?",
            "In a race {name1} beat {name2}, {name3} came in right behind {name4}, and {name2} was {which}. "
            "List the order of arrival.",
            "Five books stand on a shelf. The one of {name1} is left of {name2}'s and right of {name3}'s; "
            "{name4}'s is {which}. Whose is in the middle?",
        ),
        slots={
            "name": NAMES,
            "which": (
                *("first", "last", "in the middle", "second", "not first", "not last", "third or fourth"),
                *("neither first nor last", "two places from the end", "as far from the ends as possible"),
            ),
        },
    ),
    Family(
        name="number_sequences",
        dataset="reasoning",
        keywords="Sequences, Patterns, Next number, Series, Induction",
        skills={"logic": 0.6, "mathematics": 0.6},
        difficulty=0.2,
        templates=(
            "What number comes next in a series which starts with {a} and {b} and where {rule}?",
            "A sequence begins {a}, {b}. If {rule}, what is the term number {n}?",
            "Continue the pattern {a}, {b}, ... for {n} more terms, knowing that {rule}.",
            "Two terms, {a} and {b}, are known, and {rule}. Is the series bounded after {n} terms?",
        ),
        slots={
            "a": Numbers(1, 90),
            "b": Numbers(2, 400),
            "n": Numbers(3, 20),
            "rule": (
                "the difference stays the same",
                "each term doubles the one before",
                "the difference grows by one each time",
                "each term is the sum of the two before it",
                "terms alternate between adding two and multiplying by two",
                "each term is the square of a digit sum",
                "every third term is dropped",
                "each term describes the digits of the last",
            ),
        },
    ),
    Family(
        name="calendar",
        dataset="reasoning",
        keywords="Dates, Calendar, Weekdays, Time zones, Durations",
        skills={"logic": 0.7, "mathematics": 0.3, "facts": 0.2},
        difficulty=0.0,
        templates=(
            "If {month} {day} is a {weekday}, which day of the week falls {n} days later?",
            "How many days lie between {month1} {day} and {month2} {day2}, {few} years later?",
            "A flight leaves on {weekday} at {hour} o'clock and takes {n} hours across {few} time zones. "
            "When does it land?",
            "A loan of {n} weeks was signed on {month} {day}. On which date and weekday does it end if "
            "that was a {weekday}?",
            "What date is {n} working days after {weekday}, {month} {day}, with {few} public holidays "
            "between?",
        ),
        slots={
            "month": Neutral(
                tuple(
                    [
                        "January",
                        "February",
                        "March",
                        "April",
                        "May",
                        "June",
                        "July",
                        "August",
                        "September",
                        "October",
                        "November",
                        "December",
                    ]
                )
            ),
            "weekday": Neutral(
                ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
            ),
            "day": Numbers(1, 28, graded=False),
            "hour": Numbers(1, 11, graded=False),
            "few": Numbers(2, 9),
            "n": Numbers(6, 900),
        },
    ),
    Family(
        name="spatial",
        dataset="reasoning",
        keywords="Spatial reasoning, Directions, Maps, Rotation, Cubes",
        skills={"logic": 0.8, "science": 0.3},
        difficulty=0.5,
        templates=(
            "{name} walks {a} steps {dir1}, turns {turn}, and walks {b} steps more. Where is {name} from "
            "the start?",
            "I face {dir} and turn {turn} {few} times. Which way do I look, and what is on my left?",
            "A cube painted on all sides is cut into {a} slices each way. How many pieces show {few} "
            "painted faces?",
            "The library lies {dir1} of the park and {dir2} of the station, {a} blocks away. How do I "
            "get from one to the other?",
        ),
        slots={
            "name": NAMES,
            "dir": Neutral(("north", "south", "east", "west")),
            "turn": (
                "left",
                "right",
                "around",
                "half left",
                "a quarter right and then back",
                "three eighths to the left",
            ),
            "a": Numbers(3, 60),
            "b": Numbers(3, 60),
            "few": Numbers(2, 9),
        },
    ),
    Family(
        name="analogies",
        dataset="reasoning",
        keywords="Analogies, Odd one out, Categories, Riddles, Word relations",
        skills={"logic": 0.6, "writing": 0.4, "facts": 0.2},
        difficulty=-0.2,
        guess=0.12,
        templates=(
            "Complete the analogy: {pair} as {thing1} is to what? Give {n} possible answers with a reason.",
            "Which of these is the odd one out: {thing1}, {thing2}, {thing3}? Bear in mind that {pair}.",
            "Invent a riddle whose answer is {thing} and which uses the relation '{pair}'.",
            "If {pair}, what would stand in the same relation to {thing1} and also to {thing2}?",
        ),
        slots={
            "pair": (
                *(
                    "hot is to cold",
                    "bird is to nest",
                    "pen is to write",
                    "glove is to hand",
                    "seed is to tree",
                ),
                *("author is to novel", "drought is to rain", "key is to cipher", "axiom is to theorem"),
                *("map is to territory", "echo is to voice", "silence is to censor"),
            ),
            "thing": (
                "a clock",
                "a river",
                "a shoe",
                "a mirror",
                "a ladder",
                "a shadow",
                "a library",
                "a promise",
                "an alibi",
            ),
            "n": Neutral(("two", "three", "four")),
        },
    ),
)
