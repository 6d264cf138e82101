"""How rows become scores, and scores an order. Knows the features, knows nothing of Kafka.

Read in the order of the data:

    requests.py      the nouns: score request, scores, product content, and what a scorer can do
    errors.py        what may go wrong, and what the pipeline should do about it
    settings.py      the address of Triton, time limits, limits on media
    preprocess/      text and attributes -> ids, media bytes -> numbers, on the client's side     (pure)
    users.py         the last events of a user -> one vector                                 (pure)
    inference.py     Triton's messages
    scorer.py        the door to Triton
    shared_memory.py rows that a Triton on the same machine reads where they lie
    control.py       the same door for those who load models
    ranking.py       scores and stock -> order; what to do without a model                   (pure)
    explaining.py    two rankings of a set -> why products moved, by part of the score and by stock (pure)
    retrieval.py     query -> the candidates a shop's text search would find                 (pure)
    datasets/        real purchases and drawn shirts, as events
    model/           encoders, fusion and head in torch; dataset, train, evaluate, export
"""
