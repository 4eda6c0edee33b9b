"""Families of the dataset "professional"."""

from __future__ import annotations

from satlight.records.simulated.families.words import COUNTRIES, NAMES
from satlight.records.simulated.family import Family, Neutral, Numbers

FAMILIES = (
    Family(
        name="diagnosis",
        dataset="professional",
        keywords="Medicine, Diagnosis, Symptoms, Patients, Clinical cases",
        skills={"medicine": 1.1},
        difficulty=0.2,
        templates=(
            "A patient aged {age} presents with {symptom1} and {symptom2} for {n} days. What is the "
            "likely diagnosis?",
            "Which laboratory tests would you order for a {age}-year-old with {symptom1} after a journey "
            "to {country}?",
            "List {n} causes of {symptom1} in a patient of {age}, ordered by urgency, if {symptom2} is "
            "also found.",
            "When is {symptom} in a {age}-year-old an emergency, and what should the nurse do first?",
        ),
        slots={
            "symptom": (
                *(
                    "a sore throat",
                    "fever",
                    "a dry cough",
                    "back pain",
                    "a skin rash",
                    "chest pain",
                    "blurred vision",
                ),
                *(
                    "weight loss",
                    "joint swelling",
                    "night sweats",
                    "a heart murmur",
                    "jaundice",
                    "tingling fingers",
                ),
                *("muscle wasting", "an enlarged spleen", "clubbed nails", "a raised anion gap"),
            ),
            "age": Numbers(19, 79, graded=False),
            "n": Numbers(2, 9, graded=False),
            "country": Neutral(COUNTRIES[:12]),
        },
    ),
    Family(
        name="pharmacology",
        dataset="professional",
        keywords="Pharmacology, Drugs, Doses, Side effects, Interactions",
        skills={"medicine": 1.0, "science": 0.4},
        difficulty=0.5,
        templates=(
            "May a patient who takes {drug1} also take {drug2}? Name the interaction and its mechanism.",
            "What dose of {drug} is usual for an adult of {kg} kg, and how does it change in kidney failure?",
            "Explain how {drug} works, and list {n} side effects which a pharmacist should mention.",
            "After {n} tablets of {drug} a person of {kg} kg feels unwell. What is the antidote or "
            "treatment?",
        ),
        slots={
            "drug": (
                *(
                    "paracetamol",
                    "ibuprofen",
                    "aspirin",
                    "penicillin",
                    "metformin",
                    "omeprazole",
                    "warfarin",
                    "lisinopril",
                ),
                *(
                    "levothyroxine",
                    "digoxin",
                    "lithium",
                    "methotrexate",
                    "amiodarone",
                    "clozapine",
                    "tacrolimus",
                ),
                *("linezolid", "ivabradine"),
            ),
            "kg": Numbers(45, 110, graded=False),
            "n": Numbers(2, 9, graded=False),
        },
    ),
    Family(
        name="contract_law",
        dataset="professional",
        keywords="Contract law, Clauses, Liability, Tenants, Obligations",
        skills={"business": 0.9, "writing": 0.4},
        difficulty=0.3,
        templates=(
            "{name1} signed a contract for {object} with {name2}, but {trouble}. What remedy does "
            "{name1} have?",
            "Draft a clause which protects the buyer of {object} in case {trouble}.",
            "Is an agreement about {object} binding in {country} if {trouble}? Explain the legal test.",
            "My lawyer says the sale of {object} is void because {trouble}. Summarise the arguments for "
            "both sides.",
        ),
        slots={
            "name": NAMES,
            "object": Neutral(
                ("a used car", "a flat", "a painting", "software", "a horse", "a wedding hall", "a patent")
            ),
            "country": Neutral(COUNTRIES[:10]),
            "trouble": (
                "the price was never paid",
                "the delivery came late",
                "the goods were damaged",
                "one party was a minor",
                "the signature was forged",
                "both were mistaken about its age",
                "performance became impossible by a flood",
                "a third party held an option on it",
                "the choice-of-law clause points to a repealed statute",
            ),
        },
    ),
    Family(
        name="criminal_law",
        dataset="professional",
        keywords="Criminal law, Offences, Evidence, Intent, Courts",
        skills={"business": 0.6, "logic": 0.5, "facts": 0.2},
        difficulty=0.4,
        guess=0.08,
        templates=(
            "{name} is accused of {crime}, yet {fact}. Which defence is open, and will it succeed?",
            "What must the prosecution prove for {crime} in {country}, and what if {fact}?",
            "Is it {crime} or a lesser offence when {fact}? Decide the case of {name}.",
            "The court hears that {fact}. May the jury convict {name} of {crime} on this evidence?",
        ),
        slots={
            "name": NAMES,
            "country": Neutral(COUNTRIES[:8]),
            "crime": (
                *(
                    "theft",
                    "burglary",
                    "assault",
                    "fraud",
                    "arson",
                    "robbery",
                    "manslaughter",
                    "bribery",
                    "perjury",
                ),
                *("embezzlement", "conspiracy", "misprision of felony"),
            ),
            "fact": (
                "nobody saw the act",
                "the door was open",
                "the accused was asleep",
                "the owner had agreed",
                "the confession came without a lawyer",
                "the witness has died",
                "the accused believed the coat was her own",
                "the plan was abandoned half way",
            ),
        },
    ),
    Family(
        name="personal_finance",
        dataset="professional",
        keywords="Personal finance, Loans, Interest, Savings, Mortgages",
        skills={"business": 0.8, "mathematics": 0.5},
        difficulty=0.1,
        templates=(
            "I put {a} dollars into a savings account at {r} percent interest. What is it worth after "
            "{n} years?",
            "What is the monthly payment on a {kind} of {a} dollars over {n} years at {r} percent?",
            "Should I pay off a {kind} of {a} dollars at {r} percent or invest the money? Compare over "
            "{n} years.",
            "Plan a budget for a household with {a} dollars of savings, a {kind} and {n} dependants.",
        ),
        slots={
            "a": Numbers(500, 600000, 50),
            "r": Neutral(("1.5", "2", "2.75", "3", "3.5", "4.25", "5", "6.8")),
            "n": Numbers(2, 30),
            "kind": (
                "credit card debt",
                "car loan",
                "student loan",
                "mortgage",
                "balloon loan",
                "reverse mortgage",
            ),
        },
    ),
    Family(
        name="accounting",
        dataset="professional",
        keywords="Accounting, Balance sheet, Depreciation, Taxes, Bookkeeping",
        skills={"business": 1.0, "mathematics": 0.2},
        difficulty=0.4,
        templates=(
            "A firm buys a machine for {a} dollars and uses it for {n} years. How is it shown under {topic}?",
            "Write the journal entries for {topic} of {a} dollars at the end of the quarter.",
            "How does {topic} of {a} dollars change the balance sheet and the income statement of a {firm}?",
            "An auditor questions {topic} in the books of a {firm}. Which {n} documents settle the matter?",
        ),
        slots={
            "a": Numbers(800, 900000, 100),
            "n": Numbers(3, 15, graded=False),
            "firm": Neutral(("bakery", "law firm", "hotel", "shipping line", "farm", "clinic", "publisher")),
            "topic": (
                *(
                    "straight-line depreciation",
                    "an unpaid invoice",
                    "a prepaid rent",
                    "value added tax",
                    "a bad debt",
                ),
                *(
                    "accrued interest",
                    "goodwill impairment",
                    "a finance lease",
                    "deferred tax",
                    "a hedge of currency risk",
                ),
            ),
        },
    ),
)
