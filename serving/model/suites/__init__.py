"""What the model is measured by: a suite a question, each with its floors beside it.

What they share:

    asking.py      what a suite is told: where data is, how many trainings, whom to tell how far it is
    rows.py        what it answers: rows, figures, what there is to know about them
    learning.py    nets trained for a suite, and those that serve
    judging.py     lists, and every metric of scores for their rows
    replaying.py   impressions and clicks -> the lists that were shown, strictly causal; a check that they are
    bench.py       libraries that only benchmarks need
    floors.py      orders that any model must beat
    plain.py       the features that anybody would give a gradient-boosted ranker
    drawing.py     a figure as SVG
    page.py        findings into a page of the documents

The suites, each with `measure(asking) -> Finding`:

    shops.py       the committed or trained weights on Online Retail and on drawn shirts: all metrics, all floors
    ranklens.py    clicks of people on films
    luma.py        sets built from attributes: fusions, modalities alone and taken away, colours without their words
    clothing.py    what class a photograph is of
    freshness.py   quality as live features come late
    scoring.py     rows per second through Triton
    device.py      rows and pictures per second on a GPU
"""
