"""`freshrank bench`: ours beside a floor that does nothing and beside what people would otherwise build, in one run.

    surroundings.py  where a run happens; children that are asked and tell in JSON
    telling.py       the child's side of that
    world.py         products, sets and events from a seed
    rows.py          what a suite finds, as a table, JSON and Markdown

    wire.py          the client that measures latencies
    lanes.py         ways from an event to its rankings: ours, the floor's, the peer's
    latency.py       event produced -> ranking received
    ingest.py        records a second through one worker
    store.py         rows written and read
    scoring.py       rows through Triton
    scale.py         cost and memory as sets and products grow; workers, starts and kills

    suites.py        the suites by name, run one after the other
    capacity.py      what a shop of any size needs, from measured figures                      (pure)
    page.py          docs/performance.md
    peers/           floors and peers, most of them processes of their own

In every suite floor and peers run in the same process tree, on the same data, in turns with ours: a ratio is made of
figures of the same run, and is as good on a busy machine as on an idle one.
"""
