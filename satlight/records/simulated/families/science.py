"""Families of the dataset "science"."""

from __future__ import annotations

from satlight.records.simulated.family import Family, Neutral, Numbers

FAMILIES = (
    Family(
        name="physics",
        dataset="science",
        keywords="Physics, Motion, Energy, Electricity, Forces",
        skills={"science": 0.8, "mathematics": 0.6},
        difficulty=0.3,
        templates=(
            "A {object} of mass {a} kg moves at {b} m/s. How large is the {quantity} involved?",
            "A {object} falls from a height of {b} metres. Neglecting drag, when does it hit the ground?",
            "A resistor of {a} ohm carries a current of {b} milliampere. Find its voltage and its power.",
            "Derive the {quantity} of a {object} on a slope of {b} degrees, and evaluate it for {a} kg.",
            "Light of wavelength {a} nanometres enters glass at {b} degrees. By which angle is it refracted?",
        ),
        slots={
            "object": Neutral(
                ("ball", "cart", "stone", "satellite", "sledge", "bullet", "pendulum", "rocket")
            ),
            "quantity": (
                *("speed", "kinetic energy", "momentum", "power", "net force", "angular momentum"),
                *("moment of inertia", "Lagrangian", "entropy change"),
            ),
            "a": Numbers(2, 900),
            "b": Numbers(3, 80),
        },
    ),
    Family(
        name="chemistry",
        dataset="science",
        keywords="Chemistry, Reactions, Molecules, Acids, Elements",
        skills={"science": 1.0, "facts": 0.2},
        difficulty=0.3,
        templates=(
            "How many moles are contained in {a} grams of {compound}? Use the molar mass of each element.",
            "Balance the reaction of {compound1} with {compound2} and name the products.",
            "What is the pH of {a} millilitres of a solution with {b} grams of {compound}?",
            "Describe the bonding in {compound}: geometry, polarity and type of each bond.",
            "Suggest a laboratory test which tells {compound1} from {compound2} and say what one sees.",
        ),
        slots={
            "compound": (
                *(
                    "water",
                    "table salt",
                    "hydrochloric acid",
                    "ammonia",
                    "sulfuric acid",
                    "ethanol",
                    "calcium carbonate",
                ),
                *(
                    "acetic acid",
                    "potassium permanganate",
                    "benzene",
                    "glucose",
                    "silver nitrate",
                    "acetylsalicylic acid",
                ),
                *("cisplatin", "ferrocene", "xenon difluoride"),
            ),
            "a": Numbers(3, 800),
            "b": Numbers(2, 90),
        },
    ),
    Family(
        name="biology",
        dataset="science",
        keywords="Biology, Cells, Genetics, Evolution, Ecology",
        skills={"science": 0.8, "medicine": 0.4},
        difficulty=0.0,
        templates=(
            "Explain the role of {thing} in {organism} in two sentences for a school book.",
            "How does {thing} differ between {organism1} and {organism2}, and what explains the difference?",
            "Which experiment would show that {thing} matters for the survival of {organism}?",
            "A mutation disturbs {thing} in {organism}. Which effects would a biologist expect?",
        ),
        slots={
            "thing": (
                *(
                    "photosynthesis",
                    "cell division",
                    "the cell membrane",
                    "digestion",
                    "DNA replication",
                    "camouflage",
                ),
                *(
                    "osmosis",
                    "meiosis",
                    "the mitochondrial genome",
                    "RNA splicing",
                    "horizontal gene transfer",
                ),
                *("the ubiquitin pathway", "genomic imprinting"),
            ),
            "organism": (
                *(
                    "humans",
                    "oak trees",
                    "honey bees",
                    "frogs",
                    "yeast",
                    "zebrafish",
                    "fruit flies",
                    "mosses",
                ),
                *("nematodes", "cyanobacteria", "lichens", "tardigrades", "archaea"),
            ),
        },
    ),
    Family(
        name="astronomy",
        dataset="science",
        keywords="Astronomy, Planets, Stars, Galaxies, Orbits",
        skills={"science": 0.7, "facts": 0.5},
        difficulty=0.2,
        templates=(
            "How far from Earth is {body}, and how long would a probe at {v} km/s travel to it?",
            "What would a visitor with a telescope of {v} centimetres see when looking at {body}?",
            "How did astronomers find out the {property} of {body}? Describe the method.",
            "Compare {body1} and {body2} with respect to their {property}, in two or three sentences.",
        ),
        slots={
            "body": (
                *(
                    "the Moon",
                    "Mars",
                    "Jupiter",
                    "Saturn's rings",
                    "Pluto",
                    "Sirius",
                    "the Andromeda galaxy",
                    "Titan",
                ),
                *(
                    "the Crab Nebula",
                    "Betelgeuse",
                    "Ceres",
                    "Proxima Centauri b",
                    "Sagittarius A*",
                    "the quasar 3C 273",
                ),
            ),
            "property": (
                "size",
                "temperature",
                "mass",
                "orbit",
                "age",
                "chemical composition",
                "magnetic field",
            ),
            "v": Numbers(5, 90, graded=False),
        },
    ),
    Family(
        name="earth_science",
        dataset="science",
        keywords="Geology, Weather, Climate, Oceans, Earthquakes",
        skills={"science": 0.6, "facts": 0.6},
        difficulty=0.0,
        templates=(
            "How does {process} come about, and which {n} signs announce it?",
            "Why is {process} more frequent {where} than elsewhere? Answer in {n} sentences.",
            "Draw up a short lesson on {process} with an example from {where2}.",
            "Does climate change strengthen {process} {where}? Weigh {n} pieces of evidence.",
        ),
        slots={
            "process": (
                *(
                    "rain",
                    "a thunderstorm",
                    "a volcanic eruption",
                    "an earthquake",
                    "a tsunami",
                    "coastal erosion",
                ),
                *(
                    "a monsoon",
                    "the formation of limestone",
                    "a glacier surge",
                    "ocean acidification",
                    "a foehn wind",
                ),
                *("thermohaline circulation", "contact metamorphism", "isostatic rebound"),
            ),
            "where": Neutral(
                (
                    *(
                        "in Iceland",
                        "in the Andes",
                        "around the Pacific",
                        "in northern India",
                        "on Greenland",
                    ),
                    *("along the Alps", "in the Sahel", "near the equator"),
                )
            ),
            "n": Neutral(("two", "three", "four", "five")),
        },
    ),
    Family(
        name="unit_conversion",
        dataset="science",
        keywords="Units, Conversion, Metric system, Imperial measures, Temperature",
        skills={"mathematics": 0.6, "facts": 0.3, "science": 0.3},
        difficulty=-0.5,
        templates=(
            "Convert {a} {unit1} into {unit2}, or say why that cannot be done.",
            "A recipe from abroad asks for {a} {unit}. How much is that in the metric system?",
            "Which is more: {a} {unit1} or {b} {unit2}? Show the conversion of both.",
            "Express {a} {unit} in SI base units, with {n} significant digits.",
        ),
        slots={
            "unit": (
                *(
                    "kilometres",
                    "miles",
                    "pounds",
                    "inches",
                    "gallons",
                    "ounces",
                    "degrees Fahrenheit",
                    "acres",
                ),
                *("knots", "pints", "fathoms", "horsepower", "stone", "furlongs", "bushels", "slugs", "ergs"),
            ),
            "a": Numbers(2, 5000),
            "b": Numbers(2, 5000),
            "n": Neutral(("two", "three", "four")),
        },
    ),
)
