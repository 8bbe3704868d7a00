
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

leaves_nothing($node);
done_testing();
