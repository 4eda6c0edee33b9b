"""TF-IDF vectors of texts, and nearest-neighbor search among dense or sparse vectors.

Shape legend: N instructions, D features, Q queries, K neighbors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

# A word, one Chinese, Japanese or Korean character (written without spaces), or one punctuation mark.
TOKEN = r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|[^\w\s]"


@dataclass
class Features:
    """Embeddings where they are given, else TF-IDF of single tokens.

    Args:
        tfidf: A fitted vectorizer; None = the embeddings are the features.

    Example:
        >>> Features.fit(["Sort a list.", "2 + 2"], None)(["2 + 3"], None).shape
        (1, 6)
    """

    tfidf: TfidfVectorizer | None = None

    @classmethod
    def fit(cls, texts: Sequence[str], vectors_ND: np.ndarray | None, max_tokens: int | None = None) -> Features:
        """Fit TF-IDF where there are no embeddings.

        Args:
            texts: N texts.
            vectors_ND: Their embeddings, rows of length 1; None = use TF-IDF.
            max_tokens: Number of most frequent tokens that TF-IDF keeps; None = all.
        """
        if vectors_ND is not None:
            return cls()
        vectorizer = TfidfVectorizer(token_pattern=TOKEN, sublinear_tf=True, max_features=max_tokens, dtype=np.float32)
        return cls(vectorizer.fit(texts))

    def __call__(self, texts: Sequence[str], vectors_ND: np.ndarray | None) -> np.ndarray | csr_matrix:
        """Return rows of length 1, (N, D); a text without any known token is all zeros."""
        if self.tfidf is not None:
            return self.tfidf.transform(texts)
        assert vectors_ND is not None
        return vectors_ND


def nearest(
    query_QD: np.ndarray | csr_matrix, base_ND: np.ndarray | csr_matrix, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows with the highest cosine, exactly: faiss for dense vectors, scikit-learn for sparse ones.

    Args:
        query_QD: Rows of length 1 (or 0).
        base_ND: Rows of length 1.
        k: At most N.

    Returns:
        Row numbers int64 (Q, K) and cosines float32 (Q, K), the most similar first.

    Example:
        >>> base = np.eye(3, dtype=np.float32)
        >>> ids, cosines = nearest(np.array([[0.5, 0.75, 0.0]], dtype=np.float32), base, 2)
        >>> ids.tolist(), cosines.tolist()
        ([[1, 0]], [[0.75, 0.5]])
    """
    if isinstance(query_QD, np.ndarray):
        import faiss  # loads a second OpenMP, so it is imported only where needed

        index = faiss.IndexFlatIP(base_ND.shape[1])
        index.add(base_ND)
        cosine_QK, id_QK = index.search(query_QD, k)
    else:
        from sklearn.neighbors import NearestNeighbors

        found = NearestNeighbors(n_neighbors=k, algorithm="brute", metric="cosine").fit(base_ND)
        distance_QK, id_QK = found.kneighbors(query_QD)
        cosine_QK = 1 - distance_QK
    # Ties come back in any order; the lower row goes first, so that the first k are the same everywhere.
    order_QK = np.lexsort((id_QK, -cosine_QK), axis=1)
    return np.take_along_axis(id_QK, order_QK, 1), np.take_along_axis(cosine_QK, order_QK, 1)
