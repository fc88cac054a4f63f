"""The web page: a visitor drops a scan, sees it, its maps and the three captions. Built on any predictor (real or fake).

``page`` lays out and wires, ``endpoints`` serves programs, ``session`` keeps visitors apart, ``viewer`` turns arrays into
pictures, ``cards`` writes the captions, ``accounts`` checks passwords; ``explorer`` shows the cases of an evaluation run and
``figure`` draws some of them. Only ``page``, ``screen``, ``explorer``, ``figure``, ``endpoints`` and ``theme`` know gradio.
"""
