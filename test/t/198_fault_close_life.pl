
# Rule: whatever is done to a query, its reader or its server while a large window of it is being
# emitted (pause and resume, a change of its settings, other readers, late records that are retried,
# a dump, the promotion of a standby, its end), each group of each window is emitted once, with all
# records that count, and at the end nothing is left to be emitted.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

my $groups  = 8_000;
my $primary = new_node('primary', allows_streaming => 1, conf => q(
stream_engine.commit_interval = 100ms
stream_engine.retry_interval = 20ms
stream_engine.max_emit_rows = 500
));
if ($primary->psql('postgres', 'SHOW stream_engine.failpoints') != 0)
{
	$primary->stop('immediate');
	plan(skip_all => 'built without failpoints');
}
my $node = $primary;

# "once" counts how often a row of "plain" is written, at the end of each transaction, with the rights
# of the table's owner.
$node->safe_psql('postgres', q(
	CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
		PRIMARY KEY (partition, "offset"));
	CREATE ROLE owner;
	GRANT CREATE ON SCHEMA public TO owner;
	GRANT SELECT ON log TO owner;
	CREATE SERVER source FOREIGN DATA WRAPPER stream_engine_table
		OPTIONS (table 'public.log', partitions '1');
	GRANT USAGE ON FOREIGN SERVER source TO owner;

	SET ROLE owner;
	BEGIN;
	SELECT stream_engine.create_stream('events', server => 'source', topic => 'events',
		columns => 'k int, v int, t timestamptz', event_time => 't', watermark_delay => '0',
		idle_timeout => '1 hour', staging_retention => '0');
	SELECT stream_engine.create_query('plain', $$
		SELECT k, count(*) AS n, sum(v) AS total FROM events GROUP BY tumble(t, '1 hour'), k $$);
	SELECT stream_engine.create_query('lenient', $$
		SELECT k, count(*) AS n, sum(v) AS total FROM events GROUP BY tumble(t, '1 hour'), k $$,
		allowed_lateness => '2 hours');
	SELECT stream_engine.create_query('retried', $$
		SELECT k % 6000 AS k, count(*) AS n, sum(v) AS total FROM events
		GROUP BY hop(t, '1 hour', every => '30 minutes'), k % 6000 $$, correction_horizon => '1 day');
	SELECT stream_engine.create_query('changing', $$
		SELECT k % 3000 AS k, count(*) AS n, sum(v) AS total FROM events
		GROUP BY tumble(t, '1 hour'), k % 3000 $$, emit => 'changes', emit_interval => '1 second', allowed_lateness => '1 day');
	SELECT stream_engine.create_query('small', $$
		SELECT k % 10 AS k, count(*) AS n, sum(v) AS total FROM events GROUP BY tumble(t, '10 seconds'), k % 10 $$, late => 'drop');
	COMMIT;

	CREATE TABLE counted (window_start timestamptz, k int, at bigint, who name);
	CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.counted VALUES (COALESCE(new.window_start, old.window_start), COALESCE(new.k, old.k), txid_current(), current_user);
		RETURN NULL;
	END $$;
	CREATE CONSTRAINT TRIGGER once AFTER INSERT OR UPDATE OR DELETE ON plain
		DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION count_it();
	RESET ROLE;

	CREATE FUNCTION feed(n int, keys int, since timestamptz, step interval) RETURNS void LANGUAGE sql AS $$
		INSERT INTO log SELECT 0, b.first + i, now(), NULL,
			convert_to(format('{"k": %s, "v": %s, "t": "%s"}', i::bigint * 7919 % keys, i % 100, since + i * step), 'UTF8')
		FROM (SELECT COALESCE(max("offset") + 1, 0) AS first FROM log) b, generate_series(0, n - 1) i $$;
));

sub sql
{
	my ($sql, $dbname) = @_;
	return $node->safe_psql($dbname // 'postgres', $sql);
}

# ---------------------------------------------------------------------------
# A window that is being emitted
# ---------------------------------------------------------------------------

my @large = qw(plain lenient retried changing);
my $hour  = 0;

sub at
{
	my ($h, $time) = @_;
	return sprintf('2026-01-%02d %02d:%s+00', 1 + $h / 24, $h % 24, $time);
}

# How the engine goes on with what it emits: 'slowly' leaves time for what is to happen in between.
my %pause = (fast => '', slowly => 'closing.range=sleep:150');

sub emit
{
	my ($how) = @_;

	$node->append_conf('postgresql.conf', "stream_engine.failpoints = '$pause{$how}'");
	$node->reload;
	return;
}

sub midst
{
	my ($query) = @_;
	return "EXISTS (SELECT FROM stream_engine.closing c JOIN stream_engine.query q ON q.id = c.query WHERE q.result = '$query'::regclass AND c.next_hash > 0)";
}

# The groups of an hour are read, and then its end; those of all large windows are in the midst.
sub begin_close
{
	my (@queries) = @_;

	sql("SELECT feed($groups, $groups, '" . at($hour, '00:00') . "', interval '3590 seconds' / $groups)");
	sql("CALL stream_engine.wait('events', '3 minutes')");
	$hour++;
	emit('slowly');
	sql("SELECT feed(1, 1, '" . at($hour, '00:00') . "', '0')");
	wait_for($node, 'SELECT ' . join(' AND ', map { midst($_) } @queries));
	return;
}

# Groups on both sides of where the window is being emitted get a record.
sub feed_late
{
	sql("SELECT feed(40, $groups, '" . at($hour - 1, '20:00') . "', '0')");
	return;
}

# Until all that had come is read, be it by readers that are still emitting.
sub wait_read
{
	wait_for($node, q(SELECT bool_and(p.next_offset = (SELECT count(*) FROM log)) FROM stream_engine.reader_partition p
		WHERE p.reader IN (SELECT w.reader FROM stream_engine.query_progress w JOIN stream_engine.query q ON q.id = w.query WHERE q.state = 'running')));
	return;
}

# What one snapshot shows of a query: each group of each window once, all records that count.
sub is_shown
{
	my ($when, @queries) = @_;

	foreach my $query (@queries)
	{
		my $times = $query eq 'retried' ? 2 : 1;
		is(sql(qq(
				SELECT l.repeated, l.n - $times * s.counted + s.late_assignments - s.late * $times
				FROM stream_engine.stat_queries s, (SELECT count(*) - count(DISTINCT (window_start, k)) AS repeated, sum(n) AS n FROM ${query}_live) l
				WHERE s.query = '$query'::regclass)),
			'0|0', "$when: ${query}_live has each group once");
	}
	return;
}

# The results are those of plain SQL over the records that the query has counted.
sub is_right
{
	my ($when, @queries) = @_;

	sql("CALL stream_engine.wait('events', '3 minutes')");
	is(sql('SELECT count(*) FROM stream_engine.closing'), 0, "$when: nothing is left to be emitted");
	foreach my $query (@queries)
	{
		my %key = (plain => 1_000_000, newcomer => 1_000_000, lenient => 1_000_000, retried => 6000, changing => 3000);
		my $windows = $query eq 'retried'
		  ? "SELECT date_bin('30 minutes', t, '2026-01-01 00:00+00') - i * interval '30 minutes' FROM generate_series(0, 1) i"
		  : "SELECT date_bin('1 hour', t, '2026-01-01 00:00+00')";
		my $end = at($hour, '00:00');

		is(sql(qq(
				WITH record AS (SELECT "offset", (j->>'k')::int % $key{$query} AS k, (j->>'v')::int AS v, (j->>'t')::timestamptz AS t
						FROM (SELECT "offset", convert_from(value, 'UTF8')::json AS j FROM log) l),
					expected AS (SELECT w.start, k, count(*) AS n, sum(v) AS total FROM record r, LATERAL ($windows) AS w(start)
						WHERE w.start + interval '1 hour' <= '$end'
						AND NOT EXISTS (SELECT FROM stream_engine.late_events e, LATERAL unnest(e.windows) m(w)
							WHERE e.query = '$query'::regclass AND e."offset" = r."offset" AND lower(m.w) = w.start) GROUP BY 1, 2),
					found AS (SELECT window_start, k, n, total FROM $query WHERE is_final)
				SELECT (SELECT count(*) FROM (TABLE expected EXCEPT ALL TABLE found) a),
					(SELECT count(*) FROM (TABLE found EXCEPT ALL TABLE expected) b))),
			'0|0', "$when: $query has the results of plain SQL");
		is(sql("SELECT count(*) FROM stream_engine.verify('$query')"), 0, "$when: $query is verified");
	}
	is(sql('SELECT count(*) - count(DISTINCT (window_start, k)), count(*) - (SELECT count(*) FROM plain), string_agg(DISTINCT who, $$,$$) FROM counted'),
		'0|0|owner', "$when: each row of plain has been written once, as its owner");
	is(sql("SELECT count(*) FROM stream_engine.queries WHERE state <> 'running'"), 0, "$when: all queries run");
	return;
}

sub one_reader
{
	wait_for($node, q(SELECT count(DISTINCT reader) = 1 FROM stream_engine.query_progress));
	return;
}

is(sql('SELECT count(DISTINCT reader) FROM stream_engine.query_progress'), 1, 'one reader feeds all queries');

# ---------------------------------------------------------------------------
# Pause and resume, of a query and of the stream; split and merged in between
# ---------------------------------------------------------------------------

begin_close(@large);
sql("SELECT stream_engine.pause('plain')");
is(sql('SELECT count(DISTINCT reader) FROM stream_engine.query_progress'), 2, 'a query that is paused is split off');
my $stands = sql("SELECT closing, closing_percent FROM stream_engine.stat_queries WHERE query = 'plain'::regclass");
feed_late();
wait_read();
is_shown('a query is paused', @large);
is(sql("SELECT closing, closing_percent FROM stream_engine.stat_queries WHERE query = 'plain'::regclass"), $stands, 'what is paused is not emitted');
sql("SELECT stream_engine.pause('events')");
$stands = sql('SELECT window_end, next_hash FROM stream_engine.closing ORDER BY query');
is(scalar(split /\n/, $stands), scalar(@large), 'the stream is paused, and has more to emit');
is_shown('the stream is paused', @large);
is(sql('SELECT window_end, next_hash FROM stream_engine.closing ORDER BY query'), $stands, 'what is paused is not emitted');
sql("SELECT stream_engine.resume('events')");
emit('fast');
wait_for($node, 'SELECT count(*) = 1 FROM stream_engine.closing');
emit('slowly');
sql("SELECT stream_engine.resume('plain')");
wait_for($node, 'SELECT count(DISTINCT reader) = 1 AND ' . midst('plain') . ' FROM stream_engine.query_progress');
pass('a reader that emits is merged into another');
is_shown('merged', @large);
emit('fast');
is_right('paused and resumed', @large);
one_reader();

# ---------------------------------------------------------------------------
# A query that begins now, and is merged while all emit
# ---------------------------------------------------------------------------

begin_close(@large);
sql(q(SET ROLE owner; SELECT stream_engine.create_query('newcomer', $$
	SELECT k, count(*) AS n, sum(v) AS total FROM events GROUP BY tumble(t, '1 hour'), k $$)));
feed_late();
is_shown('another query begins', @large);
emit('fast');
is_right('a query has come', @large, 'newcomer');
one_reader();

# ---------------------------------------------------------------------------
# Settings
# ---------------------------------------------------------------------------

begin_close(@large, 'newcomer');
sql(q(SELECT stream_engine.alter_query('lenient', allowed_lateness => '0');
	SELECT stream_engine.alter_query('retried', correction_horizon => '0');
	SELECT stream_engine.alter_query('changing', emit_interval => '10 seconds');
	SELECT stream_engine.alter_stream('events', watermark_delay => '1 second')));
feed_late();
wait_read();
is_shown('settings have changed', @large);
sql(q(SELECT stream_engine.alter_query('lenient', allowed_lateness => '3 hours');
	SELECT stream_engine.alter_query('retried', correction_horizon => '1 day');
	SELECT stream_engine.alter_query('changing', emit_interval => '1 second');
	SELECT stream_engine.alter_stream('events', watermark_delay => '0')));
is_shown('and again', @large);
emit('fast');
is_right('settings have changed', @large);

# ---------------------------------------------------------------------------
# The end of a query
# ---------------------------------------------------------------------------

begin_close(@large, 'newcomer');
sql("SELECT stream_engine.drop_query('newcomer')");
is(sql('SELECT count(*) FROM stream_engine.closing'), scalar(@large), 'a query that is dropped has nothing left to emit');
is(sql('SELECT count(*) FROM stream_engine.state_log l WHERE NOT EXISTS (SELECT FROM stream_engine.query q WHERE q.id = l.query)'), 0, 'and no state');
is_shown('another one was dropped', @large);
emit('fast');
is_right('another one was dropped', @large);

# ---------------------------------------------------------------------------
# Late records are retried
# ---------------------------------------------------------------------------

begin_close(@large);
feed_late();
wait_read();
my $before = sql("SELECT count(*) FROM stream_engine.late_events WHERE query = 'retried'::regclass");
my $taken  = sql("SELECT stream_engine.retry_late('retried', \$\$ event_time >= '" . at($hour - 1, '00:00') . "' \$\$)");
cmp_ok($taken, '>', 0, "$taken late records are retried");
wait_for($node, "SELECT count(*) = $before - $taken FROM stream_engine.late_events WHERE query = 'retried'::regclass");
is(sql('SELECT ' . midst('retried')), 't', 'they are counted before the window has been emitted');
is_shown('late records are retried', @large);
emit('fast');
is_right('late records are retried', @large);

# ---------------------------------------------------------------------------
# A dump, and the promotion of a standby
# ---------------------------------------------------------------------------

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

begin_close(@large);
feed_late();
wait_read();
my $file = PostgreSQL::Test::Utils::tempdir('dump') . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $file, $node->connstr('postgres') ], 'dumped in the midst');

$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
$node = $standby;
is(sql('SELECT ' . join(' AND ', map { midst($_) } @large)), 't', 'the standby is in the midst, too');
is_shown('a standby', @large);
emit('slowly');
$standby->promote;
wait_for($node, 'SELECT NOT pg_is_in_recovery()');
is_shown('promoted', @large);
emit('fast');
is_right('promoted', @large);

# What the dump holds of the window is deleted when the stream is resumed, by triggers that do what they
# may, and all of it is made anew.
sql('CREATE DATABASE copy');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('copy'), $file ], 'the dump is restored');
is(sql('SELECT ' . midst('plain'), 'copy'), 't', 'the copy knows what was emitted');
my $begun = sql("SELECT count(*) FROM plain WHERE window_start = '" . at($hour - 1, '00:00') . "'", 'copy');
cmp_ok($begun, '>', 0, 'of the window there is a part');
sql("DELETE FROM counted WHERE window_start < '" . at($hour - 1, '00:00') . "'", 'copy');
sql("SELECT stream_engine.resume('events', start => 'earliest')", 'copy');
is(sql('SELECT string_agg(DISTINCT who, $$,$$) FROM counted', 'copy'), 'owner', 'what is deleted is deleted as its owner');
sql("CALL stream_engine.wait('events', '3 minutes')", 'copy');
is(sql('SELECT count(*) FROM stream_engine.closing', 'copy'), 0, 'nothing is left to be emitted in the copy');
is(sql(q(SELECT count(*), count(DISTINCT (window_start, k)), min(times), max(times) FROM (SELECT window_start, k, count(*) AS times FROM counted GROUP BY 1, 2) c), 'copy') =~
	/^$groups\|$groups\|1\|3$/, 1, 'each row of the window was written, those of the dump deleted and written again');
foreach my $query (@large)
{
	my $window = "window_start = '" . at($hour - 1, '00:00') . "'";
	is(sql("SELECT k, n, total FROM $query WHERE $window AND is_final ORDER BY 1", 'copy'),
		sql("SELECT k, n, total FROM $query WHERE $window ORDER BY 1"), "$query has the same window in the copy");
}

# ---------------------------------------------------------------------------
# The end of the stream
# ---------------------------------------------------------------------------

begin_close(@large);
sql("SELECT stream_engine.drop_stream('events', cascade => true)");
is(sql('SELECT count(*) FROM stream_engine.closing'), 0, 'a stream that is dropped leaves nothing to be emitted');
emit('fast');
sql("SELECT stream_engine.drop_stream('events', cascade => true)", 'copy');
wait_for_processes($node, 0, '%reader%');
is(sql('SELECT total = free FROM stream_engine.state_memory()'), 't', 'nor memory');
unlike(log_since($node, 0), qr/PANIC|TRAP|was terminated by signal/, 'the log has no crash');
unlike(log_since($primary, 0), qr/PANIC|TRAP|was terminated by signal/, 'nor that of the first server');

$node->stop('fast');
$primary->stop('fast');
done_testing();
