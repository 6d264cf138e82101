"""The model: towers that run when content or a query changes, a light ranker that runs when anything changes.

Read in the order of the data:

    config.py     the form of a model: encoders, fusion, heads, losses; part of the header of its weights
    encoders/     text, attributes, picture, video, sound -> vectors; the product tower and the query tower
    relative.py   how a number stands in its list: z-scores, ranks
    live_numbers.py  prices and counts -> logarithms, ratios to the product's own past, places in the list
    parts.py      one vector for each modality, for price, sales, clicks and the retrieval score
    fusion/       the vectors of the parts -> one: sum, concatenation, attention or gates, with contributions
    heads.py      query and user -> the direction in which they like that vector to point; several heads, one score
    list_attention.py  what stands beside a row bends that direction
    blocks.py     rows by as many as fit into the processor's cache
    ranker.py     all of these: vectors and live numbers -> the logit of a click, and what it is made of
    tracing.py    the ranker as one graph, for the few rows of an event
    bundle.py     weights and what belongs to them in safetensors files; the bundle that is committed
    backend.py    Triton's side: tensors by DLPack in and out
    inprocess.py  the same nets without Triton, as a Scorer
    dataset.py    events -> lists to learn from: features as of the moment, what was bought next
    log_lists.py  the log of an engine -> lists of the same form: result sets as registered and shown
    lessons.py    lists in which a picture, a film, a sound or attributes alone tell what was asked for
    losses.py     click-through, relevance, listwise softmax, LambdaRank; several at once
    calibration.py  scores of lists that nothing was learned from -> click probabilities
    training/     lists -> weights
    metrics.py    how good an order is: NDCG, MRR, AUC, calibration, bootstrap intervals                  (pure)
    evaluate.py   NDCG@10 of the model, of popularity, and of the model with a part of it masked
    suites/       questions about the model that a command answers: fusions, pictures, clicks, freshness, speed
    export.py     weights -> a new version in a model repository
    versions.py   which versions belong together, and which of them the server is to hold

Nothing here is imported by a worker: torch stays behind Triton.
"""
