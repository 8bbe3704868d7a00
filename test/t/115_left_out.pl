
# What is left out of a fetch, because of a doubt about the log or behind a record that cannot be
# had, comes again: the end of its partition, told in the same fetch, does not pass over it.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Orders;
use StreamEngine::Test;

my $node = new_node('main', conf => q(
stream_engine.commit_interval = 20ms
stream_engine.retry_interval = 50ms
));
my $mock = mockd('-n', 1);
my $bootstrap = $mock->bootstrap;
my $blocker = $node->background_psql('postgres');
my $pid;

# How often the thread that talks to the broker has waited: at least once for each answer.  Another
# of its name has little to do.
sub waits_of
{
	my ($pid) = @_;
	my @waits = (0);

	foreach my $task (glob "/proc/$pid/task/*")
	{
		next unless (eval { slurp_file("$task/comm") } // '') =~ /^rdk:broker1$/;
		push @waits, $1 if (eval { slurp_file("$task/status") } // '') =~ /^voluntary_ctxt_switches:\s*(\d+)$/m;
	}
	return (sort { $b <=> $a } @waits)[0];
}

sub wait_for_answers
{
	my ($times) = @_;
	my $before = waits_of($pid);

	wait_until($node, sub { waits_of($pid) > $before + $times }, 'the broker has answered often');
	return;
}

sub records
{
	my (@seconds) = @_;
	return map { sprintf '{"ts": "2026-01-05T00:00:%02dZ"}', $_ } @seconds;
}

# The worker waits in the commit of one more record of partition 0, while its client goes on.
sub hold
{
	my ($topic, $second) = @_;

	$blocker->query_safe(q(BEGIN; LOCK TABLE stream_engine.reader IN EXCLUSIVE MODE));
	$mock->produce($topic, 0, records($second));
	wait_for($node, qq(SELECT count(*) > 0 FROM pg_locks WHERE pid = $pid AND NOT granted));
	return;
}

sub let_go
{
	$blocker->query_safe('COMMIT');
	return;
}

sub create
{
	my ($name, $partitions, $include) = @_;

	$mock->create($name, $partitions);
	$node->safe_psql('postgres', qq(
		SELECT stream_engine.create_stream('$name', server => 'mock', topic => '$name', idle_timeout => '1 hour',
			columns => 'ts timestamptz', event_time => 'ts', watermark_delay => '1 minute', staging_retention => '0', include => '$include');
		SELECT stream_engine.create_query('${name}_q',
			'SELECT count(*) AS n FROM $name GROUP BY tumble(ts, ''1 minute'')')));
	$mock->produce($name, 0, records(1));
	wait_for($node, qq(SELECT counted = 1 FROM stream_engine.stat_queries WHERE query = '${name}_q'::regclass));
	my ($worker) = engine_processes($node, 'stream_engine reader%');
	$pid = $worker->[0];
	return;
}

sub positions
{
	my ($name) = @_;
	return $node->safe_psql('postgres', qq(
		SELECT string_agg(next_offset || ' ' || records || ' ' || gaps, ', ' ORDER BY partition)
		FROM stream_engine.stat_partitions WHERE query = '${name}_q'::regclass));
}

$node->safe_psql('postgres', qq(
	CREATE SERVER mock FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (bootstrap_servers '$bootstrap', fetch_wait_max_ms '10')));
create('events', 2, '{}');
plan skip_all => 'this kernel does not tell when threads wait' unless waits_of($pid) > 0;

# The first records of a partition, its end, and a leader that is one no more: NOT_LEADER_FOR_PARTITION.
hold('events', 2);
$mock->produce('events', 1, records(1 .. 5));
wait_for_answers(20);
$mock->error(1, 6, 1);
wait_for_answers(20);
let_go();
wait_for($node, q(SELECT bool_and(next_offset = 5) FROM stream_engine.stat_partitions WHERE partition = 1));
is(positions('events'), '2 2 0, 5 5 0', 'records that come with a doubt about the log are read');
is_accounted($node, 'events_q');
$node->safe_psql('postgres', q(SELECT stream_engine.drop_stream('events', true)));
wait_for_processes($node, 0, '%reader%');

# A record that cannot be fetched (CORRUPT_MESSAGE), those behind it and the end, where records are
# fetched with their headers.
create('torn', 1, '{headers}');
hold('torn', 2);
$mock->error(1, 2, 1);
wait_for_answers(20);
$mock->produce('torn', 0, records(3 .. 5));
wait_for_answers(20);
let_go();
wait_for($node, q(SELECT problem LIKE 'the record at offset 2 of partition 0 cannot be fetched:%' FROM stream_engine.stat_partitions));
is(positions('torn'), '2 2 0', 'a partition stops in front of what cannot be had');
$node->safe_psql('postgres', q(SELECT stream_engine.resume('torn')));
wait_for($node, q(SELECT counted = 5 FROM stream_engine.stat_queries));
is(positions('torn'), '5 5 0', 'and what is behind it is read');
is_accounted($node, 'torn_q');

$blocker->quit;
leaves_nothing($node);
$node->stop;
done_testing();
