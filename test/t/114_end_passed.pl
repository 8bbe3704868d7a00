
# A partition is not idle when the end that was told lies in front of records that have come
# since: its broker fails while more of them are under way, and none of them is late.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

my $node = new_node('main');
my $mock = mockd('-n', 2);
my $bootstrap = $mock->bootstrap;
my $many = 400;

# How often the thread that talks to the first broker has waited: at least once for each answer.
sub waits_of
{
	my ($pid) = @_;

	foreach my $task (glob "/proc/$pid/task/*")
	{
		next unless (eval { slurp_file("$task/comm") } // '') =~ /^rdk:broker1$/;
		return $1 if (eval { slurp_file("$task/status") } // '') =~ /^voluntary_ctxt_switches:\s*(\d+)$/m;
	}
	return 0;
}

sub wait_for_answers
{
	my ($pid, $times) = @_;
	my $before = waits_of($pid);

	wait_until($node, sub { waits_of($pid) > $before + $times }, 'the broker has answered often');
	return;
}

sub wait_for_partition
{
	my ($partition, $condition) = @_;

	wait_for($node, "SELECT bool_and($condition) FROM stream_engine.stat_partitions WHERE partition = $partition");
	return;
}

$mock->create('events', 3);
$mock->leader('events', @$_) foreach ([ 0, 1 ], [ 1, 2 ], [ 2, 2 ]);
$node->safe_psql('postgres', qq(
	CREATE SERVER mock FOREIGN DATA WRAPPER stream_engine_kafka
		OPTIONS (bootstrap_servers '$bootstrap', fetch_wait_max_ms '10');
	SELECT stream_engine.create_stream('events', server => 'mock', topic => 'events', idle_timeout => '1 s',
		columns => 'ts timestamptz', event_time => 'ts', watermark_delay => '0 s', staging_retention => '0');
	SELECT stream_engine.create_query('counts',
		'SELECT count(*) AS n FROM events GROUP BY tumble(ts, ''1 minute'')')));
$mock->produce('events', $_, '{"ts": "2026-01-05T00:00:00Z"}') foreach (0 .. 2);
wait_for($node, q(SELECT counted = 3 FROM stream_engine.stat_queries));

# While the worker waits in its commit, its client puts into its queue a record, the end behind
# it, and then a part of what has come by then.
my ($worker) = engine_processes($node, 'stream_engine reader%');
my $pid = $worker->[0];
my $blocker = $node->background_psql('postgres');

plan skip_all => 'this kernel does not tell when threads wait' unless waits_of($pid) > 0;
$blocker->query_safe(q(BEGIN; LOCK TABLE stream_engine.reader IN EXCLUSIVE MODE));
$mock->produce('events', 0, '{"ts": "2026-01-05T00:00:10Z"}');
wait_for($node, qq(SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $pid));
$mock->produce('events', 0, '{"ts": "2026-01-05T00:01:10Z"}');
wait_for_answers($pid, 40);
kill 'STOP', $pid;
$mock->produce('events', 0, map { '{"ts": "2026-01-05T00:02:10Z"}' } 1 .. $many);
$mock->rtt(20, 1);
kill 'CONT', $pid;
wait_for_answers($pid, 40);
$mock->down(1);
$blocker->query_safe('COMMIT');
$blocker->quit;
wait_for_partition(0, 'next_offset > 3');

# Partition 2 has been quiet for a shorter time, and is idle.
$mock->produce('events', 2, '{"ts": "2026-01-05T00:02:10Z"}');
wait_for_partition(2, 'next_offset = 2 AND idle');
$mock->produce('events', 1, '{"ts": "2026-01-05T01:00:00Z"}');
wait_for_partition(1, 'next_offset = 2');
cmp_ok($node->safe_psql('postgres', 'SELECT max(next_offset) FROM stream_engine.stat_partitions WHERE partition = 0'), '<', $many,
	'not all has been read');
is($node->safe_psql('postgres', 'SELECT bool_or(idle) FROM stream_engine.stat_partitions WHERE partition = 0'), 'f',
	'the partition is not idle');
$mock->rtt(0, 1);
$mock->up(1);
wait_for($node, qq(SELECT decoded = $many + 7 FROM stream_engine.stat_queries));
is($node->safe_psql('postgres', 'SELECT counted, late FROM stream_engine.stat_queries'), ($many + 7) . '|0',
	'and nothing is late when its broker is back');
$node->stop;
done_testing();
