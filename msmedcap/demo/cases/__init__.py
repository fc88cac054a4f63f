"""Cases of evaluations, browsed and drawn as figures."""
