"""The bench: methods × data × zoo settings × seeds in one resumable command that ends in a report."""
