
# Rule: a process that fails again and again is started again with longer and longer pauses between;
# what is wrong is shown meanwhile, nothing is stopped that was to run, and it goes on by itself when the
# cause is gone.  One that brings the whole server down each time leaves sessions the time to switch
# the engine off.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Job;
use StreamEngine::Orders;
use StreamEngine::Test;

my $interval = 40;
my $node = new_node('main', conf => qq(
stream_engine.commit_interval = 10ms
stream_engine.retry_interval = ${interval}ms
stream_engine.max_failures = 1000
log_line_prefix = '%n [%p] %b '
));
if ($node->psql('postgres', 'SHOW stream_engine.failpoints') != 0)
{
	$node->stop('immediate');
	plan(skip_all => 'built without failpoints');
}

create_job($node);
feed_job($node, seconds => 20);
is_exact($node, 'at rest');

sub set_failpoints
{
	my ($value) = @_;
	$node->append_conf('postgresql.conf', "stream_engine.failpoints = '$value'");
	$node->reload;
	return;
}

# Seconds at which lines of the log were written that match.
sub times_of
{
	my ($regexp, $position) = @_;
	my @times = map { /^(\d+\.\d+) / } grep { $_ =~ $regexp } split /\n/, log_since($node, $position);
	return @times;
}

# Each pause is at least as long as it has to be: the machine may make it longer.
sub pauses_grow
{
	my ($name, $n, @times) = @_;
	my $short = 0;

	foreach my $i (1 .. $n - 1)
	{
		my $pause = $times[$i] - $times[ $i - 1 ];
		$short++ if $pause < $interval / 1000 * 2**($i - 1) * 0.95;
	}
	is($short, 0, "$name: pauses grow") or diag("@times");
	return;
}

# ---------------------------------------------------------------------------
# Readers and managers that fail by an error
# ---------------------------------------------------------------------------

foreach my $case (
	[ 'reader', 'commit.before_commit=error' ],
	[ 'reader', 'worker-attach=error' ],
	[ 'reader', 'commit.after_fence=oom' ],
	[ 'manager', 'manager-pass=error' ])
{
	my ($kind, $failpoint) = @$case;
	# Who has failed lately is given longer pauses from the beginning.
	$node->restart;
	wait_for_processes($node, 1, "%$_%") foreach qw(manager reader);
	my $position = log_position($node);
	my $failed   = qr/stream_engine $kind.*(?:ERROR|FATAL):  (?:failpoint .* reached|out of memory)/;

	set_failpoints($failpoint);
	# A new process comes to either place by itself.
	$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'stream_engine $kind'");
	feed_job($node);
	wait_until($node, sub { times_of($failed, $position) >= 6 }, "$failpoint was met");
	pauses_grow($failpoint, 6, times_of($failed, $position));
	like($node->safe_psql('postgres', "SELECT message FROM stream_engine.worker_slots() WHERE kind = '$kind' AND attempts >= 5 AND next_attempt IS NOT NULL"),
		qr/failpoint .* reached|out of memory/, "$failpoint: it is shown what is wrong");
	is($node->safe_psql('postgres', "SELECT string_agg(DISTINCT state, ',') FROM stream_engine.queries"), 'running', "$failpoint: no query is stopped");
	set_failpoints('');
	is_exact($node, "after $failpoint");
}

# ---------------------------------------------------------------------------
# A process that takes the server down with it
# ---------------------------------------------------------------------------

my $position = log_position($node);
my $crashed  = qr/was terminated by signal 9/;
set_failpoints('worker-attach=kill');
try_sql($node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'stream_engine reader'");
wait_until($node, sub { times_of($crashed, $position) >= 5 }, 'the server has crashed again and again');
# The first time all start at once; then they wait.
my @times = times_of($crashed, $position);
shift @times;
pauses_grow('crashes', 4, @times);
wait_until($node, sub { try_sql($node, 'ALTER SYSTEM SET stream_engine.enabled = off') == 0 }, 'a session can log in');
wait_until($node, sub { try_sql($node, 'SELECT pg_reload_conf()') == 0 }, 'and have it read');
my $n = times_of($crashed, $position);
wait_until($node, sub { try_sql($node, 'SELECT 1') == 0 }, 'the server is back');
wait_for_processes($node, 0, '%reader%');
cmp_ok(scalar(times_of($crashed, $position)), '<=', $n + 1, 'the server stays up when the engine is off');
set_failpoints('');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET stream_engine.enabled');
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
is_exact($node, 'after crashes');

# ---------------------------------------------------------------------------
# A function that never returns
# ---------------------------------------------------------------------------

# It holds up the queries that share its reader until somebody stops its query, or the stream: then
# the reader is cancelled.  Called for a row, while nothing is locked but the stream; or for a
# window, in a commit.
$node->safe_psql('postgres', q(
	CREATE TABLE endless (partition int, "offset" bigint GENERATED ALWAYS AS IDENTITY (MINVALUE 0 START 0), timestamp timestamptz,
		key bytea, value bytea, PRIMARY KEY (partition, "offset"));
	CREATE SERVER endless FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.endless', partitions '1');
	CREATE PROCEDURE put(VARIADIC records text[]) LANGUAGE sql AS $$
		INSERT INTO endless (partition, timestamp, value) SELECT 0, now(), convert_to(format('{"v": %s, "ts": "2025-01-01 00:%sZ"}',
			split_part(r, ' ', 2), split_part(r, ' ', 1)), 'UTF8') FROM unnest(records) AS r $$;
	CREATE FUNCTION never(v bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS $$
	BEGIN
		IF v = 666 THEN
			PERFORM pg_sleep(1000000);
		END IF;
		RETURN v;
	END $$));
foreach my $case (
	[ 'for a row',    'sum(never(v))', q(SELECT stream_engine.pause('bad')) ],
	[ 'for a window', 'never(max(v))', q(SELECT stream_engine.pause('bad')) ],
	[ 'for a window, dropped', 'never(max(v))', q(SELECT stream_engine.drop_query('bad')) ],
	[ 'for a row, stream paused',   'sum(never(v))', q(SELECT stream_engine.pause('e')) ],
	[ 'for a row, stream altered',  'sum(never(v))', q(BEGIN; SELECT stream_engine.alter_stream('e', idle_timeout => '1 day'); SELECT stream_engine.pause('bad'); COMMIT) ],
	[ 'for a window, stream dropped', 'never(max(v))', q(SELECT stream_engine.drop_stream('e', cascade => true)) ])
{
	my ($name, $expression, $stop) = @$case;
	$node->safe_psql('postgres', qq(
		SELECT stream_engine.create_stream('e', server => 'endless', topic => 'endless', event_time => 'ts',
			columns => 'v bigint, ts timestamptz', watermark_delay => '0', idle_timeout => '1 hour', include => '{}', staging_retention => '0');
		DO \$\$ BEGIN
			PERFORM stream_engine.create_query('good', 'SELECT count(*) AS n FROM e GROUP BY tumble(ts, ''1 minute'')');
			PERFORM stream_engine.create_query('bad', 'SELECT $expression AS x FROM e GROUP BY tumble(ts, ''1 minute'')');
		END \$\$;
		CALL put('00:01 1', '01:01 2');
		CALL stream_engine.wait('e', '1 minute')));
	is($node->safe_psql('postgres', 'SELECT count(DISTINCT reader) FROM stream_engine.stat_partitions WHERE query IN (SELECT name FROM stream_engine.queries WHERE stream = \'e\'::regclass)'),
		'1', "$name: one reader feeds both queries");
	$position = log_position($node);
	$node->safe_psql('postgres', q(CALL put('01:02 666', '02:02 3')));
	wait_for($node, q(SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'stream_engine reader' AND wait_event = 'PgSleep')));
	my ($status, undef, $stderr) = $node->psql('postgres', $stop, on_error_stop => 1, timeout => $PostgreSQL::Test::Utils::timeout_default);
	is($status, 0, "$name: it can be stopped") or diag($stderr);
	if ($stop !~ /drop_stream/)
	{
		if ($stop =~ /pause\('e'\)/)
		{
			wait_for($node, q(SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')));
			$node->safe_psql('postgres', q(SELECT stream_engine.pause('bad'); SELECT stream_engine.resume('e')));
		}
		wait_for_all($node, 'good');
		is($node->safe_psql('postgres', q(SELECT sum(n) FROM good)), '3', "$name: the other query goes on");
		is($node->safe_psql('postgres', q(SELECT count(*) FROM stream_engine.verify('good'))), '0', "$name: and is right");
		$node->safe_psql('postgres', q(SELECT stream_engine.drop_stream('e', cascade => true)));
	}
	$node->safe_psql('postgres', 'TRUNCATE endless RESTART IDENTITY');
}
is_exact($node, 'after functions that do not return');

leaves_nothing($node);
done_testing();
