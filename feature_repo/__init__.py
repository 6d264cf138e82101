"""Facts, features and where they live. Knows neither Kafka nor ranking.

Read in the order of the data:

    events.py        product and behaviour events as frozen structs
    features/        state + event -> state; state + as_of -> feature values      (pure)
    views.py         the feature views as plain data: names, dtypes, ttl, input topic, SLO
    row.py           what a reader gets of one row: header, numbers, stamps, strings in one blob
    lines.py         connections to Redis on which several commands travel at once
    row_store.py     rows, stamps, agenda and markers in Redis: one script to write, one to read
    reading.py       rows of a view in bulk as NumPy columns, without Feast
    online_store.py  Feast's online-store class over it
    definitions.py   all Feast objects, made from views.py
"""
