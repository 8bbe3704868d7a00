
# A worker fails at each place of its commit, by an error, by leaving and by
# SIGKILL, while orders come: nothing is lost, nothing counted twice.  A worker that
# fails in the same way again and again is stopped, with the reason, and goes on when
# it is resumed.

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
stream_engine.max_failures = 20
));
if ($node->psql('postgres', 'SHOW stream_engine.failpoints') != 0)
{
	$node->stop('immediate');
	plan(skip_all => 'built without failpoints');
}

# Each place that is passed in a tumbling query's life.
my @points = qw(
  commit.before_fence commit.after_fence commit.after_side emit.begin emit.end
  commit.before_chunks commit.after_chunks commit.after_offsets
  commit.before_commit commit.after_commit fold.begin fold.end
);
my %log = (
	error => sub { qr/failpoint "\Q$_[0]\E" reached/ },
	exit  => sub { qr/stream_engine reader.* \(PID \d+\) exited with exit code 1/ },
	kill  => sub { qr/was terminated by signal 9.*database system is ready to accept connections/s });

my $partitions = 2;
my $chunk      = 3_000;
my $broker     = broker();
my $topic      = $broker->topic_name('orders');
my $dir        = PostgreSQL::Test::Utils::tempdir('orders');
my @files;

$broker->topic($topic, $partitions);
create_server($node, $broker);
create_orders($node, 'orders', $topic, "idle_timeout => '1 hour', staging_retention => '0'");
create_sales($node, 'sales', 'orders');
# Its window stays open, with as many rows as come in a commit to be folded.
$node->safe_psql('postgres', q(
	SELECT stream_engine.create_query('visits', $$
		SELECT user_id, count(*) AS orders, sum(amount) AS total FROM orders
		GROUP BY tumble(event_time, '1 day'), user_id $$)));

sub more_orders
{
	my (@more) = @_;
	my $i = @files;

	push @files, "$dir/$i.tsv";
	make_orders($files[-1], '--brokers', $broker->bootstrap, '--topic', $topic,
		'--partitions', $partitions, '--first', $i * $chunk, '--count', $chunk, '--seed', $i,
		'--rate', 100, '--users', 500, '--late', 0.01, '--late-by', 30, '--bad', 0.005, @more);
	return;
}

# Sets failpoints, none without an argument; also while the server recovers.
sub set_failpoints
{
	my ($value) = @_;
	$node->append_conf('postgresql.conf', "stream_engine.failpoints = '" . ($value // '') . "'");
	$node->reload;
	return;
}

# Orders until the log tells of the failure: those of one call may all be taken by
# one commit, before the worker gets to the passing that is meant.
sub fail_once
{
	my ($regexp, $position) = @_;

	until (log_since($node, $position) =~ $regexp)
	{
		more_orders();
		wait_until($node, sub { log_since($node, $position) =~ $regexp || all_committed() },
			'the worker has failed, or has committed all');
	}
	return;
}

sub all_committed
{
	my $end = 0;
	$end += $_->[1] foreach @{ $broker->offsets($topic) };
	# The server may be recovering.
	my $committed = eval {
		$node->safe_psql('postgres',
			'SELECT min(o) FROM (SELECT sum(next_offset) AS o FROM stream_engine.reader_partition GROUP BY reader) r');
	};
	return defined $committed && $committed eq $end;
}

sub committed
{
	return $node->safe_psql('postgres',
		'SELECT COALESCE(min(o), 0) FROM (SELECT sum(next_offset) AS o FROM stream_engine.reader_partition GROUP BY reader) r');
}

more_orders();
wait_for_all($node, 'sales');

foreach my $point (@points)
{
	foreach my $action (qw(error exit kill))
	{
		my $position = log_position($node);
		# At the second passing, so that a new process gets somewhere before it.
		set_failpoints("$point=$action" . ($point =~ /^commit/ ? '@2' : ''));
		fail_once($log{$action}->($point), $position);
		set_failpoints();
		wait_for($node, "SELECT count(*) > 0 AND bool_and(pid IS NOT NULL) FROM stream_engine.stat_workers WHERE kind = 'reader'");
		wait_for_all($node, $_) foreach qw(sales visits);
		pass("$point=$action");
	}
}
note('kills: ' . @points);

# ---------------------------------------------------------------------------
# The same failure for ever
# ---------------------------------------------------------------------------

$node->append_conf('postgresql.conf', 'stream_engine.max_failures = 3');
set_failpoints('commit.before_commit=error');
my $stands_at = committed();
more_orders();
wait_for($node, "SELECT bool_and(state = 'error') FROM stream_engine.queries");
is( $node->safe_psql('postgres', "SELECT DISTINCT error_sqlstate, error FROM stream_engine.queries"),
	'XX000|failpoint "commit.before_commit" reached', 'a worker that fails in the same way is stopped, and the reason is shown');
is(committed(), $stands_at, 'none of its failures has left anything behind');
my ($rc, $out, $err) = $node->psql('postgres', "CALL stream_engine.wait('sales', '1 minute')");
like($err, qr/sales does not go on: failpoint/, 'wait() does not wait for it');
is($node->safe_psql('postgres', "SELECT count(*) FROM stream_engine.why('sales') WHERE finding LIKE '%state error%'"), '1', 'why() says so');
set_failpoints();
$node->safe_psql('postgres', 'SELECT stream_engine.resume(name) FROM stream_engine.queries');
wait_for_all($node, $_) foreach qw(sales visits);

# No memory passes by itself: tried again until there is some, never stopped.
my $position = log_position($node);
set_failpoints('commit.after_fence=oom');
more_orders();
wait_for_log($node, qr/(?:ERROR:  out of memory.*){7}/s, $position);
is($node->safe_psql('postgres', 'SELECT DISTINCT state FROM stream_engine.queries'), 'running', 'a lack of memory stops no query');
set_failpoints();

more_orders('--end-marker', 60);
wait_for_all($node, $_) foreach qw(sales visits);
is_computed($node, 'sales', \@files);
foreach my $query (qw(sales visits))
{
	is_accounted($node, $query);
	is_verified($node, $query);
}
is( $node->safe_psql('postgres', q(
		SET client_min_messages = error;
		SELECT count(*) FROM (SELECT * FROM visits_live WHERE NOT is_final) o
		FULL JOIN (SELECT * FROM visits_batch WHERE window_start >= '2025-01-01') b USING (window_start, user_id)
		WHERE (o.orders, o.total) IS DISTINCT FROM (b.orders, b.total))),
	'0', 'the open window is what a batch over the topic gives');

leaves_nothing($node);
done_testing();
