
# Rule: the memory of a worker is flat.  Over two million records and 500 commits (50 million and
# 10,000 in the long form) of all kinds of queries with late and bad records neither what the process
# has nor what its memory contexts hold grows, but for what the first part needed.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Orders;
use StreamEngine::Test;

plan(skip_all => 'no /proc') if !-e '/proc/self/status';

my ($total, $commits) = long_run() ? (50_000_000, 10_000) : (2_000_000, 500);
my $steps      = 20;
my $chunk      = $total / $steps;
my $partitions = 4;
my $broker     = broker();
my $topic      = $broker->topic_name('flat');
my $dir        = PostgreSQL::Test::Utils::tempdir('orders');
my $node       = new_node('main', conf => q(
stream_engine.commit_interval = 5ms
stream_engine.state_log_rate = '1GB'
max_wal_size = 1GB
));

$broker->topic($topic, $partitions);
create_server($node, $broker, "queued_min_messages '20000'");
create_orders($node, 'orders', $topic, "idle_timeout => '1 hour', staging_retention => '5 seconds'");
$node->safe_psql('postgres', q(
	SELECT stream_engine.create_query('by_category', $$
		SELECT category, sum(amount) AS total, count(*) AS n FROM orders GROUP BY tumble(event_time, '10 seconds'), category $$);
	SELECT stream_engine.create_query('hops', $$
		SELECT user_id % 100 AS shard, max(amount) AS high FROM orders WHERE amount > 1
		GROUP BY hop(event_time, '20 seconds', every => '5 seconds'), user_id % 100 $$);
	SELECT stream_engine.create_query('sessions', $$
		SELECT user_id % 1000 AS visitor, count(*) AS n FROM orders GROUP BY session(event_time, '2 seconds'), user_id % 1000 $$);
	SELECT stream_engine.create_query('totals', $$
		SELECT category, count(*) AS n FROM orders GROUP BY category $$, trigger_interval => '5 seconds');
	SELECT stream_engine.create_query('changes', $$
		SELECT category, min(amount) AS low, avg(amount) AS mean FROM orders GROUP BY tumble(event_time, '10 seconds'), category $$,
		emit => 'changes', emit_interval => '50 ms', allowed_lateness => '20 seconds')));
my @queries = qw(by_category hops sessions totals changes);

# Process ids and commits of the readers.  Once caught up there is one.
my $readers = "SELECT w.pid, r.seq FROM stream_engine.stat_workers w JOIN stream_engine.reader r ON r.id = w.reader WHERE w.kind = 'reader' AND w.pid IS NOT NULL";

sub feed
{
	my ($step) = @_;
	# Made at so many a second that commits are as many as they should be.
	make_orders("$dir/orders.tsv", '--brokers', $broker->bootstrap, '--topic', $topic, '--partitions', $partitions,
		'--first', $step * $chunk, '--count', $chunk, '--seed', $step + 1, '--rate', 2000, '--users', 20_000,
		'--late', 0.002, '--late-by', 60, '--bad', 0.001, '--throttle', 60_000);
	unlink "$dir/orders.tsv";
	return;
}

# What a process has of its own, and what its memory contexts hold, in kB.
sub memory
{
	my ($pid) = @_;
	my $position = log_position($node);
	my ($own) = slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m;
	my $contexts;

	$node->safe_psql('postgres', "SELECT pg_log_backend_memory_contexts($pid)");
	wait_for_log($node, qr/\[$pid\].*Grand total: \d+ bytes/, $position);
	($contexts) = log_since($node, $position) =~ /\[$pid\].*Grand total: \d+ bytes in \d+ blocks; \d+ free \(\d+ chunks\); (\d+) used/;
	return ($own, $contexts / 1024);
}

my (@own, @contexts, $pid, $begun);
for my $step (0 .. $steps - 1)
{
	feed($step);
	wait_for_all($node, $_) foreach @queries;
	if ($step == 0)
	{
		wait_for($node, "SELECT count(*) = 1 FROM ($readers) r");
		($pid, $begun) = split /\|/, $node->safe_psql('postgres', $readers);
	}
	next if $step < 4;
	my ($own, $contexts) = memory($pid);
	push @own, $own;
	push @contexts, $contexts;
	note(sprintf('%d records: %.1f MB, of which contexts use %.1f MB', ($step + 1) * $chunk, $own / 1024, $contexts / 1024));
}
my ($same, $seq) = split /\|/, $node->safe_psql('postgres', $readers);
is($same, $pid, 'the worker is the one that has begun');
cmp_ok($seq - $begun, '>=', $commits, 'it has committed so often');
is($node->safe_psql('postgres', 'SELECT sum(next_offset) FROM stream_engine.stat_partitions WHERE query = \'totals\'::regclass'), $total, 'and read so many records');

# A leak of 16 bytes a record, or of 64 kB a commit, would be 32 MB.  Between the first and the last
# quarter of what was measured some MB may lie, as buffers are larger or smaller.  One step is left
# out: a worker that gets no processor for a while finds more waiting than ever before.
sub least
{
	my @sorted = sort { $a <=> $b } @_;
	return $sorted[0];
}

my $quarter = @own / 4;
my $step = (sort { $a <=> $b } map { $own[$_] - $own[ $_ - 1 ] } 1 .. $#own)[-1];
my $grown = least(@own[ -$quarter .. -1 ]) - least(@own[ 0 .. $quarter - 1 ]) - $step;
cmp_ok($grown, '<', 12 * 1024, "the process has not grown ($grown kB)");
$grown = int(least(@contexts[ -$quarter .. -1 ]) - least(@contexts[ 0 .. $quarter - 1 ]));
cmp_ok($grown, '<', 2 * 1024, "its memory contexts have not grown ($grown kB)");
is($node->safe_psql('postgres', "SELECT count(*) FROM stream_engine.queries WHERE state <> 'running'"), '0', 'all queries run');

$node->stop('fast');
done_testing();
