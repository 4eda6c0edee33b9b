"""An OpenAI-compatible server that routes: litellm's proxy with satlight's decision (docs/serving.md).

:mod:`~satlight.serving.gateway` alone knows litellm; everything else works and is tested without it.
"""
