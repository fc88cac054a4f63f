"""A blinded reader study on the page: readers see a scan and its captions as A, B, C and never learn which system wrote which.

``design`` draws who sees what in which order, ``forms`` is the form as data, ``blind`` takes out of captions, pictures and maps
what would tell the systems apart, ``making`` puts a study together, ``desk`` answers a reader's browser, ``results`` counts once
the letters are opened, ``exports`` writes files, ``command`` is the command line. Only ``panel`` and ``results_panel`` know gradio.
Studies, and every answer ever saved, lie in :mod:`msmedcap.demo.store`.
"""
