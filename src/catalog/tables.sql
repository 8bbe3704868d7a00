/*
 * tables.sql
 *	  The engine's own tables.  None is granted to anybody: the functions and
 *	  views of this schema are the way in.
 *
 *	  Definitions (stream, query) and the records that need a human (late_event,
 *	  dead_letter) are dumped.  Positions, watermarks and window state are not: a
 *	  restored stream waits for resume(), as a restored subscription does.
 */

CREATE SEQUENCE stream_engine.stream_id_seq AS integer;
COMMENT ON SEQUENCE stream_engine.stream_id_seq IS 'ids of streams';

CREATE TABLE stream_engine.stream (
	id integer PRIMARY KEY DEFAULT pg_catalog.nextval('stream_engine.stream_id_seq'),
	relation regclass NOT NULL UNIQUE,
	state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'paused', 'error')),
	error text,
	error_sqlstate text,
	error_partition integer,
	error_offset bigint,
	error_at timestamptz,
	recent_view regclass,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE stream_engine.stream IS 'streams under the engine''s care; their options are those of the foreign table';

CREATE SEQUENCE stream_engine.query_id_seq AS integer;
COMMENT ON SEQUENCE stream_engine.query_id_seq IS 'ids of queries';

CREATE TABLE stream_engine.query (
	id integer PRIMARY KEY DEFAULT pg_catalog.nextval('stream_engine.query_id_seq'),
	stream integer NOT NULL REFERENCES stream_engine.stream ON DELETE CASCADE,
	batch_view regclass NOT NULL UNIQUE,
	result regclass NOT NULL,
	live_view regclass,
	open_table regclass,
	emit text NOT NULL DEFAULT 'final' CHECK (emit IN ('final', 'changes')),
	emit_interval interval,
	allowed_lateness interval NOT NULL DEFAULT '0',
	correction_horizon interval,
	late text NOT NULL DEFAULT 'store' CHECK (late IN ('store', 'drop')),
	late_purged boolean NOT NULL DEFAULT false,
	kept_from timestamptz NOT NULL DEFAULT '-infinity',
	emit_partial boolean NOT NULL DEFAULT false,
	trigger_count bigint CHECK (trigger_count > 0),
	trigger_interval interval,
	state_ttl interval,
	start text NOT NULL,
	settings text[] NOT NULL,
	session boolean NOT NULL DEFAULT false,
	state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'paused', 'error')),
	error text,
	error_sqlstate text,
	error_hint text,
	error_partition integer,
	error_offset bigint,
	error_at timestamptz,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
CREATE INDEX query_stream_idx ON stream_engine.query (stream);
/* not unique: to change a unique column would hold up commits, which refer to the row */
CREATE INDEX query_open_table_idx ON stream_engine.query (open_table);
COMMENT ON TABLE stream_engine.query IS 'continuous queries; the query itself is the batch view';
COMMENT ON COLUMN stream_engine.query.late_purged IS 'late records without a row in late_event: purged, or dropped before they were stored';
COMMENT ON COLUMN stream_engine.query.kept_from IS 'windows that end until then take no records, however late they may be: their state was dropped before';

CREATE TABLE stream_engine.late_event (
	query integer NOT NULL REFERENCES stream_engine.query ON DELETE CASCADE,
	partition integer NOT NULL,
	"offset" bigint NOT NULL,
	event_time timestamptz NOT NULL,
	watermark timestamptz NOT NULL,
	windows tstzrange[] NOT NULL,
	partly boolean NOT NULL DEFAULT false,
	retry boolean NOT NULL DEFAULT false,
	former boolean NOT NULL DEFAULT false,
	kafka_timestamp timestamptz,
	key bytea,
	payload bytea NOT NULL,
	headers jsonb,
	seen_at timestamptz NOT NULL,
	PRIMARY KEY (query, partition, "offset")
);
CREATE INDEX late_event_retry_idx ON stream_engine.late_event (query) WHERE retry;
COMMENT ON TABLE stream_engine.late_event IS 'records that came after their windows had closed: all of them, or (partly) some while others took the record';
COMMENT ON COLUMN stream_engine.late_event.former IS 'came before the stream was restored from a dump and given a new position: the windows have no state here, and the record may be read again';
COMMENT ON COLUMN stream_engine.late_event.headers IS 'what column _headers showed, if the stream has it; null: none';

CREATE TABLE stream_engine.failed_record (
	query integer NOT NULL REFERENCES stream_engine.query ON DELETE CASCADE,
	partition integer NOT NULL,
	"offset" bigint NOT NULL,
	kafka_timestamp timestamptz,
	key bytea,
	payload bytea NOT NULL,
	message text NOT NULL,
	seen_at timestamptz NOT NULL,
	PRIMARY KEY (query, partition, "offset")
);
COMMENT ON TABLE stream_engine.failed_record IS 'good records that one query could not take, with the reason';

CREATE TABLE stream_engine.dead_letter (
	stream integer NOT NULL REFERENCES stream_engine.stream ON DELETE CASCADE,
	partition integer NOT NULL,
	"offset" bigint NOT NULL,
	reason text NOT NULL CHECK (reason IN ('bad', 'future', 'skipped')),
	kafka_timestamp timestamptz,
	key bytea,
	payload bytea,
	headers jsonb,
	sqlstate text,
	message text,
	column_name text,
	seen_at timestamptz NOT NULL,
	purged boolean NOT NULL DEFAULT false,
	read_by integer[],
	PRIMARY KEY (stream, partition, "offset")
);
COMMENT ON TABLE stream_engine.dead_letter IS 'records that could not be used, with their bytes; the verdict on a record is final';
COMMENT ON COLUMN stream_engine.dead_letter.read_by IS 'the queries that had read a skipped record when it was skipped, and so have counted it';

/* ---- progress and state: logged, written by workers alone, not dumped ---- */

CREATE TABLE stream_engine.stream_home (
	stream integer PRIMARY KEY REFERENCES stream_engine.stream ON DELETE CASCADE,
	home text NOT NULL
);
COMMENT ON TABLE stream_engine.stream_home IS 'where a stream was made, or resumed when it came from a dump or a template; one without a row comes from a dump';

CREATE SEQUENCE stream_engine.reader_id_seq AS integer;
COMMENT ON SEQUENCE stream_engine.reader_id_seq IS 'ids of readers';

CREATE TABLE stream_engine.reader (
	id integer PRIMARY KEY DEFAULT pg_catalog.nextval('stream_engine.reader_id_seq'),
	stream integer NOT NULL REFERENCES stream_engine.stream ON DELETE CASCADE,
	head boolean NOT NULL,
	worker integer NOT NULL DEFAULT 0,
	start text NOT NULL,
	generation bigint NOT NULL DEFAULT 1,
	seq bigint NOT NULL DEFAULT 0,
	watermark timestamptz NOT NULL DEFAULT '-infinity',
	promise timestamptz NOT NULL DEFAULT '-infinity',
	advance_to timestamptz,
	absorbed_by integer,
	committed_at timestamptz
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
CREATE INDEX reader_stream_idx ON stream_engine.reader (stream);
COMMENT ON TABLE stream_engine.reader IS 'a position in a topic that moves on its own: the fence (generation, seq), the watermark and the promise to sibling workers';
COMMENT ON COLUMN stream_engine.reader.advance_to IS 'what advance_watermark() asked for, until the next commit';
COMMENT ON COLUMN stream_engine.reader.absorbed_by IS 'the reader that has taken over the queries of this one, of which only the ledger is left';

CREATE TABLE stream_engine.reader_partition (
	reader integer NOT NULL REFERENCES stream_engine.reader ON DELETE CASCADE,
	partition integer NOT NULL,
	start_offset bigint NOT NULL,
	next_offset bigint NOT NULL,
	complete boolean NOT NULL,
	max_event_time timestamptz NOT NULL DEFAULT '-infinity',
	first_event_time timestamptz,
	idle boolean NOT NULL DEFAULT false,
	records bigint NOT NULL DEFAULT 0,
	gaps bigint NOT NULL DEFAULT 0,
	decoded bigint NOT NULL DEFAULT 0,
	dead bigint NOT NULL DEFAULT 0,
	future bigint NOT NULL DEFAULT 0,
	tombstones bigint NOT NULL DEFAULT 0,
	skipped bigint NOT NULL DEFAULT 0,
	last_offset bigint,
	last_timestamp timestamptz,
	last_checksum bigint,
	high_offset bigint,
	problem text,
	gone boolean NOT NULL DEFAULT false,
	PRIMARY KEY (reader, partition)
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE stream_engine.reader_partition IS 'the offset up to which all effects are contained in logged tables, with the counters of what was read';
COMMENT ON COLUMN stream_engine.reader_partition.gone IS 'the topic did not have it any more when the operator let the stream go on: it is not waited for';

CREATE TABLE stream_engine.query_progress (
	query integer PRIMARY KEY REFERENCES stream_engine.query ON DELETE CASCADE,
	reader integer NOT NULL REFERENCES stream_engine.reader ON DELETE CASCADE,
	closed_through timestamptz NOT NULL DEFAULT '-infinity',
	complete_from timestamptz NOT NULL DEFAULT '-infinity',
	emitted_from timestamptz[],
	emitted_through timestamptz[],
	windows_closed bigint NOT NULL DEFAULT 0,
	windows_incomplete bigint NOT NULL DEFAULT 0,
	rows_out bigint NOT NULL DEFAULT 0,
	emitted_at timestamptz,
	changes_seq bigint NOT NULL DEFAULT 0,
	changes_at timestamptz,
	state_stamp bigint,
	joined_seq bigint NOT NULL DEFAULT 0,
	ledger_shift bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
CREATE INDEX query_progress_reader_idx ON stream_engine.query_progress (reader);
COMMENT ON TABLE stream_engine.query_progress IS 'how far each query''s windows have been closed, and which reader feeds it';
COMMENT ON COLUMN stream_engine.query_progress.complete_from IS 'windows that start earlier are not emitted, unless they have been';
COMMENT ON COLUMN stream_engine.query_progress.emitted_from IS 'what complete_from was while windows were emitted, each time that it became later';
COMMENT ON COLUMN stream_engine.query_progress.emitted_through IS 'what closed_through was at each of these times: windows that start and end between the two have been emitted';
COMMENT ON COLUMN stream_engine.query_progress.joined_seq IS 'the reader''s last commit that the query had no part in';
COMMENT ON COLUMN stream_engine.query_progress.ledger_shift IS 'what makes the reader''s numbers of commits those of the query, which count on when it changes readers';

/* This one is dumped: it tells which rows of a dumped result table are part of a window only. */
CREATE TABLE stream_engine.closing (
	query integer PRIMARY KEY REFERENCES stream_engine.query ON DELETE CASCADE,
	window_start timestamptz NOT NULL,
	window_end timestamptz NOT NULL,
	next_hash bigint NOT NULL
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE stream_engine.closing IS 'queries that have closed windows whose rows are still being emitted: in the order of their ends, all windows before this one have been emitted, and of this one the groups before next_hash';

CREATE TABLE stream_engine.reader_history (
	query integer NOT NULL REFERENCES stream_engine.query ON DELETE CASCADE,
	reader integer NOT NULL REFERENCES stream_engine.reader ON DELETE CASCADE,
	after_seq bigint NOT NULL,
	upto_seq bigint NOT NULL,
	ledger_shift bigint NOT NULL,
	PRIMARY KEY (query, reader, after_seq)
);
CREATE INDEX reader_history_reader_idx ON stream_engine.reader_history (reader);
COMMENT ON TABLE stream_engine.reader_history IS 'readers that have fed a query before its present one, with the commits that it had a part in';

CREATE TABLE stream_engine.query_origin (
	query integer NOT NULL REFERENCES stream_engine.query ON DELETE CASCADE,
	partition integer NOT NULL,
	start_offset bigint NOT NULL,
	complete boolean NOT NULL,
	records bigint NOT NULL,
	gaps bigint NOT NULL,
	decoded bigint NOT NULL,
	dead bigint NOT NULL,
	future bigint NOT NULL,
	tombstones bigint NOT NULL,
	skipped bigint NOT NULL,
	PRIMARY KEY (query, partition)
);
COMMENT ON TABLE stream_engine.query_origin IS 'of a query that has joined another reader: its own first offset, and what must be added to the reader''s counters to have the query''s';

CREATE TABLE stream_engine.query_partition (
	query integer NOT NULL REFERENCES stream_engine.query ON DELETE CASCADE,
	partition integer NOT NULL,
	counted bigint NOT NULL DEFAULT 0,
	filtered bigint NOT NULL DEFAULT 0,
	late bigint NOT NULL DEFAULT 0,
	late_assignments bigint NOT NULL DEFAULT 0,
	before_start bigint NOT NULL DEFAULT 0,
	failed bigint NOT NULL DEFAULT 0,
	PRIMARY KEY (query, partition)
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE stream_engine.query_partition IS 'what became of each decoded record, per query and partition';

CREATE TABLE stream_engine.dead_letter_reader (
	reader integer NOT NULL REFERENCES stream_engine.reader ON DELETE CASCADE,
	partition integer NOT NULL,
	"offset" bigint NOT NULL,
	PRIMARY KEY (reader, partition, "offset")
);
COMMENT ON TABLE stream_engine.dead_letter_reader IS 'which readers have counted a dead letter as bad, and so process it when it is retried';

CREATE TABLE stream_engine.replay (
	reader integer NOT NULL REFERENCES stream_engine.reader ON DELETE CASCADE,
	query integer REFERENCES stream_engine.query ON DELETE CASCADE,
	partition integer NOT NULL,
	"offset" bigint NOT NULL,
	kafka_timestamp timestamptz,
	key bytea,
	payload bytea,
	headers jsonb
);
CREATE UNIQUE INDEX replay_idx ON stream_engine.replay (reader, query, partition, "offset") NULLS NOT DISTINCT;
COMMENT ON TABLE stream_engine.replay IS 'records that wait to be processed again: dead letters by a whole reader (query is null), late records by one of its queries';

CREATE TABLE stream_engine.ledger (
	reader integer NOT NULL REFERENCES stream_engine.reader ON DELETE CASCADE,
	seq bigint NOT NULL,
	committed_at timestamptz NOT NULL,
	watermark timestamptz NOT NULL,
	partitions integer[] NOT NULL,
	next_offsets bigint[] NOT NULL,
	watermarks timestamptz[] NOT NULL,
	idle boolean[] NOT NULL,
	PRIMARY KEY (reader, seq)
);
COMMENT ON TABLE stream_engine.ledger IS 'one row per commit of a reader: partition ends, watermarks and idle flags; it makes every verdict on a late record reproducible';

CREATE TABLE stream_engine.state_log (
	query integer NOT NULL,
	slice_start timestamptz NOT NULL,
	slice_end timestamptz NOT NULL,
	seq bigint NOT NULL,
	hash_low bigint NOT NULL,
	hash_high bigint NOT NULL,
	ngroups integer NOT NULL,
	segment smallint NOT NULL,
	payload bytea NOT NULL
) PARTITION BY LIST (segment);
ALTER TABLE stream_engine.state_log ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE INDEX state_log_slice_idx ON stream_engine.state_log (query, slice_start, slice_end, seq);
COMMENT ON TABLE stream_engine.state_log IS 'window state: the runs of each query''s slices, in chunks; its partitions are the segments of a ring';

DO $$
BEGIN
	FOR i IN 0 .. 3 LOOP
		EXECUTE pg_catalog.format('CREATE TABLE stream_engine.state_log_%1$s PARTITION OF stream_engine.state_log FOR VALUES IN (%1$s)'
			' WITH (toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,'
			' autovacuum_vacuum_insert_threshold = -1, autovacuum_vacuum_cost_delay = 0)', i);
		EXECUTE pg_catalog.format('COMMENT ON TABLE stream_engine.state_log_%s IS ''a segment of the state log''', i);
	END LOOP;
END $$;

CREATE TABLE stream_engine.state_segment (
	segment smallint PRIMARY KEY,
	generation bigint NOT NULL DEFAULT 1,
	current boolean NOT NULL DEFAULT false,
	retired_at timestamptz,
	horizon bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 40);
INSERT INTO stream_engine.state_segment (segment, current) SELECT i, i = 0 FROM pg_catalog.generate_series(0, 3) i;
COMMENT ON TABLE stream_engine.state_segment IS 'segments of the state log: which one is appended to, how often each has been emptied, and since when it is not appended to any more';
COMMENT ON COLUMN stream_engine.state_segment.horizon IS 'snapshots with this xmin saw nothing in it when it was emptied';

SELECT pg_catalog.pg_extension_config_dump('stream_engine.stream_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('stream_engine.query_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('stream_engine.stream', '');
SELECT pg_catalog.pg_extension_config_dump('stream_engine.query', '');
SELECT pg_catalog.pg_extension_config_dump('stream_engine.late_event', '');
SELECT pg_catalog.pg_extension_config_dump('stream_engine.failed_record', '');
SELECT pg_catalog.pg_extension_config_dump('stream_engine.dead_letter', '');
SELECT pg_catalog.pg_extension_config_dump('stream_engine.closing', '');

/* A publication FOR ALL TABLES must not keep the workers from their rows. */
DO $$
DECLARE
	name regclass;
BEGIN
	FOR name IN SELECT c.oid FROM pg_catalog.pg_class c
		WHERE c.relnamespace = 'stream_engine'::regnamespace AND c.relkind IN ('r', 'p')
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
	LOOP
		EXECUTE pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY FULL', name);
	END LOOP;
END $$;
