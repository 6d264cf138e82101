"""The model: towers that run when content or a query changes, a light ranker that runs when anything changes.

Read in the order of the data:

    encoders/     text, attributes, picture, video, sound -> vectors; the product tower and the query tower
    ranker.py     vectors and live numbers -> weighted-sum fusion -> click-through logit, with exact contributions
    bundle.py     weights and what belongs to them in safetensors files; the bundle that is committed
    backend.py    Triton's side: tensors by DLPack in and out
    inprocess.py  the same nets without Triton, as a Scorer
    dataset.py    events -> lists to learn from: features as of the moment, what was bought next
    lessons.py    lists in which a picture, a film, a sound or attributes alone tell what was asked for
    train.py      lists -> weights
    metrics.py    how good an order is: NDCG, MRR, AUC, calibration, bootstrap intervals                  (pure)
    evaluate.py   NDCG@10 of the model, of popularity, and of the model with a part of it masked
    suites/       questions about the model that a command answers: fusions, pictures, clicks, freshness, speed
    export.py     weights -> a new version in a model repository
    versions.py   which versions belong together, and which of them the server is to hold

Nothing here is imported by a worker: torch stays behind Triton.
"""
