/* ---- what there is and how it does ---- */

/* A stream's or query's owner sees it, and who may read statistics does. */
CREATE FUNCTION stream_engine.may_see(owner oid) RETURNS boolean
	LANGUAGE sql STABLE
	RETURN pg_catalog.pg_has_role(owner, 'USAGE') OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE');
COMMENT ON FUNCTION stream_engine.may_see(oid) IS 'whether the current user sees the streams, queries and statistics of an owner';

CREATE FUNCTION stream_engine.stream_option(relation regclass, name text) RETURNS text
	LANGUAGE sql STABLE
	RETURN (SELECT o.option_value FROM pg_catalog.pg_foreign_table f,
		LATERAL pg_catalog.pg_options_to_table(f.ftoptions) o
		WHERE f.ftrelid = relation AND o.option_name = name);
COMMENT ON FUNCTION stream_engine.stream_option(regclass, text) IS 'an option of a stream''s foreign table';

CREATE FUNCTION stream_engine.watermark_delay(relation regclass) RETURNS interval
	LANGUAGE sql STABLE
	RETURN CASE WHEN stream_engine.stream_option(relation, 'event_time') = 'processing_time' THEN '0'
		ELSE COALESCE(stream_engine.stream_option(relation, 'watermark_delay'), '5 seconds') END::interval;
COMMENT ON FUNCTION stream_engine.watermark_delay(regclass) IS 'by how much a stream''s watermark stays behind the latest event time; none with processing time';

/* The tables of a stream's staged rows have the columns that it had when it was created. */
CREATE FUNCTION stream_engine.staging_fits(stream int, relation regclass) RETURNS boolean
	LANGUAGE sql STABLE
	RETURN (SELECT array_agg(a.atttypid ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
			WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped)
		= (SELECT array_agg(a.atttypid ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
			WHERE a.attrelid = pg_catalog.to_regclass('stream_engine.staging_' || stream || '_0') AND a.attnum > 0);
COMMENT ON FUNCTION stream_engine.staging_fits(int, regclass) IS 'whether the staging tables of a stream still have its columns';

CREATE VIEW stream_engine.streams WITH (security_barrier) AS
	SELECT s.relation AS name,
		pg_catalog.pg_get_userbyid(c.relowner) AS owner,
		v.srvname AS server,
		stream_engine.stream_option(s.relation, 'topic') AS topic,
		CASE WHEN h.home IS DISTINCT FROM stream_engine.home() THEN 'restored' ELSE s.state END AS state,
		s.error, s.error_sqlstate, s.error_partition, s.error_offset, s.error_at,
		CASE WHEN h.home IS DISTINCT FROM stream_engine.home() THEN 'Call stream_engine.resume() with a start position.'
			WHEN s.state = 'paused' THEN 'Call stream_engine.resume().'
			WHEN s.state = 'error' THEN 'Mend the cause or call stream_engine.skip(), then stream_engine.resume().'
			WHEN s.recent_view IS NOT NULL AND NOT COALESCE(stream_engine.staging_fits(s.id, s.relation), false)
				THEN 'Its columns or staging tables have changed, so no rows are staged. Drop the stream and create it again if they are to be.'
		END AS hint,
		stream_engine.stream_option(s.relation, 'event_time') AS event_time,
		stream_engine.watermark_delay(s.relation) AS watermark_delay,
		(SELECT count(*) FROM stream_engine.query q WHERE q.stream = s.id) AS queries,
		s.created_at
	FROM stream_engine.stream s
	LEFT JOIN stream_engine.stream_home h ON h.stream = s.id
	JOIN pg_catalog.pg_class c ON c.oid = s.relation
	JOIN pg_catalog.pg_foreign_table f ON f.ftrelid = s.relation
	JOIN pg_catalog.pg_foreign_server v ON v.oid = f.ftserver
	WHERE stream_engine.may_see(c.relowner);
COMMENT ON VIEW stream_engine.streams IS 'streams with their state and, if they have stopped, why';
GRANT SELECT ON stream_engine.streams TO PUBLIC;

CREATE VIEW stream_engine.stat_partitions WITH (security_barrier) AS
	SELECT s.relation AS stream,
		q.result AS query,
		p.partition, COALESCE(o.start_offset, p.start_offset) AS start_offset, p.next_offset, p.high_offset,
		GREATEST(p.high_offset - p.next_offset, 0) AS lag,
		p.max_event_time,
		CASE WHEN p.max_event_time < '4714-11-24 00:00:00+00 BC'::timestamptz + d.delay THEN '-infinity'
			ELSE p.max_event_time - d.delay END AS watermark,
		p.idle,
		NOT p.idle AND p.max_event_time =
			min(p.max_event_time) FILTER (WHERE NOT p.idle) OVER (PARTITION BY p.reader) AS holds_watermark,
		p.problem,
		p.records + COALESCE(o.records, 0) AS records, p.gaps + COALESCE(o.gaps, 0) AS gaps,
		p.decoded + COALESCE(o.decoded, 0) AS decoded, p.dead + COALESCE(o.dead, 0) AS dead,
		p.future + COALESCE(o.future, 0) AS future, p.tombstones + COALESCE(o.tombstones, 0) AS tombstones,
		p.skipped + COALESCE(o.skipped, 0) AS skipped,
		r.committed_at, r.id AS reader
	FROM stream_engine.reader_partition p
	JOIN stream_engine.reader r ON r.id = p.reader
	JOIN stream_engine.stream s ON s.id = r.stream
	JOIN pg_catalog.pg_class c ON c.oid = s.relation
	/* each query that the reader feeds, and the stream's own reader once more for itself */
	JOIN LATERAL (SELECT w.query FROM stream_engine.query_progress w WHERE w.reader = r.id
		UNION ALL SELECT NULL WHERE r.head) w ON true
	LEFT JOIN stream_engine.query q ON q.id = w.query
	LEFT JOIN stream_engine.query_origin o ON o.query = q.id AND o.partition = p.partition
	LEFT JOIN pg_catalog.pg_class qc ON qc.oid = q.batch_view,
	LATERAL (SELECT stream_engine.watermark_delay(s.relation) AS delay) d
	WHERE stream_engine.may_see(COALESCE(qc.relowner, c.relowner));
COMMENT ON VIEW stream_engine.stat_partitions IS 'positions, lag, watermark and counters of each query''s partitions, and of the stream''s own reader (query is NULL); queries with the same reader share its positions';
GRANT SELECT ON stream_engine.stat_partitions TO PUBLIC;

CREATE VIEW stream_engine.stat_queries WITH (security_barrier) AS
	SELECT q.result AS query, s.relation AS stream,
		r.watermark, w.closed_through, NULLIF(w.complete_from, '-infinity') AS complete_from,
		k.decoded, t.counted, t.filtered, t.late, t.late_assignments, t.before_start, t.failed,
		w.windows_closed, w.windows_incomplete, w.rows_out, w.emitted_at,
		(SELECT z.slices FROM stream_engine.state_size(q.result) z) AS open_slices,
		(SELECT z.bytes FROM stream_engine.state_size(q.result) z) AS state_bytes,
		r.seq AS commits, r.committed_at,
		CASE WHEN e.query IS NOT NULL THEN pg_catalog.tstzrange(e.window_start, e.window_end) END AS closing,
		pg_catalog.floor(e.next_hash * 100 / 4294967296.0)::integer AS closing_percent,
		w.reader
	FROM stream_engine.query q
	JOIN pg_catalog.pg_class c ON c.oid = q.batch_view
	LEFT JOIN stream_engine.closing e ON e.query = q.id
	JOIN stream_engine.stream s ON s.id = q.stream
	LEFT JOIN stream_engine.query_progress w ON w.query = q.id
	LEFT JOIN stream_engine.reader r ON r.id = w.reader
	LEFT JOIN LATERAL (SELECT sum(counted)::bigint AS counted, sum(filtered)::bigint AS filtered,
			sum(late)::bigint AS late, sum(late_assignments)::bigint AS late_assignments,
			sum(before_start)::bigint AS before_start, sum(failed)::bigint AS failed
		FROM stream_engine.query_partition WHERE query = q.id) t ON true
	LEFT JOIN LATERAL (SELECT sum(p.decoded + COALESCE(o.decoded, 0))::bigint AS decoded
		FROM stream_engine.reader_partition p
		LEFT JOIN stream_engine.query_origin o ON o.query = q.id AND o.partition = p.partition
		WHERE p.reader = r.id) k ON true
	WHERE stream_engine.may_see(c.relowner);
COMMENT ON VIEW stream_engine.stat_queries IS 'watermark, counters and state of each query; decoded = counted + filtered + late + before_start + failed';
GRANT SELECT ON stream_engine.stat_queries TO PUBLIC;

CREATE FUNCTION stream_engine.query_reader(query regclass) RETURNS integer
	LANGUAGE sql STABLE
	RETURN (SELECT t.reader FROM stream_engine.stat_queries t WHERE t.query = query_reader.query);
COMMENT ON FUNCTION stream_engine.query_reader(regclass) IS 'the reader that feeds a query';

CREATE VIEW stream_engine.queries WITH (security_barrier) AS
	SELECT q.result AS name, s.relation AS stream,
		pg_catalog.pg_get_userbyid(c.relowner) AS owner,
		CASE WHEN h.home IS DISTINCT FROM stream_engine.home() THEN 'restored'
			WHEN q.state = 'running' AND s.state <> 'running' THEN s.state ELSE q.state END AS state,
		CASE WHEN (SELECT sum(CASE WHEN p.idle THEN 0 ELSE GREATEST(p.high_offset - p.next_offset, 0) END)
				FROM stream_engine.reader_partition p WHERE p.reader = w.reader) < 10000 THEN 'live' ELSE 'backfill' END AS phase,
		COALESCE(q.error, s.error) AS error,
		COALESCE(q.error_sqlstate, s.error_sqlstate) AS error_sqlstate,
		q.error_hint AS hint,
		COALESCE(q.error_partition, s.error_partition) AS error_partition,
		COALESCE(q.error_offset, s.error_offset) AS error_offset,
		COALESCE(q.error_at, s.error_at) AS error_at,
		q.emit, q.emit_interval, q.allowed_lateness, q.correction_horizon, q.late,
		q.trigger_count, q.trigger_interval, q.state_ttl, q.start, q.batch_view, q.live_view,
		pg_catalog.pg_get_viewdef(q.batch_view::oid) AS definition,
		q.created_at
	FROM stream_engine.query q
	JOIN pg_catalog.pg_class c ON c.oid = q.batch_view
	JOIN stream_engine.stream s ON s.id = q.stream
	LEFT JOIN stream_engine.stream_home h ON h.stream = s.id
	LEFT JOIN stream_engine.query_progress w ON w.query = q.id
	WHERE stream_engine.may_see(c.relowner);
COMMENT ON VIEW stream_engine.queries IS 'queries with their state, definition and, if they have stopped, why';
GRANT SELECT ON stream_engine.queries TO PUBLIC;

CREATE VIEW stream_engine.progress WITH (security_barrier) AS
	SELECT q.name AS query, q.state, q.phase,
		t.watermark,
		pg_catalog.sum(p.lag)::bigint AS lag,
		pg_catalog.sum(p.records)::bigint AS records,
		t.counted, t.late, pg_catalog.sum(p.dead + p.future)::bigint AS dead,
		t.windows_closed AS windows, t.rows_out AS rows,
		pg_catalog.string_agg(p.partition::text, ',' ORDER BY p.partition) FILTER (WHERE p.holds_watermark) AS held_by,
		pg_catalog.date_trunc('milliseconds', pg_catalog.clock_timestamp() - t.committed_at) AS since_commit
	FROM stream_engine.queries q
	JOIN stream_engine.stat_queries t ON t.query = q.name
	LEFT JOIN stream_engine.stat_partitions p ON p.query = q.name
	GROUP BY q.name, q.state, q.phase, t.watermark, t.counted, t.late, t.windows_closed, t.rows_out, t.committed_at;
COMMENT ON VIEW stream_engine.progress IS 'one line a query, made for \watch';
GRANT SELECT ON stream_engine.progress TO PUBLIC;

/* Not granted: for tests and the curious. */
CREATE VIEW stream_engine.query_ledger AS
	SELECT q.result AS query, l.seq + h.ledger_shift AS seq, l.committed_at, l.watermark,
		l.partitions, l.next_offsets, l.watermarks, l.idle, l.reader
	FROM (SELECT query, reader, after_seq, upto_seq, ledger_shift FROM stream_engine.reader_history
		UNION ALL SELECT query, reader, joined_seq, 9223372036854775807, ledger_shift
		FROM stream_engine.query_progress) h
	JOIN stream_engine.query q ON q.id = h.query
	JOIN stream_engine.ledger l ON l.reader = h.reader AND l.seq > h.after_seq AND l.seq <= h.upto_seq;
COMMENT ON VIEW stream_engine.query_ledger IS 'the commits that each query had a part in, numbered from one, whichever reader made them';

/* Bytes as text where they are text in this database's encoding, else NULL. */
CREATE FUNCTION stream_engine.readable(bytes bytea) RETURNS text
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'se_readable';
COMMENT ON FUNCTION stream_engine.readable(bytea) IS 'bytes as text, NULL if they are not valid UTF-8';

/* Who may read some columns of the stream only does not see whole records. */
CREATE VIEW stream_engine.late_events WITH (security_barrier) AS
	SELECT q.result AS query, l.partition, l."offset", l.event_time, l.watermark, l.windows,
		l.kafka_timestamp, CASE WHEN r.whole THEN l.key END AS key,
		CASE WHEN r.whole THEN stream_engine.readable(l.payload) END AS record,
		CASE WHEN r.whole THEN l.payload END AS payload, CASE WHEN r.whole THEN l.headers END AS headers, l.seen_at
	FROM stream_engine.late_event l
	JOIN stream_engine.query q ON q.id = l.query
	JOIN stream_engine.stream s ON s.id = q.stream
	JOIN pg_catalog.pg_class c ON c.oid = q.batch_view,
	LATERAL (SELECT pg_catalog.has_table_privilege(s.relation::oid, 'SELECT') AS whole) r
	WHERE NOT l.partly AND pg_catalog.pg_has_role(c.relowner, 'USAGE');
COMMENT ON VIEW stream_engine.late_events IS 'records that came after all their windows had closed; owners see their own';
GRANT SELECT ON stream_engine.late_events TO PUBLIC;

CREATE VIEW stream_engine.late_assignments WITH (security_barrier) AS
	SELECT q.result AS query, l.partition, l."offset", l.event_time, l.watermark, l.windows,
		l.kafka_timestamp, CASE WHEN r.whole THEN l.key END AS key,
		CASE WHEN r.whole THEN stream_engine.readable(l.payload) END AS record,
		CASE WHEN r.whole THEN l.payload END AS payload, CASE WHEN r.whole THEN l.headers END AS headers, l.seen_at
	FROM stream_engine.late_event l
	JOIN stream_engine.query q ON q.id = l.query
	JOIN stream_engine.stream s ON s.id = q.stream
	JOIN pg_catalog.pg_class c ON c.oid = q.batch_view,
	LATERAL (SELECT pg_catalog.has_table_privilege(s.relation::oid, 'SELECT') AS whole) r
	WHERE l.partly AND pg_catalog.pg_has_role(c.relowner, 'USAGE');
COMMENT ON VIEW stream_engine.late_assignments IS 'records that came after some of their windows had closed and were taken by others, with the windows that missed them; owners see their own';
GRANT SELECT ON stream_engine.late_assignments TO PUBLIC;

CREATE VIEW stream_engine.failed_records WITH (security_barrier) AS
	SELECT q.result AS query, f.partition, f."offset", f.message,
		f.kafka_timestamp, CASE WHEN r.whole THEN f.key END AS key,
		CASE WHEN r.whole THEN stream_engine.readable(f.payload) END AS record,
		CASE WHEN r.whole THEN f.payload END AS payload, f.seen_at
	FROM stream_engine.failed_record f
	JOIN stream_engine.query q ON q.id = f.query
	JOIN stream_engine.stream s ON s.id = q.stream
	JOIN pg_catalog.pg_class c ON c.oid = q.batch_view,
	LATERAL (SELECT pg_catalog.has_table_privilege(s.relation::oid, 'SELECT') AS whole) r
	WHERE pg_catalog.pg_has_role(c.relowner, 'USAGE');
COMMENT ON VIEW stream_engine.failed_records IS 'good records that one query could not take, with the reason; owners see their own';
GRANT SELECT ON stream_engine.failed_records TO PUBLIC;

CREATE VIEW stream_engine.dead_letters WITH (security_barrier) AS
	SELECT s.relation AS stream, d.partition, d."offset", d.reason, d.sqlstate, d.message, d.column_name,
		d.kafka_timestamp, d.key, stream_engine.readable(d.payload) AS record, d.payload, d.headers, d.seen_at
	FROM stream_engine.dead_letter d
	JOIN stream_engine.stream s ON s.id = d.stream
	JOIN pg_catalog.pg_class c ON c.oid = s.relation
	WHERE NOT d.purged AND pg_catalog.pg_has_role(c.relowner, 'USAGE');
COMMENT ON VIEW stream_engine.dead_letters IS 'records that could not be used, with their bytes and the reason; owners see their own';
GRANT SELECT ON stream_engine.dead_letters TO PUBLIC;

CREATE FUNCTION stream_engine.why(query regclass, OUT finding text, OUT detail text, OUT hint text)
	RETURNS SETOF record
	LANGUAGE plpgsql STABLE AS $$
/* Operators are those of pg_catalog whatever the path: their operands are of just these types. */
DECLARE
	q record;
	t record;
	n record;
	p record;
	s record;
	next_end timestamptz;
	delay interval;
	idle_timeout interval;
	idle_close interval;
	processing boolean;
	held_up boolean := false;
BEGIN
	IF why.query IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'argument "query" must not be null';
	END IF;
	SELECT * INTO q FROM stream_engine.queries v WHERE v.name OPERATOR(pg_catalog.=) why.query;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = pg_catalog.format('"%s" is not a query of yours', why.query),
			HINT = 'A query is named by its result table; see the view stream_engine.queries.';
	END IF;
	SELECT * INTO t FROM stream_engine.stat_queries v WHERE v.query OPERATOR(pg_catalog.=) why.query;
	SELECT COALESCE(pg_catalog.sum(v.records), 0)::bigint AS records, COALESCE(pg_catalog.sum(v.lag) FILTER (WHERE NOT v.idle), 0)::bigint AS lag,
		COALESCE(pg_catalog.sum(v.dead), 0)::bigint AS dead, COALESCE(pg_catalog.sum(v.future), 0)::bigint AS future,
		COALESCE(pg_catalog.sum(v.tombstones), 0)::bigint AS tombstones, COALESCE(pg_catalog.sum(v.skipped), 0)::bigint AS skipped,
		COALESCE(pg_catalog.bool_and(v.idle), false) AS all_idle,
		pg_catalog.min(v.max_event_time) FILTER (WHERE NOT v.idle) AS least,
		pg_catalog.max(v.max_event_time) AS greatest
		INTO n FROM stream_engine.stat_partitions v WHERE v.query OPERATOR(pg_catalog.=) why.query;
	delay := stream_engine.watermark_delay(q.stream);
	idle_timeout := COALESCE(stream_engine.stream_option(q.stream, 'idle_timeout'), '30 seconds')::interval;
	idle_close := stream_engine.stream_option(q.stream, 'idle_close')::interval;
	processing := COALESCE(stream_engine.stream_option(q.stream, 'event_time') = 'processing_time', false);

	/* does it run at all */
	IF q.state <> 'running' THEN
		finding := pg_catalog.format('the query is in state %s', q.state);
		detail := NULLIF(pg_catalog.concat(q.error, CASE WHEN q.error_offset IS NOT NULL THEN
			pg_catalog.format(' (partition %s, offset %s)', q.error_partition, q.error_offset) END), '');
		SELECT v.state, v.error_partition, v.error_offset INTO s FROM stream_engine.streams v WHERE v.name OPERATOR(pg_catalog.=) q.stream;
		hint := COALESCE(q.hint, CASE q.state
			WHEN 'restored' THEN pg_catalog.format('It comes from a dump or a template: SELECT stream_engine.resume(%L, start => ...).', q.stream)
			WHEN 'paused' THEN pg_catalog.format('SELECT stream_engine.resume(%L).', CASE WHEN s.state = 'paused' THEN q.stream ELSE q.name END)
			ELSE pg_catalog.format('Mend the cause%s; then SELECT stream_engine.resume(%L).',
				CASE WHEN s.error_offset IS NOT NULL
					THEN pg_catalog.format(', or step over the record by SELECT stream_engine.skip(%L, %s, %s)', q.stream, s.error_partition, s.error_offset) END,
				CASE WHEN s.state = 'error' THEN q.stream ELSE q.name END) END);
		held_up := true;
		RETURN NEXT;
	END IF;
	IF pg_catalog.pg_is_in_recovery() THEN
		finding := 'this server is a standby';
		detail := pg_catalog.format('its workers run on the primary; what follows is of the commit at %s', t.committed_at);
		hint := 'Ask the primary whether the worker runs. Here workers start when the standby is promoted.';
		RETURN NEXT;
	ELSIF pg_catalog.current_setting('stream_engine.enabled', true) = 'off' THEN
		finding := 'the engine is switched off';
		detail := 'stream_engine.enabled is off';
		hint := 'ALTER SYSTEM SET stream_engine.enabled = on, then SELECT pg_reload_conf().';
		held_up := true;
		RETURN NEXT;
	ELSIF q.state = 'running' THEN
		SELECT w.pid, w.message INTO p FROM stream_engine.stat_workers w
			WHERE w.reader = t.reader
			ORDER BY w.pid NULLS LAST LIMIT 1;
		IF p.message <> '' THEN
			finding := 'the worker has a problem';
			detail := p.message;
			hint := 'It tries again by itself; the server log tells more.';
			held_up := true;
			RETURN NEXT;
		ELSIF p.pid IS NULL THEN
			finding := 'no worker is running for the query';
			detail := NULL;
			hint := 'One starts within a moment, unless shared_preload_libraries, max_worker_processes or stream_engine.max_workers forbid it: see the server log.';
			held_up := true;
			RETURN NEXT;
		END IF;
	END IF;
	FOR p IN SELECT * FROM stream_engine.stat_partitions v
		WHERE v.query OPERATOR(pg_catalog.=) why.query AND v.problem IS NOT NULL ORDER BY v.partition
	LOOP
		finding := pg_catalog.format('partition %s has stopped', p.partition);
		detail := p.problem;
		hint := pg_catalog.format('Decide where to go on: SELECT stream_engine.resume(%L, start => ''earliest'') or ''latest''.', q.stream);
		held_up := true;
		RETURN NEXT;
	END LOOP;

	FOR p IN SELECT * FROM stream_engine.stat_partitions v
		WHERE v.query OPERATOR(pg_catalog.=) why.query AND v.idle AND v.lag > 0 AND v.problem IS NULL ORDER BY v.partition
	LOOP
		finding := pg_catalog.format('the last %s offsets of partition %s cannot be read yet', p.lag, p.partition);
		detail := 'as a rule they lie behind a transaction of a producer that is still open';
		hint := 'They are read when it ends, at the latest when the producer''s transaction.timeout.ms has passed; Kafka''s kafka-transactions.sh find-hanging shows one that does not end by itself.';
		held_up := true;
		RETURN NEXT;
	END LOOP;

	/* does it read */
	IF n.records = 0 THEN
		IF held_up THEN
			RETURN;
		END IF;
		IF n.lag > 0 THEN
			finding := 'reading has just begun';
			detail := pg_catalog.format('%s records are to be read', n.lag);
			hint := 'Look again in a moment.';
		ELSE
			finding := 'no record has been read';
			detail := pg_catalog.format('the query started at %s, and nothing lies behind that', q.start);
			hint := pg_catalog.format('Is anything written to the topic? SELECT * FROM %s reads it directly.', q.stream);
		END IF;
		RETURN NEXT;
		RETURN;
	END IF;
	IF n.lag >= 10000 THEN
		finding := 'it is catching up';
		detail := pg_catalog.format('%s records are still to be read', n.lag);
		hint := NULL;
		held_up := true;
		RETURN NEXT;
	END IF;
	IF n.dead > 0 OR n.future > 0 OR n.skipped > 0 OR COALESCE(t.decoded, 0) = 0 THEN
		finding := CASE WHEN COALESCE(t.decoded, 0) = 0 THEN 'no record could be used' ELSE 'some records could not be used' END;
		detail := pg_catalog.format('of %s records %s were bad, %s lay in the future, %s were tombstones, %s were skipped',
			n.records, n.dead, n.future, n.tombstones, n.skipped);
		hint := CASE WHEN n.dead > 0 THEN 'SELECT * FROM stream_engine.dead_letters tells why; stream_engine.retry_dead_letters() when the cause is mended.'
			WHEN n.future > 0 THEN 'Compare the clocks, and the unit of the event time; option max_future says how far ahead is too far.'
			WHEN n.skipped > 0 AND stream_engine.stream_option(q.stream, 'on_error') = 'skip' THEN 'Bad records are skipped, for so says on_error; ''dead_letter'' keeps them, with the reason.'
			WHEN n.skipped > 0 THEN 'SELECT * FROM stream_engine.dead_letters shows them.'
			WHEN n.tombstones > 0 THEN 'A record without a payload is not an event.' END;
		RETURN NEXT;
		IF COALESCE(t.decoded, 0) = 0 THEN
			RETURN;
		END IF;
	END IF;

	/* a large window, whose rows come by and by */
	IF t.closing_percent IS NOT NULL THEN
		finding := pg_catalog.format('the window from %s to %s is being emitted', pg_catalog.lower(t.closing), pg_catalog.upper(t.closing));
		detail := pg_catalog.format('%s %% of it is in the result table; windows have closed up to %s', t.closing_percent, t.closed_through);
		hint := pg_catalog.format('SELECT * FROM %s shows all of it, marked as final.', q.live_view);
		held_up := true;
		RETURN NEXT;
	END IF;

	/* the window that comes next, and who holds it up */
	BEGIN
		next_end := stream_engine.next_window_end(why.query);
	EXCEPTION WHEN OTHERS THEN
		/* of a query that has stopped this may be the very reason, which has been told */
		IF q.error IS DISTINCT FROM SQLERRM THEN
			finding := 'its open windows cannot be read';
			detail := SQLERRM;
			hint := NULL;
			RETURN NEXT;
		END IF;
		RETURN;
	END;
	IF q.trigger_count IS NOT NULL OR q.trigger_interval IS NOT NULL THEN
		IF t.counted > 0 AND t.rows_out = 0 THEN
			finding := 'no trigger has fired yet';
			detail := pg_catalog.concat_ws(', ', 'a key''s row is written with every ' || q.trigger_count::text || ' records of it',
				'rows that have changed are written every ' || q.trigger_interval::text,
				CASE WHEN q.definition ~ '\mHAVING\M' THEN 'if HAVING lets them pass' END);
			hint := pg_catalog.format('SELECT * FROM %s shows the totals so far.', q.live_view);
			held_up := true;
			RETURN NEXT;
		END IF;
	ELSIF next_end IS NULL THEN
		IF t.counted > 0 AND t.open_slices > 0 AND t.windows_closed = 0 AND t.complete_from IS NOT NULL THEN
			finding := 'the windows that are open began before the query and will not be emitted';
			detail := pg_catalog.format('windows from %s on are complete', t.complete_from);
			hint := CASE WHEN processing THEN 'emit_partial => true emits partial ones.'
				ELSE 'Start the query at ''earliest'', or with emit_partial => true.' END;
			held_up := true;
			RETURN NEXT;
		END IF;
	ELSIF processing THEN
		finding := 'the clock closes the next window';
		detail := pg_catalog.format('it ends at %s', next_end);
		hint := NULL;
		held_up := true;
		RETURN NEXT;
	ELSIF n.all_idle THEN
		finding := 'all partitions are idle';
		detail := pg_catalog.format('the watermark stands at %s, the next window ends at %s', t.watermark, next_end);
		hint := pg_catalog.format('A record with event time %s or later closes it%s; or, if no earlier one comes: SELECT stream_engine.advance_watermark(%L, %L).',
			next_end + delay, ', and so do ' || idle_close::text || ' without a record', q.stream, next_end);
		held_up := true;
		RETURN NEXT;
	ELSE
		FOR p IN SELECT * FROM stream_engine.stat_partitions v
			WHERE v.query OPERATOR(pg_catalog.=) why.query AND NOT v.idle AND v.max_event_time = n.least AND v.problem IS NULL ORDER BY v.partition
		LOOP
			IF p.max_event_time = '-infinity' THEN
				finding := pg_catalog.format('partition %s has had no good record and holds the watermark', p.partition);
				detail := pg_catalog.format('it is left out once it has been quiet for %s at its end', idle_timeout);
				hint := 'Lower idle_timeout if partitions may stay empty.';
			ELSE
				finding := pg_catalog.format('partition %s holds the watermark at %s', p.partition, t.watermark);
				detail := pg_catalog.format('the next window closes when the watermark reaches %s: this partition needs a record with event time %s or later (watermark_delay is %s)',
					next_end, next_end + delay, delay)
					|| CASE WHEN p.watermark < t.watermark THEN pg_catalog.format('; it is behind, at %s itself', p.watermark) ELSE '' END
					|| CASE WHEN n.greatest >= next_end + delay THEN '; others have one' ELSE '' END;
				hint := CASE WHEN p.lag > 0 THEN pg_catalog.format('%s records of it are still to be read.', p.lag)
					ELSE pg_catalog.format('It has been read to its end; it is left out after %s without a record.', idle_timeout) END;
			END IF;
			held_up := true;
			RETURN NEXT;
		END LOOP;
	END IF;

	/* what became of the records */
	IF t.counted = 0 THEN
		finding := 'no record has come into a window';
		detail := pg_catalog.format('of %s records %s were filtered by WHERE, %s came late, %s belong to windows that began before the query', t.decoded, t.filtered, t.late, t.before_start);
		hint := CASE WHEN t.late > 0 THEN 'SELECT * FROM stream_engine.late_events; a larger watermark_delay lets them in.'
			WHEN t.before_start > 0 THEN 'The first complete window comes soon; emit_partial => true emits partial ones.'
			ELSE 'Check the WHERE clause.' END;
		held_up := true;
		RETURN NEXT;
	ELSIF t.late > 0 THEN
		finding := pg_catalog.format('%s records came too late', t.late);
		detail := 'their windows had closed';
		SELECT pg_catalog.string_agg(v.partition::text, ', ' ORDER BY v.partition) AS partitions INTO s
			FROM stream_engine.stat_partitions v
			WHERE v.query OPERATOR(pg_catalog.=) why.query AND v.watermark < t.watermark AND v.max_event_time > '-infinity';
		IF s.partitions IS NOT NULL THEN
			detail := pg_catalog.format('%s; the watermark is ahead of partition %s, for it went on by advance_watermark(), by idle_close, or while a partition was idle', detail, s.partitions);
		END IF;
		hint := pg_catalog.format('SELECT * FROM stream_engine.late_events; %s',
			CASE WHEN s.partitions IS NULL THEN 'a larger watermark_delay lets them in.' ELSE 'a larger watermark_delay, idle_timeout or idle_close lets them in.' END);
		RETURN NEXT;
	END IF;
	IF t.late = 0 AND t.late_assignments > 0 THEN
		finding := pg_catalog.format('%s times a window had closed when a record of it came that other windows took', t.late_assignments);
		detail := NULL;
		hint := 'SELECT * FROM stream_engine.late_assignments; a larger watermark_delay lets them in.';
		RETURN NEXT;
	END IF;
	IF t.windows_closed > 0 AND t.rows_out = 0 THEN
		finding := 'no group has passed HAVING';
		detail := pg_catalog.format('%s windows have closed, and none has given a row', t.windows_closed);
		hint := pg_catalog.format('SELECT * FROM %s runs the query as a batch; try it without HAVING.', q.batch_view);
		held_up := true;
		RETURN NEXT;
	END IF;
	IF t.failed > 0 THEN
		finding := pg_catalog.format('%s records could not be taken by this query', t.failed);
		detail := NULL;
		hint := 'SELECT * FROM stream_engine.failed_records tells why.';
		RETURN NEXT;
	END IF;
	IF t.windows_incomplete > 0 OR (t.before_start > 0 AND t.counted > 0) THEN
		finding := CASE WHEN t.windows_incomplete > 0 THEN pg_catalog.format('%s windows began before the query and were not emitted', t.windows_incomplete)
			ELSE pg_catalog.format('%s records belong to windows that began before the query', t.before_start) END;
		detail := pg_catalog.format('windows from %s on are complete', t.complete_from);
		hint := CASE WHEN processing THEN 'emit_partial => true emits partial ones.'
			ELSE 'Start the query at ''earliest'', or with emit_partial => true.' END;
		RETURN NEXT;
	END IF;
	IF NOT held_up THEN
		finding := 'nothing is held up';
		detail := CASE WHEN t.windows_closed > 0 THEN pg_catalog.format('%s windows have closed, the last rows came at %s, and none is open', t.windows_closed, COALESCE(t.emitted_at::text, '(never)'))
			ELSE pg_catalog.format('%s records have been taken', t.counted) END;
		hint := NULL;
		RETURN NEXT;
	END IF;
END $$;
COMMENT ON FUNCTION stream_engine.why(regclass) IS '"nothing comes out": what the query waits for, who holds the watermark, what to do';

CREATE FUNCTION stream_engine.metrics(OUT name text, OUT labels jsonb, OUT value double precision)
	RETURNS SETOF record
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT 'stream_running', pg_catalog.jsonb_build_object('stream', s.name), (s.state = 'running')::int::double precision
	FROM stream_engine.streams s
	UNION ALL
	SELECT m.name, pg_catalog.jsonb_build_object('stream', q.stream, 'query', q.name), m.value
	FROM stream_engine.queries q
	JOIN stream_engine.stat_queries t ON t.query = q.name,
	LATERAL (VALUES
		('query_running', (q.state = 'running')::int::double precision),
		('query_watermark_seconds', CASE WHEN pg_catalog.isfinite(t.watermark) THEN extract(epoch FROM t.watermark)::double precision END),
		('query_committed_seconds', extract(epoch FROM t.committed_at)::double precision),
		('query_commits_total', t.commits::double precision),
		('query_counted_total', t.counted::double precision),
		('query_filtered_total', t.filtered::double precision),
		('query_late_total', t.late::double precision),
		('query_before_start_total', t.before_start::double precision),
		('query_failed_total', t.failed::double precision),
		('query_windows_closed_total', t.windows_closed::double precision),
		('query_rows_total', t.rows_out::double precision),
		('query_open_slices', t.open_slices::double precision),
		('query_state_bytes', t.state_bytes::double precision)) AS m(name, value)
	UNION ALL
	SELECT m.name, pg_catalog.jsonb_build_object('stream', p.stream, 'query', p.query, 'partition', p.partition), m.value
	FROM stream_engine.stat_partitions p,
	LATERAL (VALUES
		('partition_offset', p.next_offset::double precision),
		('partition_lag', p.lag::double precision),
		('partition_idle', p.idle::int::double precision),
		('partition_stopped', (p.problem IS NOT NULL)::int::double precision),
		('partition_records_total', p.records::double precision),
		('partition_gaps_total', p.gaps::double precision),
		('partition_decoded_total', p.decoded::double precision),
		('partition_dead_total', p.dead::double precision),
		('partition_future_total', p.future::double precision),
		('partition_tombstones_total', p.tombstones::double precision),
		('partition_skipped_total', p.skipped::double precision)) AS m(name, value)
	UNION ALL
	SELECT 'workers', pg_catalog.jsonb_build_object('kind', w.kind, 'database', w.database, 'phase', w.phase), pg_catalog.count(*)::double precision
	FROM stream_engine.stat_workers w GROUP BY w.kind, w.database, w.phase;
END;
COMMENT ON FUNCTION stream_engine.metrics() IS 'all counters and states that the caller may see in one form, for an exporter: names ending in _total only grow, those in _seconds are times since 1970';
