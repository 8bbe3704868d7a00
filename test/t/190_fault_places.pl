
# Kills of a worker, or of the postmaster, at every place where one could do harm: each step of a
# commit, between COMMIT and the linking of runs in shared memory, in the folding of state, the
# rotation of its segments and of staging, the hand-over of queries between readers, replays, the
# starts of workers and managers.  Afterwards every query is what plain SQL gives.  SE_SEED repeats the
# choices; the moments are the machine's.

use strict;
use warnings FATAL => 'all';

use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use StreamEngine::Job;
use StreamEngine::Test;

my $node = new_node('main', conf => q(
stream_engine.commit_interval = 10ms
stream_engine.retry_interval = 20ms
stream_engine.state_log_rate = '1GB'
autovacuum = off
));
if ($node->psql('postgres', 'SHOW stream_engine.failpoints') != 0)
{
	$node->stop('immediate');
	plan(skip_all => 'built without failpoints');
}

my $seed = $ENV{SE_SEED} || int(time * 1000) % 1_000_000_007;
srand($seed);
note("SE_SEED=$seed");

create_job($node, stream => "staging_retention => '1 second'");
feed_job($node, seconds => 20);

sub split_off
{
	try_sql($node, "SELECT stream_engine.pause('tumbling')");
	feed_job($node);
	try_sql($node, "SELECT stream_engine.resume('tumbling')");
	return;
}

# Places, and what brings workers there besides records.
my %places = (
	'commit.before_fence' => undef, 'commit.after_fence' => undef, 'commit.after_side' => undef,
	'emit.begin' => undef, 'emit.end' => undef, 'commit.before_chunks' => undef,
	'commit.after_chunks' => undef, 'commit.after_offsets' => undef, 'commit.before_ledger' => undef,
	'commit.before_commit' => undef, 'cache.link' => undef, 'commit.after_commit' => undef,
	(map { ($_ => sub { feed_job($node, per_second => 30, keys => 300) foreach 1 .. 8 }) } 'fold.begin', 'fold.end'),
	'staging.before_truncate' => undef, 'staging.after_truncate' => undef,
	'worker-attach' => sub { kill_reader('TERM') },
	'manager-pass' => sub { kill_reader('TERM') },
	'replay.processed' => sub { try_sql($node, "SELECT stream_engine.retry_dead_letters('s')") },
	(map { ($_ => \&split_off) } 'split.step', 'merge.follow', 'merge.before_lock', 'merge.after_lock', 'merge.step',
		'merge.before_commit'),
	# These come when there is much to move.
	(map { ($_ => sub { feed_job($node, seconds => 10, per_second => 1000, keys => 10_000) }) }
		'segment.before_truncate', 'segment.before_commit', 'segment.before_move_commit'));
# Keys that are long, so that the state log is as large as these need, and a window that takes many
# commits.
$node->safe_psql('postgres', q(
	SELECT stream_engine.create_query('wide', $$
		SELECT repeat(md5(k::text), 20) AS id, count(*) AS n FROM s GROUP BY tumble(ts, '20 seconds'), repeat(md5(k::text), 20) $$);
	SELECT stream_engine.create_query('daily', $$ SELECT k % 300 AS k, count(*) AS n FROM s GROUP BY tumble(ts, '1 day'), k % 300 $$)));

sub kill_reader
{
	my ($signal) = @_;
	my ($rc, $pids) = try_sql($node, "SELECT pid FROM stream_engine.stat_workers WHERE kind = 'reader' AND pid IS NOT NULL");
	kill($signal, split /\n/, $pids) if $rc == 0 && $pids;
	return;
}

sub answers
{
	return try_sql($node, 'SELECT 1') == 0;
}

sub set_failpoints
{
	my ($value) = @_;
	$node->append_conf('postgresql.conf', "stream_engine.failpoints = '$value'");
	$node->reload;
	return;
}

# kill_at(PLACE, ACTION): false when nobody has come there.
sub kill_at
{
	my ($place, $action) = @_;
	my $position = log_position($node);
	my $reached  = qr/failpoint "\Q$place\E" reached/;
	my $met      = 0;
	my $looks    = 0;
	my $end      = time + 20;

	set_failpoints("$place=$action\@1");
	until ($met || time > $end)
	{
		if ($looks++ % 10 == 0)
		{
			$places{$place}->() if $places{$place};
			feed_job($node, per_second => 30, keys => 300) if log_since($node, $position) !~ $reached;
		}
		select(undef, undef, undef, 0.05);
		$met = log_since($node, $position) =~ $reached;
	}
	# Without a postmaster nobody would take note of it.
	$node->append_conf('postgresql.conf', "stream_engine.failpoints = ''");
	if ($met && $action eq 'postmaster') { kill9_server($node) }
	else { $node->reload }
	wait_until($node, \&answers, 'the server is back');
	return $met;
}

my $kills = 0;
my %never = map { $_ => 1 } keys %places;
my $rounds = long_run() ? 18 : 1;
foreach my $round (1 .. $rounds)
{
	my $number = 0;
	foreach my $place (shuffle(sort keys %places))
	{
		my $met = kill_at($place, rand() < 0.5 ? 'kill' : 'postmaster');
		note("$place: not reached") if !$met;
		$kills++ if $met;
		delete $never{$place} if $met;
		try_sql($node, "SELECT stream_engine.resume('tumbling')");
		is_exact($node, "round $round, kills until $place") if ++$number % 14 == 0;
	}
	is_exact($node, "round $round");
	is($node->safe_psql('postgres', "SELECT * FROM stream_engine.verify('wide') LIMIT 1"), '', "round $round: long keys");
	is($node->safe_psql('postgres', 'SELECT sum(n) FROM daily_live'), $node->safe_psql('postgres', "SELECT count(*) FROM s WHERE ts >= '2025-01-01 00:00Z'"),
		"round $round: a long window");
}
note("kills: $kills");
is(join(' ', sort keys %never), '', 'each place was met');

$node->safe_psql('postgres', "SELECT stream_engine.drop_stream('s', true)");
wait_for_processes($node, 0, '%reader%');
is($node->safe_psql('postgres', 'SELECT total = free FROM stream_engine.state_memory()'), 't', 'no shared memory is lost');
unlike(log_since($node, 0), qr/PANIC|TRAP|signal (?:6|7|8|11):/, 'no assertion failed');
$node->stop('fast');
done_testing();
