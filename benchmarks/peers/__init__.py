"""What freshrank is measured beside: floors that do nothing, and what people would otherwise build.

hops.py           floor of latency: the engine's Kafka hops by bare aiokafka, and one bare Triton call
textbook.py       peer of latency: a Faust agent that writes and reads with Feast's own API
counting.py       how the peers of ingest tell how far they are
bare_aiokafka.py  ingest: decodes and counts
stock_faust.py    ingest: a stock agent that decodes and counts
quix.py           ingest: Quix Streams, a stateful count
feast_redis.py    Feast on its own Redis store: of the textbook build, and of the store suite
raw_redis.py      store: the same bytes by pipelined HSET and HMGET

Each is written as its documentation tells a good engineer to. Only these files may import feast and faust here.
"""
