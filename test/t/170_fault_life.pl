
# What sessions do to the things that a running query rests on: columns are added, renamed
# and dropped, owners change, privileges go, functions and types become others, processes
# run out.  None of it hangs, crashes or silently stops a stream: the query goes on, or
# says why it does not, and goes on exactly when the cause is mended.

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

sub sql
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

sub fails
{
	my ($sql, $error, $name) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql);
	ok($rc != 0 && $err =~ $error, $name) or diag("$rc: $out$err");
	return;
}

sql(q(
	CREATE ROLE alice; CREATE ROLE bob;
	GRANT CREATE, USAGE ON SCHEMA public TO alice, bob;
	CREATE TABLE log (partition int, "offset" bigint GENERATED ALWAYS AS IDENTITY (MINVALUE 0 START 0), timestamp timestamptz,
		key bytea, value bytea, PRIMARY KEY (partition, "offset"));
	GRANT SELECT ON log TO alice, bob;
	CREATE TYPE mood AS ENUM ('good', 'bad');
	CREATE DOMAIN positive AS int;
	CREATE FUNCTION scaled(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 10';
	CREATE SERVER tables FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.log', partitions '1');
	GRANT USAGE ON FOREIGN SERVER tables TO alice, bob;
	CREATE SEQUENCE clock MINVALUE 0;
	-- a window of ten seconds with eight records
	CREATE PROCEDURE feed(mood text DEFAULT 'good', p int DEFAULT 1) LANGUAGE plpgsql AS $$
	DECLARE
		w int := nextval('clock');
	BEGIN
		INSERT INTO log (partition, timestamp, value)
		SELECT 0, now(), convert_to(json_build_object('k', i % 2, 'v', i, 'm', mood, 'p', p, 'n', i,
			'ts', timestamptz '2025-01-01 00:00Z' + w * interval '10 seconds' + i * interval '1 second')::text, 'UTF8')
		FROM generate_series(1, 8) AS i;
	END $$;
	SET ROLE alice;
	SELECT stream_engine.create_stream('s', server => 'tables', topic => 'log', event_time => 'ts',
		columns => 'k int, v int, m mood, p positive, spare text, ts timestamptz', watermark_delay => '1 second',
		idle_timeout => '1 hour', include => '{}');
	SELECT stream_engine.create_query('q', $$ SELECT k, sum(v) AS total, count(*) AS n FROM s GROUP BY tumble(ts, '10 seconds'), k $$);
	GRANT SELECT ON s TO bob;
	SET ROLE bob;
	SELECT stream_engine.create_query('b', $$ SELECT m, sum(scaled(v)) AS total, max(p) AS p FROM s GROUP BY tumble(ts, '10 seconds'), m $$)));

# Records of one more window; all queries but those named take them.
sub goes_on
{
	my ($when, @but) = @_;
	my %but = map { $_ => 1 } @but;
	sql('CALL feed()');
	foreach my $query (grep { !$but{$_} } qw(q b))
	{
		wait_for_all($node, $query);
		is(sql("SELECT state, error FROM stream_engine.queries WHERE name = '$query'::regclass"), 'running|', "$when: $query runs");
		is(sql("SELECT count(*) FROM stream_engine.verify('$query')"), '0', "$when: $query is right");
		is_accounted($node, $query);
	}
	return;
}

sub has_failed
{
	my ($query, $error, $sqlstate, $when) = @_;
	wait_for($node, "SELECT state = 'error' FROM stream_engine.queries WHERE name = '$query'::regclass");
	like(sql("SELECT error_sqlstate, error FROM stream_engine.queries WHERE name = '$query'::regclass"), qr/^$sqlstate\|.*$error/, "$when: $query says why it stopped");
	goes_on("$when, and $query stopped", $query);
	return;
}

goes_on('at rest');

# ---------------------------------------------------------------------------
# Columns of the stream
# ---------------------------------------------------------------------------

is(sql("SELECT hint FROM stream_engine.streams"), '', 'a stream that runs needs no hint');
sql('ALTER FOREIGN TABLE s ADD COLUMN n int');
goes_on('a column was added');
like(sql('SELECT hint FROM stream_engine.streams'), qr/no rows are staged/, 'the view says that staging has ended');
is(sql('SELECT count(n) = count(*), count(*) > 0 FROM s'), 't|t', 'the new column is read by scans');
sql('ALTER FOREIGN TABLE s RENAME COLUMN v TO "a Value"');
like(sql('SELECT pg_get_viewdef(\'q_batch\')'), qr/"a Value"/, 'a renamed column is renamed in the query');
$node->restart;
sql(q(ALTER FOREIGN TABLE s RENAME COLUMN "a Value" TO v));
goes_on('a column was renamed and renamed back');
# The event time is named by an option, which a rename does not reach.
sql('ALTER FOREIGN TABLE s RENAME COLUMN ts TO "when"');
wait_for($node, q(SELECT bool_and(state = 'error' AND error = 'event time column "ts" of stream "s" does not exist') FROM stream_engine.queries));
sql(q(ALTER FOREIGN TABLE s OPTIONS (SET event_time 'when'); SELECT stream_engine.resume(name) FROM stream_engine.queries; SELECT stream_engine.resume('s')));
wait_for_all($node, $_) foreach qw(q b);
sql(q(BEGIN; ALTER FOREIGN TABLE s RENAME COLUMN "when" TO ts; ALTER FOREIGN TABLE s OPTIONS (SET event_time 'ts'); COMMIT));
goes_on('the event time was renamed with its option');
fails('ALTER FOREIGN TABLE s DROP COLUMN v', qr/depend/, 'a column that a query needs is not dropped');
fails('ALTER FOREIGN TABLE s ALTER COLUMN v TYPE bigint', qr/used by a view/, 'nor is its type changed');
sql('ALTER FOREIGN TABLE s DROP COLUMN spare');
goes_on('a column that nobody needs was dropped');
is(sql('SELECT hint FROM stream_engine.streams') =~ /no rows are staged/ ? 1 : 0, 1, 'staging stays off');
sql('ALTER FOREIGN TABLE s ALTER COLUMN n TYPE text');
goes_on('and another one is of another type');
sql('ALTER FOREIGN TABLE s ADD CONSTRAINT small CHECK (v < 8)');
sql('CALL feed()');
wait_for_all($node, 'q');
is(sql("SELECT DISTINCT reason, message LIKE '%small%' FROM stream_engine.dead_letters"), 'bad|t', 'a new constraint judges the records that come from now on');
sql('ALTER FOREIGN TABLE s DROP CONSTRAINT small');
wait_for($node, "SELECT count(*) = 0 FROM stream_engine.stat_workers WHERE message <> ''");

# A function that a CHECK calls, and that fails.
sql(q(CREATE FUNCTION allowed(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN true; END';
	ALTER FOREIGN TABLE s ADD CONSTRAINT allowed CHECK (allowed(v))));
goes_on('a constraint calls a function');
fails('DROP FUNCTION allowed(int)', qr/depend/, 'which is not dropped');
sql(q(CREATE OR REPLACE FUNCTION allowed(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE 'not today'; END $$));
sql('CALL feed()');
wait_for_all($node, $_) foreach qw(q b);
is(sql("SELECT string_agg(DISTINCT state, ',') FROM stream_engine.queries"), 'running', 'the function fails: the queries run');
is(sql("SELECT count(*) FROM stream_engine.dead_letters WHERE message LIKE '%not today%'"), '8', 'records that could not be checked are dead letters');
sql(q(CREATE OR REPLACE FUNCTION allowed(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN true; END'));
is(sql(q(SELECT stream_engine.retry_dead_letters('s', $$ message LIKE '%not today%' $$))), '8', 'they are retried');
goes_on('the function was mended');
is(sql("SELECT count(*) FROM stream_engine.dead_letters WHERE message LIKE '%not today%'"), '0', 'none is left');
sql('ALTER FOREIGN TABLE s DROP CONSTRAINT allowed');

# ---------------------------------------------------------------------------
# Other names and places
# ---------------------------------------------------------------------------

sql(q(CREATE SCHEMA elsewhere; GRANT ALL ON SCHEMA elsewhere TO alice, bob;
	ALTER VIEW b_batch SET SCHEMA elsewhere; ALTER VIEW b_live SET SCHEMA elsewhere; ALTER FOREIGN TABLE b_open SET SCHEMA elsewhere;
	ALTER SERVER tables RENAME TO "the Tables"; ALTER ROLE alice RENAME TO "the Alice"; ALTER FUNCTION scaled(int) SET SCHEMA elsewhere;
	ALTER TYPE mood RENAME TO humour; ALTER TYPE humour RENAME VALUE 'bad' TO 'sad'; ALTER DOMAIN positive SET SCHEMA elsewhere));
goes_on('views, server, role, function and types have other names');
$node->restart;
goes_on('and were found again');
is(sql('SELECT count(*) > 0 FROM elsewhere.b_live'), 't', 'the live view works');
sql(q(ALTER VIEW elsewhere.b_batch SET SCHEMA public; ALTER VIEW elsewhere.b_live SET SCHEMA public; ALTER FOREIGN TABLE elsewhere.b_open SET SCHEMA public;
	ALTER SERVER "the Tables" RENAME TO tables; ALTER ROLE "the Alice" RENAME TO alice; ALTER FUNCTION elsewhere.scaled(int) SET SCHEMA public;
	ALTER TYPE humour RENAME TO mood; ALTER DOMAIN elsewhere.positive SET SCHEMA public; DROP SCHEMA elsewhere));
goes_on('they have their names back');
sql('ALTER TABLE b RENAME COLUMN total TO sum; CALL feed()');
has_failed('b', 'column "total" of result table "b" does not exist', '42703', 'a column of the results was renamed');
sql("ALTER TABLE b RENAME COLUMN sum TO total; SELECT stream_engine.resume('b')");
goes_on('it was renamed back');
sql("ALTER TABLE b ADD COLUMN note text DEFAULT 'none', ADD COLUMN twice numeric GENERATED ALWAYS AS (total * 2) STORED");
goes_on('the results have columns of their own');
is(sql('SELECT DISTINCT note, twice = total * 2 FROM b'), 'none|t', 'which are filled');
sql('ALTER TABLE b DROP COLUMN note, DROP COLUMN twice');
sql('ALTER TABLE log RENAME TO other');
sql(q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'stream_engine reader'));
wait_for($node, "SELECT count(*) > 0 FROM (SELECT message FROM stream_engine.stat_workers UNION ALL SELECT error FROM stream_engine.queries
	UNION ALL SELECT error FROM stream_engine.streams) x(message) WHERE message LIKE '%log%'");
pass('a source that has gone is told');
sql("ALTER TABLE other RENAME TO log");
sql("SELECT stream_engine.resume(name) FROM stream_engine.queries WHERE state = 'error'; SELECT stream_engine.resume('s')");
goes_on('it is there again');

# ---------------------------------------------------------------------------
# Owners and privileges
# ---------------------------------------------------------------------------

sql('REVOKE SELECT ON s FROM bob');
has_failed('b', 'permission denied for foreign table s', '42501', 'the right to read the stream was revoked');
sql("GRANT SELECT ON s TO bob; SELECT stream_engine.resume('b')");
goes_on('it was granted again');
sql('REVOKE INSERT ON b FROM bob');
sql('CALL feed()');
has_failed('b', 'permission denied for table b', '42501', 'the right to write the results was revoked');
sql("GRANT INSERT ON b TO bob; SELECT stream_engine.resume('b')");
goes_on('that was granted again');
# Names were looked up when the query was made: what runs needs no right to look there.
sql('REVOKE ALL ON SCHEMA public FROM bob, PUBLIC');
$node->restart;
sql('CALL feed()');
wait_for_all($node, $_) foreach qw(q b);
is(sql("SELECT string_agg(DISTINCT state, ',') FROM stream_engine.queries"), 'running', 'the right to use the schema was revoked: the queries run');
fails("SELECT stream_engine.verify('b')", qr/permission denied for schema public/, 'verify() looks names up as the owner');
sql('GRANT USAGE ON SCHEMA public TO bob, PUBLIC');
goes_on('it was granted again');
sql('REVOKE EXECUTE ON FUNCTION scaled(int) FROM PUBLIC');
$node->restart;
sql('CALL feed()');
has_failed('b', 'permission denied for function scaled', '42501', 'the right to call a function was revoked');
sql("GRANT EXECUTE ON FUNCTION scaled(int) TO bob; SELECT stream_engine.resume('b')");
goes_on('that, too, was granted again');
sql('REASSIGN OWNED BY bob TO alice; GRANT EXECUTE ON FUNCTION scaled(int) TO alice');
goes_on('all of bob is given to alice');
is(sql("SELECT DISTINCT owner FROM stream_engine.queries"), 'alice', 'it is hers');
sql('DROP OWNED BY bob; DROP ROLE bob');
goes_on('bob has gone');
sql('REVOKE USAGE ON FOREIGN SERVER tables FROM alice');
goes_on('the server is not hers to use for new streams');
sql('REVOKE SELECT ON log FROM alice');
sql('CALL feed()');
wait_for($node, "SELECT EXISTS (SELECT FROM stream_engine.stat_workers WHERE message LIKE '%permission denied for table log%')
	OR EXISTS (SELECT FROM stream_engine.queries WHERE error LIKE '%permission denied for table log%')");
pass('a source that may not be read any more is told');
sql("GRANT SELECT ON log TO alice");
sql("SELECT stream_engine.resume(name) FROM stream_engine.queries WHERE state = 'error'; SELECT stream_engine.resume('s')");
goes_on('it may be read again');

# ---------------------------------------------------------------------------
# Functions and types
# ---------------------------------------------------------------------------

fails('DROP FUNCTION scaled(int)', qr/depend/, 'a function that a query needs is not dropped');
sql(q(CREATE OR REPLACE FUNCTION scaled(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE 'no more'; END $$));
$node->restart;
sql('CALL feed()');
has_failed('b', 'no more', 'P0001', 'a function fails');
sql(q(CREATE OR REPLACE FUNCTION scaled(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 10'; SELECT stream_engine.resume('b')));
goes_on('it was mended');
sql(q(ALTER TYPE mood ADD VALUE 'mixed'));
sql("CALL feed('mixed')");
goes_on('an enumeration has one more value');
is(sql("SELECT count(*) FROM b WHERE m = 'mixed'"), '1', 'which is read');
fails('DROP TYPE mood', qr/depend/, 'a type that a stream needs is not dropped');
my $dead = sql('SELECT count(*) FROM stream_engine.dead_letters');
sql('ALTER DOMAIN positive ADD CONSTRAINT above CHECK (VALUE > 0) NOT VALID');
$node->restart;
sql("CALL feed('good', -1)");
wait_for_all($node, 'b');
is(sql("SELECT count(*) - $dead, max(message) FILTER (WHERE message LIKE '%above%') IS NOT NULL FROM stream_engine.dead_letters"), '8|t', 'a domain has one more rule, which judges what comes');

# ---------------------------------------------------------------------------
# No processes left
# ---------------------------------------------------------------------------

sql('SELECT stream_engine.create_query(\'more\' || i, \'SELECT k, count(*) AS n FROM s GROUP BY tumble(ts, \'\'10 seconds\'\'), k\') FROM generate_series(1, 4) AS i');
wait_for_all($node, "more$_") foreach 1 .. 4;
# The launcher, the server's own one for logical replication, and the manager take them all.
$node->append_conf('postgresql.conf', 'max_worker_processes = 3');
my $position = log_position($node);
$node->restart;
wait_for_log($node, qr/out of background worker slots/, $position);
sql('CALL feed()');
wait_for($node, q(SELECT bool_and(w.finding = 'the worker has a problem' AND w.detail LIKE '%out of background worker slots%max_worker_processes%')
	FROM stream_engine.queries q, LATERAL (SELECT * FROM stream_engine.why(q.name) LIMIT 1) w));
pass('why() says that there is no worker left');
is(sql("SELECT bool_and(state = 'running') FROM stream_engine.queries"), 't', 'which is no error: they go on when there is one');
# Not even for the manager.
$node->append_conf('postgresql.conf', 'max_worker_processes = 2');
$position = log_position($node);
$node->restart;
wait_for_log($node, qr/out of background worker slots/, $position);
sql('CALL feed()');
is(sql(q(SELECT bool_and(w.finding = 'no worker is running for the query' AND w.hint LIKE '%max_worker_processes%')
	FROM stream_engine.queries q, LATERAL (SELECT * FROM stream_engine.why(q.name) LIMIT 1) w)), 't', 'why() says what may be missing');
is(sql("SELECT count(*) FROM stream_engine.stat_workers WHERE kind = 'manager' AND pid IS NULL AND message LIKE '%max_worker_processes%'"), '1', 'stat_workers says that it is missing');
$node->append_conf('postgresql.conf', 'max_worker_processes = 20');
$node->restart;
wait_for_all($node, $_) foreach 'b', 'q', map { "more$_" } 1 .. 4;
is(sql("SELECT sum((SELECT count(*) FROM stream_engine.verify(name))) FROM stream_engine.queries WHERE name::text LIKE 'more%'"), '0', 'with more processes all go on');

unlike(log_since($node, 0), qr/PANIC|TRAP|was terminated by signal/, 'the log has no crash');
sql("SELECT stream_engine.drop_stream('s', true)");
wait_for_processes($node, 0, '%reader%');
$node->stop('fast');
done_testing();
