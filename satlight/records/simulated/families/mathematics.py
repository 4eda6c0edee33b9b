"""Families of the dataset "mathematics"."""

from __future__ import annotations

from satlight.records.simulated.families.words import NAMES
from satlight.records.simulated.family import Family, Neutral, Numbers

GOODS = Neutral(("apples", "pencils", "notebooks", "stickers", "oranges", "candles", "tickets", "postcards"))
COLOURS = Neutral(("red", "blue", "green", "yellow", "white", "black"))

FAMILIES = (
    Family(
        name="arithmetic",
        dataset="mathematics",
        keywords="Arithmetic, Addition, Subtraction, Multiplication, Division",
        skills={"mathematics": 0.9},
        difficulty=-0.5,
        templates=(
            "Multiply {a} by {b}, then subtract {c} from the product and give the final number.",
            "What is the exact value of {a} + {b} - {c}? Show each step of the sum.",
            "Divide {a} by {c} and write down both the quotient and the remainder.",
            "Compute ({a} + {b}) * {c} without a calculator and state only the result.",
            "Add the three numbers {a}, {b} and {c}, and tell me what they come to.",
        ),
        slots={"a": Numbers(12, 90000), "b": Numbers(11, 9000), "c": Numbers(2, 900)},
    ),
    Family(
        name="percentages",
        dataset="mathematics",
        keywords="Percentages, Discounts, Ratios, Fractions, Growth",
        skills={"mathematics": 0.8, "business": 0.3},
        difficulty=-0.4,
        templates=(
            "A coat costs {price} dollars and is reduced by {percent} percent. What is the new price?",
            "What percentage of {price} is {part}? Round your answer to one decimal place.",
            "A village of {price} people grows by {percent} percent a year. How many live there after "
            "two years?",
            "After a rise of {percent} percent a bicycle costs {price} dollars. What did it cost before "
            "the rise?",
            "Split {price} marbles between two children in the ratio {part} to {percent}. How many does "
            "each get?",
        ),
        slots={"price": Numbers(40, 20000), "percent": Numbers(3, 97), "part": Numbers(2, 60)},
    ),
    Family(
        name="algebra",
        dataset="mathematics",
        keywords="Algebra, Equations, Polynomials, Unknowns, Functions",
        skills={"mathematics": 1.0, "logic": 0.2},
        difficulty=0.1,
        templates=(
            "Solve the linear equation {a}x + {b} = {c} for the unknown x and simplify the fraction.",
            "Find both roots of the quadratic x^2 - {a}x + {b} = 0, in exact form.",
            "Solve the system {a}x + y = {c} and x - y = {b} for the unknowns x and y.",
            "Expand and simplify the polynomial (x + {a})(x - {b}) + {c}x as far as possible.",
            "For which value of k does the line y = kx + {b} pass through the point ({a}, {c})?",
        ),
        slots={"a": Numbers(2, 60), "b": Numbers(2, 300), "c": Numbers(5, 900)},
    ),
    Family(
        name="geometry",
        dataset="mathematics",
        keywords="Geometry, Area, Volume, Angles, Triangles",
        skills={"mathematics": 0.9, "logic": 0.3},
        difficulty=0.1,
        templates=(
            "Find the area of a {shape} whose longest side measures {a} cm and whose height is {b} cm.",
            "A right triangle has legs of {a} cm and {b} cm. How long is its hypotenuse?",
            "Calculate the volume of a {solid} with a radius of {b} cm and a height of {a} cm.",
            "A {solid} of radius {b} m is painted all over. How many square metres does the paint cover?",
            "In a {shape} of perimeter {a} cm one angle is {b} degrees. Which other angles can be found?",
        ),
        slots={
            "a": Numbers(4, 400),
            "b": Numbers(3, 120),
            "shape": (
                "rectangle",
                "triangle",
                "parallelogram",
                "rhombus",
                "trapezoid",
                "kite",
                "regular hexagon",
            ),
            "solid": ("cylinder", "cone", "hemisphere", "sphere with a bored hole", "truncated cone"),
        },
    ),
    Family(
        name="probability",
        dataset="mathematics",
        keywords="Probability, Dice, Cards, Combinations, Chance",
        skills={"mathematics": 0.8, "logic": 0.5},
        difficulty=0.4,
        templates=(
            "A bag holds {a} {colour1} and {b} {colour2} marbles. Two are drawn together. "
            "What is the probability that both are {colour1}?",
            "A fair die with {a} faces is rolled {few} times. What is the probability of at least one {low}?",
            "In how many ways can a committee of {few} people be chosen out of {b} volunteers?",
            "A coin lands heads with probability 1/{low}. What is the chance of exactly {few} heads in "
            "{b} throws?",
            "{a} guests and {b} hosts sit down in random order. How likely is it that {few} given guests "
            "sit together?",
        ),
        slots={
            "a": Numbers(4, 40),
            "b": Numbers(5, 60),
            "few": Numbers(2, 7),
            "low": Neutral(("2", "3", "4")),
            "colour": COLOURS,
        },
    ),
    Family(
        name="number_theory",
        dataset="mathematics",
        keywords="Number theory, Primes, Divisors, Remainders, Factors",
        skills={"mathematics": 0.7, "logic": 0.7},
        difficulty=0.5,
        templates=(
            "Find the greatest common divisor and the least common multiple of {a} and {b}.",
            "What is the remainder when {m} to the power {e} is divided by the prime {p}?",
            "Write {a} as a product of prime factors, and say how many divisors it has.",
            "What is the smallest positive integer that leaves remainder {m} when divided by {p} and by {b}?",
            "How many positive integers below {b} share no prime factor with {a}? Explain your counting.",
        ),
        slots={
            "a": Numbers(36, 40000),
            "b": Numbers(24, 9000),
            "m": Numbers(2, 9),
            "e": Numbers(5, 200),
            "p": Neutral(("11", "13", "17", "19", "23", "29")),
        },
    ),
    Family(
        name="word_problems",
        dataset="mathematics",
        keywords="Word problems, Shopping, Travel, Everyday sums, Steps",
        skills={"mathematics": 0.7, "logic": 0.4},
        difficulty=-0.2,
        templates=(
            "{name1} has {a} {goods} and gives {b} of them to {name2}, who already had {c}. "
            "How many {goods} does {name2} have now?",
            "{name1} buys {b} boxes with {c} {goods} in each and shares them equally among {b2} friends. "
            "How many {goods} does each friend get?",
            "A train leaves at noon at {a} km/h, and {name1} follows two hours later at a speed {c} km/h "
            "higher. "
            "When does {name1} catch up?",
            "{name1} earns {c} dollars an hour and works {b} hours a week. "
            "How many weeks until {name1} can pay for a car of {car} dollars?",
            "{name1} is {b} years older than {name2}, and together they are {c} years old. How old is "
            "{name2}?",
        ),
        slots={
            "a": Numbers(60, 4000),
            "b": Numbers(3, 60),
            "c": Numbers(12, 600),
            "car": Numbers(4000, 60000, 100),
            "name": NAMES,
            "goods": GOODS,
        },
    ),
    Family(
        name="calculus",
        dataset="mathematics",
        keywords="Calculus, Derivatives, Integrals, Limits, Maxima",
        skills={"mathematics": 1.1},
        difficulty=0.6,
        templates=(
            "Differentiate the function f(x) = {a}x^{n} * {f} with respect to x and simplify.",
            "Evaluate the definite integral of {a}x * {f} from x = 0 to x = {n}.",
            "Find the limit of ({f} - 1) / ({a}x) as x tends to {n}, with a short proof.",
            "At which x does g(x) = {f} - {a}x reach a local maximum on the interval from 0 to {n}?",
            "Write the first {n} terms of the Taylor series of {a} * {f} around x = 0.",
        ),
        slots={
            "a": Numbers(2, 30),
            "n": Numbers(2, 9),
            "f": (
                "x^2",
                "sin(x)",
                "cos(2x)",
                "exp(x)",
                "ln(x + 1)",
                "sqrt(x + 4)",
                "x*exp(-x)",
                "tan(x)/x",
                "arctan(3x)",
            ),
        },
    ),
    Family(
        name="statistics",
        dataset="mathematics",
        keywords="Statistics, Mean, Variance, Regression, Hypothesis tests",
        skills={"mathematics": 0.7, "science": 0.5},
        difficulty=0.3,
        templates=(
            "A sample of {n} {things} has mean {mean} and standard deviation {sd}. Give the {level} percent "
            "confidence interval of the mean.",
            "Two groups of {n} {things} differ by {sd} on average. Is that significant at the {level} "
            "percent level "
            "if the pooled variance is {mean}?",
            "The weights of {things} are normal with mean {mean} and standard deviation {sd}. "
            "What share lies above {n}?",
            "Explain how the standard error of the mean changes when a sample of {things} grows from "
            "{sd} to {n}.",
        ),
        slots={
            "n": Numbers(16, 900),
            "mean": Numbers(20, 400),
            "sd": Numbers(2, 40),
            "level": Neutral(("90", "95", "99")),
            "things": Neutral(
                ("fish", "light bulbs", "patients", "bricks", "parcels", "pupils", "batteries")
            ),
        },
    ),
)
