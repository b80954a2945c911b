"""The grasp corpus: procedural objects, synthetic grasps on them, and reading it back."""

from __future__ import annotations

from .corpus import Corpus, CorpusConfig, build_corpus, corpus_hash, load_corpus, load_object

__all__ = ["Corpus", "CorpusConfig", "build_corpus", "corpus_hash", "load_corpus", "load_object"]
