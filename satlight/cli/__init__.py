"""The command line: one file per verb. Nothing else imports this package."""

from satlight.cli.main import main

__all__ = ["main"]
