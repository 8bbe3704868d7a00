#
# variants.py
#	  What is measured: topics, jobs over them, and the variants, which are the
#	  lines of the report with their bounds.
#
AGGREGATES = "count(*) AS orders, sum(amount) AS total, min(amount) AS low, max(amount) AS high"


def by(key, window):
    return f"SELECT {key}, {AGGREGATES} FROM %s GROUP BY {window}, {key}"


def tumbling(key, size):
    return by(key, f"tumble(event_time, '{size}')")


# Shapes of topics.  rate is in events per second of event time: with the number
# of users it sets how many events share a result row.  A shape with "scale"
# keeps that relation when there are other numbers of events: its users and its
# rate grow with them.
TOPICS = {
    "orders_8": dict(events=3_000_000, rate=20_000, users=100_000),
    "orders_sparse": dict(events=4_000_000, rate=90_000, users=100_000),
    "orders_dense": dict(events=1_000_000, rate=6_650, users=100_000),
    "orders_hop": dict(events=2_250_000, rate=22_500, users=15_000, scale=True),
    "orders_hop_100k": dict(events=12_000_000, rate=150_000, users=100_000, scale=True),
    "orders_1m": dict(events=3_000_000, rate=20_000, users=1_050_000),
}


def topic_shape(name, events):
    """The shape of a topic, with another number of events if that is not 0."""
    shape = dict(TOPICS[name])
    if events and events != shape["events"]:
        if shape.get("scale"):
            shape["users"] = max(1, shape["users"] * events // shape["events"])
            shape["rate"] = shape["rate"] * events / shape["events"]
        shape["events"] = events
    return shape


# Jobs: one stream with one query or several, over a whole topic.
#   copies  so many queries of the same text
#   delay   the watermark's
#   factor  windows that a record belongs to, to check the counts; None: no check
#   after   what else is measured when the job is done, by names in measure.py
#   samples_state  how much shared memory holds state is sampled while the job runs
OPEN = "1000 days"				# a window that stays open

JOBS = {
    "8keys": dict(topic="orders_8", query=tumbling("category", "10 seconds")),
    "8keys_5q": dict(topic="orders_8", query=tumbling("category", "10 seconds"), copies=5),
    "staging": dict(topic="orders_8", query=tumbling("category", "10 seconds"), staging="10 minutes"),
    "hop_8": dict(topic="orders_8", factor=60,
                  query=by("category", "hop(event_time, '30 seconds', every => '0.5 seconds')")),
    "tumble_8": dict(topic="orders_8", query=tumbling("category", "0.5 seconds")),
    "100k_sparse": dict(topic="orders_sparse", query=tumbling("user_id", "10 seconds")),
    "open_100k": dict(topic="orders_sparse", query=tumbling("user_id", OPEN), after=["live"], samples_state=True),
    "100k_dense": dict(topic="orders_dense", query=tumbling("user_id", "10 seconds"), after=["copy"]),
    "100k_dense_no_rows": dict(topic="orders_dense", factor=None,
                               query=tumbling("user_id", "10 seconds") + " HAVING count(*) < 0"),
    "session": dict(topic="orders_dense", query=by("user_id", "session(event_time, '5 seconds')")),
    "hop_dense": dict(topic="orders_hop", factor=60,
                      query=by("user_id", "hop(event_time, '60 seconds', every => '1 second')")),
    "tumble_dense": dict(topic="orders_hop", query=tumbling("user_id", "0.58 seconds")),
    "hop_100k": dict(topic="orders_hop_100k", factor=60,
                     query=by("user_id", "hop(event_time, '60 seconds', every => '1 second')")),
    "tumble_100k": dict(topic="orders_hop_100k", query=tumbling("user_id", "0.58 seconds")),
    "open_1m": dict(topic="orders_1m", query=tumbling("user_id", OPEN), after=["restart"]),
}

# Variants.  "kind" is a function of measure.py that makes a value of each round
# of the jobs; "must" and "aim" bound the median, for latency (p50, p99).  Those
# with rounds=1 are not a matter of CPU time and are measured in one round.
VARIANTS = {
    "8keys": dict(kind="ratio", jobs=["8keys"], unit="R", must=1.45, aim=1.2,
                  title="8 keys, 4 aggregates, staging off"),
    "100k_sparse": dict(kind="ratio", jobs=["100k_sparse"], unit="R", must=2.4, aim=1.8,
                        title="100,000 keys x 10 s windows, 1 result row per 9 events"),
    "100k_dense": dict(kind="ratio", jobs=["100k_dense"], unit="R", must=8.0, aim=5.0,
                       title="100,000 keys x 10 s windows, 0.73 result rows per event"),
    "session": dict(kind="ratio", jobs=["session"], unit="R", must=12.0, aim=7.0,
                    title="sessions of 5 s gap, 100,000 keys, 0.72 result rows per event"),
    "session_twin": dict(kind="twin", jobs=["session", "100k_dense"], unit="x", must=2.0, aim=None,
                         title="those sessions against tumbling windows, same keys and result rows"),
    "staging": dict(kind="ratio", jobs=["staging"], unit="R", must=2.4, aim=1.9,
                    title="8 keys, 4 aggregates, staging on"),
    "hop_8": dict(kind="twin", jobs=["hop_8", "tumble_8"], unit="x", must=1.2, aim=1.05,
                  title="hop of size/slide 60 against tumbling, 8 keys"),
    "hop_dense": dict(kind="twin", jobs=["hop_dense", "tumble_dense"], unit="x", must=1.2, aim=1.05,
                      title="hop of size/slide 60 against tumbling, 0.67 result rows per event"),
    "hop_100k": dict(kind="twin", jobs=["hop_100k", "tumble_100k"], unit="x", must=1.2, aim=1.05,
                     title="the same with 100,000 keys", extra=True),
    "queries": dict(kind="further", jobs=["8keys_5q", "8keys"], unit="R", must=0.2, aim=0.08,
                    title="each further query of 8 keys on the stream"),
    "rows": dict(kind="rows", jobs=["100k_dense", "100k_dense_no_rows"], unit="x", must=1.6, aim=1.0,
                 title="result rows against COPY into the same table with its key"),
    "group_memory": dict(kind="group_memory", jobs=["open_100k"], field="state_peak_mb", unit="B", must=128, aim=80,
                         title="shared memory a live group, bigint key, 4 aggregates, at the worst moment"),
    "group_median": dict(kind="group_memory", jobs=["open_100k"], field="state_median_mb", unit="B", must=128,
                               aim=80, title="the same, median over time"),
    "restart": dict(kind="field", jobs=["open_1m"], field="restart_s", unit="s", must=2.0, aim=0.5, rounds=1,
                    title="restart with 1,000,000 open groups: first record consumed after"),
    "memory": dict(kind="field", jobs=["8keys"], field="rss_mb", unit="MB", must=250, aim=120,
                   title="resident memory of the worker, shared memory included, 8 keys"),
    "live": dict(kind="field", jobs=["open_100k"], field="live_ms", unit="ms", must=150, aim=60,
                 title="SELECT of _live with 100,000 open groups"),
    "state_wal": dict(kind="field", jobs=["open_100k"], field="wal_bytes_per_event", unit="B", must=8, aim=None,
                      title="WAL of the state log per event, 100,000 keys"),
    "latency": dict(kind="latency", rate=1_000, linger=0, must=(20, 50), aim=(8, 20),
                    title="window end to visible row, 1,000 events/s"),
    "latency_20k": dict(kind="latency", rate=20_000, linger=1, must=(20, 50), aim=(8, 20),
                        title="window end to visible row, 20,000 events/s"),
    "latency_half": dict(kind="latency", rate=None, linger=5, must=(None, 200), aim=(None, 60),
                         title="window end to visible row, half of the maximal rate"),
    "latency_beside": dict(kind="latency", rate=20_000, linger=1, must=(20, 50), aim=(8, 20), extra=True, users=400_000,
                           beside=tumbling("user_id", "30 seconds"),
                           title="the same at 20,000 events/s, 310,000 groups of another query closing every 30 s"),
}
DEFAULT = [name for name, variant in VARIANTS.items() if not variant.get("extra")]
