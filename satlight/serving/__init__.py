"""An OpenAI-compatible server that routes: litellm's proxy with satlight's decision (docs/serving.md).

:mod:`~satlight.serving.providers` alone imports litellm; all but it and the gateway works and is tested without it.
"""
