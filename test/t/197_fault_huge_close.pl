
# Rule: a window with many rows is emitted by several commits, in which other queries'
# windows close as well.  Whatever fails in between, and whatever comes late meanwhile,
# <query>_live has each group of each window once under any snapshot, with all records
# that were counted, and the results are in the end those of plain SQL.

use strict;
use warnings FATAL => 'all';

use IPC::Run qw(start);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

my $groups = long_run() ? 1_000_000 : 200_000;
my $rows   = 10_000;
my $node   = new_node('main', conf => qq(
stream_engine.commit_interval = 200ms
stream_engine.retry_interval = 20ms
stream_engine.max_failures = 1000
stream_engine.max_emit_rows = $rows
max_wal_size = 2GB
));
if ($node->psql('postgres', 'SHOW stream_engine.failpoints') != 0)
{
	$node->stop('immediate');
	plan(skip_all => 'built without failpoints');
}

$node->safe_psql('postgres', qq(
	CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
		PRIMARY KEY (partition, "offset"));
	CREATE SERVER source FOREIGN DATA WRAPPER stream_engine_table
		OPTIONS (table 'public.log', partitions '1');
	SELECT stream_engine.create_stream('events', server => 'source', topic => 'events',
		columns => 'k int, v int, t timestamptz', event_time => 't', watermark_delay => '0',
		idle_timeout => '1 hour', staging_retention => '0');
	SELECT stream_engine.create_query('big', \$\$
		SELECT k, count(*) AS n, sum(v) AS total FROM events GROUP BY tumble(t, '1 hour'), k \$\$,
		allowed_lateness => '1 day');
	SELECT stream_engine.create_query('hopping', \$\$
		SELECT k % 7000 AS k, count(*) AS n, sum(v) AS total FROM events
		GROUP BY hop(t, '1 hour', every => '15 minutes'), k % 7000 \$\$, allowed_lateness => '1 day');
	SELECT stream_engine.create_query('changing', \$\$
		SELECT k % 3000 AS k, count(*) AS n, sum(v) AS total FROM events
		GROUP BY tumble(t, '1 hour'), k % 3000 \$\$,
		emit => 'changes', emit_interval => '1 second', allowed_lateness => '1 day');
	SELECT stream_engine.create_query('small', \$\$
		SELECT k % 10 AS k, count(*) AS n, sum(v) AS total FROM events GROUP BY tumble(t, '10 seconds'), k % 10 \$\$,
		late => 'drop');

	CREATE FUNCTION feed(n int, keys int, since timestamptz, step interval) RETURNS void LANGUAGE sql AS \$\$
		INSERT INTO log SELECT 0, b.first + i, now(), NULL,
			convert_to(format('{"k": %s, "v": %s, "t": "%s"}', i::bigint * 7919 % keys, i % 100, since + i * step), 'UTF8')
		FROM (SELECT COALESCE(max("offset") + 1, 0) AS first FROM log) b, generate_series(0, n - 1) i \$\$;

	-- what the snapshot of one statement shows that it should not
	CREATE FUNCTION look() RETURNS text LANGUAGE sql AS \$\$
		WITH live AS (
			SELECT 'big' AS query, 1 AS times, window_start, k, n, is_final FROM big_live
			UNION ALL SELECT 'hopping', 4, window_start, k, n, is_final FROM hopping_live
			UNION ALL SELECT 'changing', 1, window_start, k, n, is_final FROM changing_live
			UNION ALL SELECT 'small', 1, window_start, k, n, is_final FROM small_live),
		windows AS (
			SELECT query, times, window_start, count(*) - count(DISTINCT k) AS repeated, sum(n) AS n,
				bool_and(is_final) AS all_final, bool_or(is_final) AS some_final
			FROM live GROUP BY query, times, window_start),
		shown AS (
			SELECT query, sum(repeated) AS repeated, sum(n) / min(times) AS n,
				bool_and(some_final = all_final AND all_final =
					(window_start + CASE query WHEN 'small' THEN interval '10 seconds' ELSE interval '1 hour' END
					<= (SELECT closed_through FROM stream_engine.stat_queries s WHERE s.query::text = windows.query))) AS final
			FROM windows GROUP BY query)
		SELECT string_agg(format('%s: repeated %s, counted %s, shown %s, marked right %s', s.query, repeated, s.counted, n, final), '; ')
		FROM stream_engine.stat_queries s LEFT JOIN shown l ON l.query = s.query::text
		WHERE repeated > 0 OR COALESCE(l.n, 0) <> COALESCE(s.counted, 0) OR NOT final \$\$;

	-- looks until the windows have been emitted; how often it was in the midst
	CREATE PROCEDURE hammer(INOUT looks int) LANGUAGE plpgsql AS \$\$
	DECLARE
		shown record;
	BEGIN
		LOOP
			COMMIT;
			SELECT count(*) FILTER (WHERE window_end = '2026-01-01 01:00+00') AS groups, sum(n) AS n,
				(SELECT counted FROM stream_engine.stat_queries WHERE query = 'big'::regclass) AS counted,
				(SELECT closing IS NOT NULL FROM stream_engine.stat_queries WHERE query = 'big'::regclass) AS midst,
				(SELECT closed_through FROM stream_engine.stat_queries WHERE query = 'big'::regclass) AS closed
				FROM big_live INTO shown;
			IF shown.groups <> $groups OR shown.n <> shown.counted THEN
				RAISE EXCEPTION '%', shown;
			END IF;
			looks := looks + shown.midst::int;
			EXIT WHEN NOT shown.midst AND shown.closed >= '2026-01-01 01:00+00';
		END LOOP;
	END \$\$;
));

is($node->safe_psql('postgres', 'SELECT count(DISTINCT reader) FROM stream_engine.query_progress'), 1,
	'one reader feeds all queries');

my $progress = q(SELECT window_end, next_hash FROM stream_engine.closing c JOIN stream_engine.query q ON q.id = c.query WHERE q.result = 'big'::regclass);

# Failures come and go, so every question may have to be asked again.
sub ask
{
	my ($sql) = @_;
	my $answer;

	wait_until($node, sub { defined($answer = eval { $node->safe_psql('postgres', $sql) }) }, "an answer to $sql");
	return $answer;
}

sub set_failpoints
{
	my ($value) = @_;
	$node->append_conf('postgresql.conf', "stream_engine.failpoints = '$value'");
	wait_until($node, sub { eval { $node->reload; 1 } }, 'a reload');
	return;
}

# An hour of so many groups, until it has been read.
sub feed_hour
{
	my ($since, $n) = @_;
	ask("SELECT feed($n, $n, '$since', interval '3600 seconds' / $n)");
	wait_for($node, q(SELECT min(next_offset) = (SELECT count(*) FROM log) FROM stream_engine.reader_partition));
	return;
}

# ---------------------------------------------------------------------------
# Without failures: other queries go on, late records are taken, readers see all once
# ---------------------------------------------------------------------------

feed_hour('2026-01-01 00:00+00', $groups);

my ($out, $err) = ('', '');
my $hammer = start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-c', 'CALL hammer(0)' ],
	'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(5 * $PostgreSQL::Test::Utils::timeout_default));

# So slow that what follows comes before the end, on any machine.
set_failpoints('closing.range=sleep:1000');
ask("SELECT feed(1, 1, '2026-01-01 01:00+00', '0')");
wait_for($node, "SELECT EXISTS ($progress)");

# Windows of the other query close, and records come late for groups on both sides.
ask("SELECT feed(2000, $groups, '2026-01-01 00:10+00', '0')");
ask("SELECT feed(30, 10, '2026-01-01 01:00:01+00', '1 second')");
wait_for($node, "SELECT EXISTS (SELECT FROM small WHERE window_start >= '2026-01-01 01:00+00')");
isnt(ask($progress), '', 'windows of another query close while a large one is being emitted');
my ($rc) = $node->psql('postgres', "SET statement_timeout = '1ms'; CALL stream_engine.wait('big')");
isnt($rc, 0, 'wait does not return before the window has been emitted');
like(ask("SELECT finding, detail FROM stream_engine.why('big') WHERE finding LIKE 'the window%'"),
	qr/the window from 2026-01-01 .* is being emitted\|\d+ % of it/, 'it is told that the window is being emitted');
set_failpoints('closing.range=sleep:100');
is(ask('SELECT look()'), '', 'each group is shown once');
is(ask("SELECT count(*) FROM stream_engine.verify('big')"), 0, 'what has been emitted can be verified');
wait_for($node, "SELECT NOT EXISTS ($progress)");
set_failpoints('');
$hammer->finish;
is($err, '', 'each look has each group once');
chomp $out;
cmp_ok($out, '>', 0, "$out looks while the window was being emitted");
ask("CALL stream_engine.wait('events', '3 minutes')");

# ---------------------------------------------------------------------------
# With failures
# ---------------------------------------------------------------------------

my %log = (
	error => sub { qr/failpoint "\Q$_[0]\E" reached/ },
	exit  => sub { qr/stream_engine reader.* \(PID \d+\) exited with exit code 1/ },
	kill  => sub { qr/was terminated by signal 9.*database system is ready to accept connections/s });
my $step = 0;

# A query that fails again and again reads by itself, and then emits ten times as many; with @3 two
# parts each time that it begins anew, which on a busy machine is a hundred times.
$node->append_conf('postgresql.conf', 'stream_engine.max_emit_rows = 5');
feed_hour('2026-01-01 02:00+00', $groups / 5);
foreach my $point (qw(closing.begin closing.range@3 commit.before_commit@3 closing.end))
{
	foreach my $action (qw(error exit kill))
	{
		my ($name, $passing) = $point =~ /^([^@]+)(.*)$/;
		my $position = log_position($node);

		set_failpoints("$name=$action$passing");
		ask(q(SELECT feed(1, 1, '2026-01-01 04:00+00', '0'))) if $step++ == 0;
		wait_for_log($node, $log{$action}->($name), $position);
		# the server answers again, and the window is still not emitted
		set_failpoints("$name=error$passing") if $action eq 'kill';
		# late ones for groups that have been emitted and for others
		ask("SELECT feed(50, $groups / 5, '2026-01-01 02:20+00', '0')");
		is(ask('SELECT look()'), '', "$point=$action");
	}
}
isnt(ask($progress), '', 'the window has not been emitted yet');

# A dump of the midst, which is restored when the workers have finished.
my $file = PostgreSQL::Test::Utils::tempdir('dump') . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $file, $node->connstr('postgres') ], 'dumped in the midst');
$node->append_conf('postgresql.conf', "stream_engine.max_emit_rows = $rows");
set_failpoints('');
ask("CALL stream_engine.wait('events', '3 minutes')");
is(ask('SELECT count(*) FROM stream_engine.closing'), 0, 'nothing is left to be emitted');
is(ask('SELECT look()'), '', 'each group is there once');

# ---------------------------------------------------------------------------
# The results
# ---------------------------------------------------------------------------

sub difference
{
	my ($query, $key, $windows, $dbname) = @_;
	return $node->safe_psql($dbname // 'postgres', qq(
		WITH quarters AS (SELECT date_bin('15 minutes', (j->>'t')::timestamptz, '2026-01-01 00:00+00') AS t,
				(j->>'k')::int % $key AS k, count(*) AS n, sum((j->>'v')::int) AS total
				FROM (SELECT convert_from(value, 'UTF8')::json AS j FROM log) l GROUP BY 1, 2),
			expected AS (SELECT w.start, k, sum(n)::bigint AS n, sum(total)::bigint AS total
				FROM quarters, LATERAL (SELECT $windows) AS w(start)
				WHERE w.start + interval '1 hour' <= '2026-01-01 04:00+00' GROUP BY 1, 2),
			found AS (SELECT window_start, k, n, total FROM $query WHERE is_final)
		SELECT (SELECT count(*) FROM (TABLE expected EXCEPT ALL TABLE found) a)
			+ (SELECT count(*) FROM (TABLE found EXCEPT ALL TABLE expected) b)));
}

my @expected = (
	[ 'big', 1_000_000_000, "date_bin('1 hour', t, '2026-01-01 00:00+00')" ],
	[ 'changing', 3000, "date_bin('1 hour', t, '2026-01-01 00:00+00')" ],
	[ 'hopping', 7000, "t - generate_series(0, 3) * interval '15 minutes'" ]);

is(difference(@$_), 0, "$_->[0] has the results of plain SQL") foreach @expected;
cmp_ok(ask('SELECT count(*) FROM big WHERE revision > 0'), '>', 0, 'groups have been corrected');

# What was emitted before the dump stays, without later corrections; the window that was
# begun is made anew.
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('copy'), $file ], 'the dump is restored');
isnt($node->safe_psql('copy', 'SELECT count(*) FROM stream_engine.closing'), 0, 'and knows what was emitted');
$node->safe_psql('copy', "SELECT stream_engine.resume('events', start => 'earliest')");
$node->safe_psql('copy', "CALL stream_engine.wait('events', '3 minutes')");
is(difference(@{ $expected[0] }, 'copy'), 0, 'big has the same results in the restored database');

$node->stop;
done_testing();
