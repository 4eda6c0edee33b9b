"""Give a new candidate its aptitude test: items, endpoints, answers, grades, profile (docs/onboarding.md)."""
