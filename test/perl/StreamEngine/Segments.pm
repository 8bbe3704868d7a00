
# Segments.pm
#	A job whose state fills the segments of the state log: 2,000 records a second of
#	event time, with keys of 600 characters, over a topic in a table.
#
#	create_segments_job($node);           # in database postgres
#
# NOTES
#	Its queries are short, windows of ten batches; long, one window for all of them
#	with few keys; and sessions.  CALL feed(first, last) adds batches of 2,000
#	records, as fast as they are counted.

package StreamEngine::Segments;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';

our @EXPORT = qw(create_segments_job);

sub create_segments_job
{
	my ($node) = @_;

	$node->safe_psql('postgres', q(
	CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
		PRIMARY KEY (partition, "offset"));
	ALTER TABLE log ALTER COLUMN value SET STORAGE EXTERNAL;
	CREATE SERVER source FOREIGN DATA WRAPPER stream_engine_table
		OPTIONS (table 'public.log', partitions '1');
	SELECT stream_engine.create_stream('events', server => 'source', topic => 'events',
		columns => 'k text, t timestamptz', event_time => 't', watermark_delay => '0',
		idle_timeout => '1 hour', staging_retention => '0');
	-- windows of ten batches, and a window for all of them with few keys
	SELECT stream_engine.create_query('short', $$
		SELECT k, count(*) AS n FROM events GROUP BY tumble(t, '10 seconds'), k $$);
	SELECT stream_engine.create_query('long', $$
		SELECT left(k, 2) AS k, count(*) AS n FROM events GROUP BY tumble(t, '1 day'), left(k, 2) $$);
	SELECT stream_engine.create_query('sessions', $$
		SELECT left(k, 3) AS k, count(*) AS n FROM events GROUP BY session(t, '4 seconds'), left(k, 3) $$);

	-- a second of event time; a key is 600 characters long
	CREATE PROCEDURE feed(first int, last int) LANGUAGE plpgsql AS $$
	BEGIN
		FOR batch IN first .. last LOOP
			INSERT INTO log SELECT 0, batch * 2000 + i, now(), NULL,
				convert_to(format('{"k": "%s", "t": "%s"}', lpad(((batch * 7 + i) % 2500)::text, 4, '0') || repeat('x', 596),
					timestamptz '2026-01-01 00:00+00' + batch * interval '1 second'), 'UTF8')
			FROM generate_series(0, 1999) i;
			COMMIT;
			WHILE (SELECT COALESCE(min(counted), 0) < batch * 2000 - 4000 FROM stream_engine.stat_queries) LOOP
				PERFORM pg_sleep(0.005);
				COMMIT;
			END LOOP;
		END LOOP;
	END $$;
	));
	return;
}

1;
