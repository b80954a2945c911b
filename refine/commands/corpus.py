"""`regrasp corpus`: the options are those of `contact.corpus.CorpusConfig`."""

from __future__ import annotations

from contact.corpus import CorpusConfig, build_corpus

__all__ = ["CorpusConfig", "corpus"]


def corpus(config: CorpusConfig) -> int:
    """Build the corpus; interrupted and started again it goes on where it was."""
    build_corpus(config)
    return 0
