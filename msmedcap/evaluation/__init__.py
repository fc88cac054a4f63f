"""How good the captions are: the facts they state (:mod:`~msmedcap.evaluation.facts`) and the scores of a split."""
