"""The Kafka side: events in, fresh rankings out. Knows serving and features; nobody knows it.

    catalog ──► product side ── changed rows ──► feature-changes ──► ranking side ──► rankings
    behavior ─►      │                │                                   ▲  ▲
                     │                └── in batches ──► Redis ────────────┘  │
                     └── content ──► content side                     result-sets

Read in the order of the data:

    records.py         the wire: topics, and the codec of everything that crosses Kafka
    validation.py      bytes -> records, or a rejection with its reason                        (pure)
    dead_letters.py    what was rejected, as it came, and sending it again
    media.py           media by their sha256, and the careful fetching of addresses

    product_side.py    catalog and behaviour events -> entries of rows; what is forwarded
    folding.py         one small class a view: state + entry -> state -> feature values        (pure)
    writing.py         the rows of one partition: fold, emit at once, flush behind, agenda
    emitting.py        changed rows and heartbeats -> feature-changes
    owning.py          the partitions that this process owns; where each resumes
    content_side.py    contents of products -> vectors -> rows

    minute.py          the last minute of feature-changes: what a read of the store cannot see (pure)
    own_runs.py        where this writer's own records are: what need not be read back      (pure)
    packed_ids.py      product ids as they are packed, by slot                                 (pure)
    candidate_rows.py  the rows of all candidates, as arrays                                   (pure)
    users.py           the users of live sets, and their vectors                               (pure)
    places.py          the candidates of all sets in arrays, product -> candidates             (pure)
    result_sets.py     live sets by id, product and user; expiry                               (pure)
    dirty.py           which sets must be looked at, and why                                   (pure)
    reranking.py       changed rows -> dirty sets -> score request -> rankings                 (pure)
    ordering.py        many lists put in order at once                                         (pure)
    standings.py       the newest published ranking of each set                                (pure)
    reordering.py      scores -> orders -> what must be published, for sets of one width       (pure)
    packing.py         what must be published -> message values, many at once                  (pure)
    publishing.py      records of rankings: numbered, sent in order, seen to arrive
    tables.py          what stands in an owned partition of result-sets and rankings           (pure)
    loading.py         rows of the store for new sets, in bulk, again when a read took too long
    repairing.py       live sets compared with the store, slowly; what it finds must be nothing
    ranking_side.py    tables, loading, scoring, publishing; other writers

    fetching.py        librdkafka reads: what owned partitions hold, from given offsets on
    delivering.py      librdkafka sends: messages one by one
    seldom.py          what librdkafka logs again and again, once in a while
    transport.py       our Faust driver: batches, seek to the marker, commit = flush
    app.py             the Faust app
    agents.py          one short agent per arrow of the drawing
    reading.py         plain consumers: feature-changes, rankings read back, models
    producing.py       the door to Kafka for what the engine sends
    workers.py         a worker process of one role, put together
    topics.py          the topics: made, checked, described
    watching.py        a log that is not what it was: topics that grew or were made anew
    models.py          the first bundle of a cluster, and another one into force
    filling.py         the rows of a new encoder, before it is in force
    settings.py        every setting, from the environment
    metrics.py         what is measured, and times as histograms                               (pure)
    freshness.py       latencies, progress and counts of one process, exposed                  (clock passed in)
    snapshots.py       what all workers measured at one moment: read, merged, judged

    client.py          for users: publish, register result sets, read rankings
    progress.py        for users: wait until what was published is known
    replay.py          a history sent through Kafka again, with the log's clock
    demo.py            real events through a running engine
    show.py            what a terminal shows
    cli.py             the command `freshrank`
    commands/          one file a verb
    oracle/            what every ranking should be, by an offline replay
    local/             the real parts on one machine, and the engine on them
"""
