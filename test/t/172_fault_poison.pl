
# Poison: of several queries that one reader feeds, each that cannot take a record or write
# a row is set aside alone, with the error and, where a record is to blame, its position.  The
# others flow.  When the cause is mended each goes on exactly, and comes back to the reader.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Orders;
use StreamEngine::Test;

my $node = new_node('main', conf => q(
stream_engine.commit_interval = 20ms
stream_engine.retry_interval = 20ms
));
my @queries = qw(good share scaled named bounded guarded);

sub sql
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

sql(q(
	CREATE TABLE log (partition int, "offset" bigint GENERATED ALWAYS AS IDENTITY (MINVALUE 0 START 0), timestamp timestamptz,
		key bytea, value bytea, PRIMARY KEY (partition, "offset"));
	CREATE SERVER tables FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.log', partitions '1');
	CREATE SEQUENCE clock MINVALUE 0;
	-- a window of ten seconds with eight records, and one more
	CREATE PROCEDURE feed(one_more json DEFAULT '{}') LANGUAGE plpgsql AS $$
	DECLARE
		start timestamptz := timestamptz '2025-01-01 00:00Z' + nextval('clock') * interval '10 seconds';
	BEGIN
		INSERT INTO log (partition, timestamp, value)
		SELECT 0, now(), convert_to((jsonb_build_object('k', i % 2, 'v', i, 'z', 1, 'name', 'n' || i % 3,
			'ts', start + i * interval '1 second') || CASE WHEN i = 9 THEN one_more::jsonb ELSE '{}' END)::text, 'UTF8')
		FROM generate_series(1, CASE WHEN one_more::text = '{}' THEN 8 ELSE 9 END) AS i;
	END $$;
	-- of another definition each when they are mended
	CREATE FUNCTION parts(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
	CREATE FUNCTION times(int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1 * 1000000; END';
	CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF new.n > 4 THEN
			RAISE EXCEPTION 'the guard says no' USING ERRCODE = 'P0007';
		END IF;
		RETURN new;
	END $$;
	BEGIN;
	SELECT stream_engine.create_stream('s', server => 'tables', topic => 'log', event_time => 'ts',
		columns => 'k int, v int, z int, name text, ts timestamptz', watermark_delay => '1 second', idle_timeout => '1 hour', include => '{}');
	SELECT stream_engine.create_query('good', $$ SELECT k, sum(v) AS total, count(*) AS n FROM s GROUP BY tumble(ts, '10 seconds'), k $$);
	SELECT stream_engine.create_query('share', $$ SELECT k, sum(v) / parts(min(z)) AS share, count(*) AS n FROM s GROUP BY tumble(ts, '10 seconds'), k $$);
	SELECT stream_engine.create_query('scaled', $$ SELECT k, sum(times(v)) AS total, count(*) AS n FROM s GROUP BY tumble(ts, '10 seconds'), k $$);
	SELECT stream_engine.create_query('named', $$ SELECT name, sum(v) AS total, count(*) AS n FROM s GROUP BY tumble(ts, '10 seconds'), name $$);
	SELECT stream_engine.create_query('bounded', $$ SELECT k, sum(v) AS total, count(*) AS n FROM s GROUP BY hop(ts, '20 seconds', every => '10 seconds'), k $$);
	SELECT stream_engine.create_query('guarded', $$ SELECT k, sum(v) AS total, count(*) AS n FROM s GROUP BY tumble(ts, '10 seconds'), k $$);
	COMMIT;
	CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON guarded FOR EACH ROW EXECUTE FUNCTION guard();
	ALTER TABLE bounded ADD CONSTRAINT bound CHECK (total < 1000)));

sub flow
{
	my ($when, @flowing) = @_;

	sql('CALL feed()') foreach 1 .. 2;
	foreach my $query (@flowing)
	{
		wait_for_all($node, $query);
		is(sql("SELECT state, error FROM stream_engine.queries WHERE name = '$query'::regclass"), 'running|', "$when: $query runs");
		is(sql("SELECT count(*) FROM stream_engine.verify('$query')"), '0', "$when: $query is right");
		is_accounted($node, $query);
	}
	return;
}

# The query has stopped with this error, and its position if a record is to blame.
sub is_set_aside
{
	my ($query, $sqlstate, $error, $offset) = @_;

	wait_for($node, "SELECT state = 'error' FROM stream_engine.queries WHERE name = '$query'::regclass");
	is(sql("SELECT error_sqlstate, error, error_partition, error_offset FROM stream_engine.queries WHERE name = '$query'::regclass"),
		"$sqlstate|$error|" . (defined $offset ? "0|$offset" : '|'), "$query says what stopped it");
	return;
}

my $readers = 'SELECT count(DISTINCT reader) FROM stream_engine.query_progress';

flow('at rest', @queries);
is(sql($readers), '1', 'one reader feeds all queries');

# One window with a record for each of them.
my $offset = sql('SELECT max("offset") + 9 FROM log');
sql(q(DO $$
	DECLARE
		-- does not compress below a third of a page
		name text := (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 200) AS i);
	BEGIN
		CALL feed(json_build_object('k', 0, 'v', 3000, 'z', 0, 'name', name));
	END $$));
is_set_aside('scaled', '22003', 'integer out of range', $offset);
flow('one is set aside', qw(good named));
is_set_aside('share', '22012', 'division by zero');
is_set_aside('guarded', 'P0007', 'the guard says no');
is_set_aside('bounded', '23514', 'new row for relation "bounded" violates check constraint "bound"');
is(sql('SELECT partition, "offset", message LIKE \'%index row%\' OR message LIKE \'%key%\' FROM stream_engine.failed_records WHERE query = \'named\'::regclass'),
	"0|$offset|t", 'a key that no btree can hold is kept with its position');
flow('four are set aside', qw(good named));
$node->restart;
flow('the server was restarted', qw(good named));
is(sql("SELECT string_agg(name::text, ',' ORDER BY name::text) FROM stream_engine.queries WHERE state = 'error'"), 'bounded,guarded,scaled,share', 'what was set aside stays so');

# Resumed without being mended they come to the same point again, and write nothing else.
sql("SELECT stream_engine.resume(name) FROM stream_engine.queries WHERE state = 'error'");
is_set_aside('scaled', '22003', 'integer out of range', $offset);
is_set_aside('share', '22012', 'division by zero');
is_set_aside('guarded', 'P0007', 'the guard says no');
is_set_aside('bounded', '23514', 'new row for relation "bounded" violates check constraint "bound"');

sql(q(
	CREATE OR REPLACE FUNCTION parts(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN NULLIF($1, 0); END';
	CREATE OR REPLACE FUNCTION times(int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1 * bigint ''1000000''; END';
	DROP TRIGGER guard ON guarded;
	ALTER TABLE bounded DROP CONSTRAINT bound;
	SELECT stream_engine.resume(name) FROM stream_engine.queries WHERE state = 'error'));
flow('all are mended', @queries);
is(sql(q(
	SELECT count(*) FROM good g FULL JOIN scaled s USING (window_start, k) FULL JOIN guarded u USING (window_start, k) FULL JOIN share h USING (window_start, k)
	WHERE (g.total * 1000000, g.n, g.n, g.n) IS DISTINCT FROM (s.total, s.n, u.n, h.n) OR u.total <> g.total)), '0', 'all have the same windows');
is(sql('SELECT count(*), count(*) FILTER (WHERE share IS NULL) FROM share') =~ /^\d+\|1$/, 1, 'the row that could not be computed is there');

my $looks = 0;
wait_until(
	$node,
	sub {
		sql('CALL feed()') if ++$looks % 20 == 0;
		return sql($readers) eq '1';
	},
	'all queries have one reader again');
flow('one reader feeds all again', @queries);

unlike(log_since($node, 0), qr/PANIC|TRAP|was terminated by signal/, 'the log has no crash');
sql("SELECT stream_engine.drop_stream('s', true)");
wait_for_processes($node, 0, '%reader%');
$node->stop('fast');
done_testing();
