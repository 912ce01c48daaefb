"""What the coordinator's database holds: tables for the program, views for people.

Times are seconds since 1970, in UTC. One file may hold several pipelines.
"""

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

from mqtt_mdi.storage.database import Schema

metadata = MetaData()

# The store finds the rows a transaction added by their ids, so an id must never come back (AUTOINCREMENT).
results = Table(
    "results",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("pipeline", Text, nullable=False),
    Column("sensor", Text, nullable=False),
    Column("frame_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("label", Integer),
    Column("class_name", Text),
    Column("score", Float),
    Column("exit_stage", Integer),
    Column("device", Text),
    Column("latency_ms", Float, nullable=False),
    Column("hops", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("policy_version", Integer, nullable=False),
    Column("reason", Text),
    Column("received_at", Float, nullable=False),
    Column("correct", Boolean),
    UniqueConstraint("pipeline", "sensor", "frame_id"),
    sqlite_autoincrement=True,
)

truths = Table(
    "truths",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("pipeline", Text, nullable=False),
    Column("sensor", Text, nullable=False),
    Column("frame_id", Text, nullable=False),
    Column("label", Integer, nullable=False),
    UniqueConstraint("pipeline", "sensor", "frame_id"),
    sqlite_autoincrement=True,
)

policies = Table(
    "policies",
    metadata,
    Column("pipeline", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("set_at", Float, nullable=False),
)

devices = Table(
    "devices",
    metadata,
    Column("pipeline", Text, primary_key=True),
    Column("device", Text, primary_key=True),
    Column("online", Boolean, nullable=False),
    Column("stages", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("seen_at", Float, nullable=False),
)

device_changes = Table(
    "device_changes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("pipeline", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("online", Boolean, nullable=False),
    Column("stages", JSON, nullable=False),
    Column("at", Float, nullable=False),
    ForeignKeyConstraint(["pipeline", "device"], ["devices.pipeline", "devices.device"]),
)

windows = Table(
    "windows",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("pipeline", Text, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("answered", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("duplicates", Integer, nullable=False),
    Column("graded", Integer, nullable=False),
    Column("correct", Integer, nullable=False),
    Column("exits", JSON, nullable=False),
    Column("latency_p50_ms", Float),
    Column("latency_p95_ms", Float),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("pipeline", Text, nullable=False),
    Column("reporter", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("first_bytes", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("at", Float, nullable=False),
)

# Throughput is what was answered over the time from the first result to the last, failed ones included.
# Percentiles are nearest-rank: the least latency that the given share of the answers did not exceed.
_VIEWS = (
    """
    CREATE VIEW summary AS
    SELECT
        pipeline,
        count(*) AS frames,
        count(*) FILTER (WHERE status = 'ok') AS answered,
        count(*) FILTER (WHERE status = 'failed') AS failed,
        count(correct) AS graded,
        count(*) FILTER (WHERE correct) AS correct,
        avg(correct) AS accuracy,
        count(*) FILTER (WHERE status = 'ok') / nullif(max(received_at) - min(received_at), 0) AS throughput,
        avg(latency_ms) FILTER (WHERE status = 'ok') AS latency_mean_ms,
        min(latency_ms) FILTER (WHERE status = 'ok' AND rank >= 0.50) AS latency_p50_ms,
        min(latency_ms) FILTER (WHERE status = 'ok' AND rank >= 0.95) AS latency_p95_ms
    FROM (
        SELECT *, cume_dist() OVER (PARTITION BY pipeline, status ORDER BY latency_ms) AS rank FROM results
    )
    GROUP BY pipeline
    """,
    """
    CREATE VIEW exits AS
    SELECT
        pipeline,
        exit_stage,
        count(*) AS frames,
        1.0 * count(*) / sum(count(*)) OVER (PARTITION BY pipeline) AS share,
        avg(correct) AS accuracy
    FROM results
    WHERE status = 'ok'
    GROUP BY pipeline, exit_stage
    ORDER BY pipeline, exit_stage
    """,
)

STORE = Schema(
    "coordinator's database",
    version=1,
    tables=metadata,
    views=_VIEWS,
    pragmas=(
        # in WAL mode NORMAL keeps the file whole in a power cut; the last moments' commits may be lost
        "synchronous = NORMAL",
        "foreign_keys = ON",
        # pages (32 MB): rows with random frame ids touch the same pages again and again between checkpoints
        "wal_autocheckpoint = 8000",
    ),
)
