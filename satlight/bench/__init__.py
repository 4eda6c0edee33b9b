"""The bench: methods × data × zoo settings × seeds in one command, resumable, ending in a report."""
