
# While orders are produced and consumed, processes of the engine and the whole
# server are killed with SIGKILL at random moments.  In the end no result row, late
# record, dead letter or counter differs from what it had been without.  SE_SEED
# repeats the choices of a run; the moments are the machine's.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use StreamEngine::Orders;
use StreamEngine::Test;

my $kills = long_run() ? 100 : 14;
my $seed  = $ENV{SE_SEED} || int(time * 1000) % 1_000_000_007;
srand($seed);
note("SE_SEED=$seed");

my $partitions = 3;
my $chunk      = 20_000;
my $broker     = broker();
my $topic      = $broker->topic_name('orders');
my $dir        = PostgreSQL::Test::Utils::tempdir('orders');
my $node       = new_node('main', conf => q(
stream_engine.commit_interval = 20ms
stream_engine.retry_interval = 50ms
));
my $position = log_position($node);

$broker->topic($topic, $partitions);
create_server($node, $broker);
# Nobody becomes idle while the server is down.
create_orders($node, 'orders', $topic, "idle_timeout => '1 hour'");
create_sales($node, 'sales', 'orders');
# A second query and reader, with another window and a filter.
$node->safe_psql('postgres', q(
	SELECT stream_engine.create_query('clicks', $$
		SELECT user_id % 100 AS shard, count(*) AS orders, max(amount) AS high
		FROM orders WHERE category <> 'books'
		GROUP BY tumble(event_time, '7 seconds'), user_id % 100 $$)));

# Chunk after chunk of orders; during each something is killed.
my @files;
my %killed;
for my $i (1 .. $kills)
{
	push @files, "$dir/$i.tsv";
	my $orders = start_orders($files[-1],
		'--brokers', $broker->bootstrap, '--topic', $topic, '--partitions', $partitions,
		'--first', ($i - 1) * $chunk, '--count', $chunk, '--seed', $seed + $i,
		'--throttle', $chunk, '--late', 0.01, '--late-by', 30, '--bad', 0.005,
		'--future', 0.001, '--tombstones', 0.002,
		$i == $kills ? ('--end-marker', 60) : ());

	# Somewhere on the way through what the chunk brings.
	my $more = int(rand(2 * $chunk));
	my $from = records();
	wait_for($node, "SELECT @{[records_sql()]} >= least($from + $more, (SELECT sum(high_offset) FROM stream_engine.reader_partition WHERE high_offset > 0) - @{[int(rand(1000))]})");

	my $victim = (qw(reader reader reader server server manager launcher))[ int(rand(7)) ];
	$killed{$victim}++;
	if ($victim eq 'server')
	{
		kill9_server($node);
	}
	else
	{
		wait_for($node, "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type LIKE 'stream_engine $victim%'");
		kill9_worker($node, "stream_engine $victim%");
	}
	finish_orders($orders);
}
note("kills: $kills");
note('killed: ' . join(', ', map { "$_ $killed{$_}" } sort keys %killed));
wait_for_all($node, $_) foreach qw(sales clicks);

is_computed($node, 'sales', \@files);
foreach my $query (qw(sales clicks))
{
	is_accounted($node, $query);
	is_verified($node, $query);
}
is( $node->safe_psql('postgres', q(SELECT count(*), count(DISTINCT (window_start, category)), min(revision), max(revision), bool_and(is_final) FROM sales)) =~
	  /^(\d+)\|\1\|0\|0\|t$/ ? 'once' : 'not once',
	'once', 'each row was emitted once');
is( $node->safe_psql('postgres', "SELECT name, state, error FROM stream_engine.queries WHERE state <> 'running'"),
	'', 'both queries are running');

my @errors =
  grep { /PANIC|TRAP|ERROR|signal (?!9:)/ && !/the database system is|terminating connection/ }
  split /\n/, log_since($node, $position);
is("@errors", '', 'the log has no crash but those that were made');

leaves_nothing($node);
done_testing();

sub records_sql
{
	return '(SELECT COALESCE(sum(records + gaps), 0) FROM stream_engine.reader_partition)';
}

sub records
{
	return $node->safe_psql('postgres', 'SELECT ' . records_sql());
}
