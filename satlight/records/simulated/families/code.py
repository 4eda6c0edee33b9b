"""Families of the dataset "code"."""

from __future__ import annotations

from satlight.records.simulated.family import Family, Neutral, Numbers

TASKS = (
    "reverses a string",
    "counts the vowels of a word",
    "removes duplicates from a list",
    "checks whether a text is a palindrome",
    "merges two sorted lists",
    "returns the second largest element",
    "groups words that are anagrams of each other",
    "flattens a nested list of any depth",
    "converts Roman numerals to integers",
    "validates a credit card number with the Luhn rule",
    "finds the longest common subsequence of two strings",
    "evaluates an arithmetic expression with brackets",
    "solves a Sudoku by backtracking",
    "finds all strongly connected components of a graph",
    "implements an LRU cache with constant-time access",
    "balances a red-black tree after a deletion",
)
LOOPS = (
    "for i in range({n}): total += i",
    "while n > {n}: n = n // 2",
    "print([k * k for k in range({n}) if k % 3])",
    "print(sorted('banana' * {n})[-1])",
    "x = [0] * {n}; y = x; y[0] = 7; print(x)",
    "f = lambda k: k if k < 2 else f(k - 1) + f(k - 2); print(f({n}))",
    "print(functools.reduce(lambda p, q: p ^ q, range({n})))",
    "print(sum(map(int, str(2 ** {n}))))",
)

FAMILIES = (
    Family(
        name="python_functions",
        dataset="code",
        keywords="Python, Functions, Lists, Strings, Programming",
        skills={"code": 1.0},
        difficulty=0.0,
        templates=(
            "Write a Python function named {fn} that {task}, with type hints and a docstring.",
            "Implement {fn}() in Python so that it {task}. Add {n} assert statements that test it.",
            "In Python, write def {fn}(data) which {task}; inputs may have up to {n} thousand elements.",
            "Give me a short Python program which {task}. It should handle empty input and use no library.",
        ),
        slots={
            "task": TASKS,
            "fn": Neutral(
                ("solve", "process", "transform", "compute", "handle", "run_task", "helper", "main_step")
            ),
            "n": Numbers(2, 20),
        },
    ),
    Family(
        name="javascript_functions",
        dataset="code",
        keywords="JavaScript, TypeScript, Browser, Promises, Web pages",
        skills={"code": 0.9, "writing": 0.2},
        difficulty=0.1,
        templates=(
            "Write a JavaScript arrow function {fn} that {task}, using const and no external package.",
            "Create a component for {framework} called {fn} that {web}. Keep it under {n} lines.",
            "In TypeScript, declare an async function {fn} that {web} and retries up to {n} times.",
            "Show how to add an event listener in plain JavaScript so that the page {web}.",
        ),
        slots={
            "task": TASKS,
            "fn": Neutral(
                ("update", "render", "onReady", "loadItems", "refresh", "pickOne", "toView", "useData")
            ),
            "framework": ("React", "Vue", "Svelte", "Angular"),
            "web": (
                "hides a menu on click",
                "shows a live clock",
                "validates an email field",
                "fetches users from a REST endpoint",
                "sorts a table by any column",
                "debounces a search box",
                "drags cards between columns",
                "streams chat messages over a web socket",
                "syncs an offline cache with the server",
            ),
            "n": Numbers(3, 60),
        },
    ),
    Family(
        name="code_reading",
        dataset="code",
        keywords="Program output, Tracing, Loops, Recursion, Snippets",
        skills={"code": 0.7, "logic": 0.6},
        difficulty=0.2,
        templates=tuple(
            f"{lead} {body} {tail}"
            for lead, body, tail in zip(
                (
                    "Trace this snippet when total starts at {s}:",
                    "The variable n is {s}. What is n after this loop:",
                    "Read the line below and predict its output exactly, given seed {s}:",
                    "What will the following Python one-liner print on attempt {s}?",
                    "A student of group {s} runs this code:",
                    "Without running it, say what this recursive code prints for team {s}:",
                    "After import functools, what is the output of line {s}:",
                    "Predict the number printed by line {s} of the script:",
                ),
                LOOPS,
                (
                    "- what is the value at the end?",
                    "- and how many times does it run?",
                    "- explain briefly.",
                    "- answer with one value.",
                    "- what appears on the screen, and why?",
                    "- give the number only.",
                    "- show your reasoning.",
                    "- no explanation needed.",
                ),
                strict=True,
            )
        ),
        slots={"n": Numbers(3, 60), "s": Numbers(3, 3000, graded=False)},
    ),
    Family(
        name="debugging",
        dataset="code",
        keywords="Debugging, Exceptions, Stack traces, Bugs, Fixes",
        skills={"code": 1.0, "logic": 0.2},
        difficulty=0.3,
        templates=(
            "My {lang} program crashes with '{error}' at line {line}. What is the likely cause and the fix?",
            "Find the bug: a {lang} service fails with '{error}' only when {when}.",
            "Since the last commit our {lang} tests report '{error}' in {line} places. How do I track it "
            "down?",
            "Explain to a beginner what '{error}' means in {lang} and how to avoid it when {when}.",
        ),
        slots={
            "lang": ("Python", "Java", "JavaScript", "C#", "Go", "PHP", "C++", "Kotlin", "Rust", "Haskell"),
            "error": (
                "undefined variable",
                "index out of range",
                "null reference",
                "division by zero",
                "type mismatch",
                "stack overflow",
                "deadlock detected",
                "use after free",
                "data race on shared state",
                "segmentation fault in native code",
            ),
            "when": (
                "the list is empty",
                "the file is missing",
                "two users log in at once",
                "the clock changes to summer time",
                "memory runs low",
                "the request is cancelled half way",
            ),
            "line": Numbers(4, 900, graded=False),
        },
    ),
    Family(
        name="sql_queries",
        dataset="code",
        keywords="SQL, Databases, Queries, Joins, Tables",
        skills={"code": 0.8, "business": 0.4},
        difficulty=0.0,
        templates=(
            "Write a SQL query that returns {what} from the tables {table1} and {table2}, limited to {n} "
            "rows.",
            "Given a table {table1}(id, date, amount, region), write one SELECT statement that shows {what}.",
            "How would you index the {table1} table so that a query for {what} stays fast at {n} million "
            "rows?",
            "Rewrite this request in SQL for PostgreSQL: show {what} for {table1} joined to {table2}.",
        ),
        slots={
            "table": Neutral(
                ("orders", "customers", "invoices", "employees", "shipments", "products", "visits")
            ),
            "what": (
                "all rows of this year",
                "the number of rows per region",
                "the average amount per month",
                "the five largest amounts",
                "ids that occur more than once",
                "rows without a match on the other side",
                "the month with the largest increase",
                "the median amount of every region",
                "a running total by date within each region",
                "the longest streak of consecutive days",
            ),
            "n": Numbers(5, 500, graded=False),
        },
    ),
    Family(
        name="regular_expressions",
        dataset="code",
        keywords="Regular expressions, Patterns, Matching, Text search, Parsing",
        skills={"code": 0.7, "logic": 0.4, "writing": 0.2},
        difficulty=0.3,
        templates=(
            "Write a regular expression that matches {what} and is at most {n} characters long.",
            "Give a regex for {engine} which captures {what} in a named group, and explain each part.",
            "Which regular expression replaces {what} by an empty string in {engine}? Test it on {n} "
            "examples.",
            "Why does my pattern fail to match {what} in {engine} when the text has {n} lines?",
        ),
        slots={
            "what": (
                "a whole number",
                "a word in capital letters",
                "an email address",
                "a date such as 2024-03-31",
                "a phone number with country code",
                "an HTML tag with attributes",
                "an IPv4 address below 255 in every part",
                "a quoted string with escaped quotes",
                "a line that does not contain a given word",
                "balanced brackets to depth three",
                "two equal words in a row across line breaks",
            ),
            "engine": Neutral(("Perl", "grep", "sed", "Java", "Python's re module", "JavaScript", ".NET")),
            "n": Numbers(3, 90, graded=False),
        },
    ),
    Family(
        name="shell_commands",
        dataset="code",
        keywords="Linux, Shell, Bash, Files, Command line",
        skills={"code": 0.8, "facts": 0.2},
        difficulty=-0.2,
        templates=(
            "Which bash command {what} in the folder {dir} and all folders below it?",
            "Write a shell one-liner that {what} under {dir} and skips files older than {n} days.",
            "On Linux, how do I set up a cron job which {what} in {dir} every {n} minutes?",
            "Explain a safe shell script that {what} inside {dir}; it has to stop on the first error.",
        ),
        slots={
            "what": (
                "lists all hidden files",
                "counts the lines of every text file",
                "finds the ten largest files",
                "renames all .jpeg files to .jpg",
                "deletes empty folders",
                "replaces a word in every file",
                "finds files with identical content",
                "archives and encrypts the logs",
                "kills processes that hold deleted files open",
                "mirrors changed blocks to a remote host",
            ),
            "dir": Neutral(
                ("/var/log", "/home/data", "/srv/www", "/tmp/build", "/opt/app", "~/photos", "~/mail")
            ),
            "n": Numbers(2, 90, graded=False),
        },
    ),
)
