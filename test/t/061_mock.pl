
# What a real broker does seldom, a mock cluster of two brokers does on command: a
# query reads on through errors of requests, slow answers, a leader that moves and
# brokers that go down and come back, and no record is lost or counted twice.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

my $node = new_node('main', conf => q(
stream_engine.commit_interval = 50ms
stream_engine.retry_interval = 100ms
));
my $mock = mockd('-n', 2);
my $bootstrap = $mock->bootstrap;
my $number = 0;

# 20 records in each of two partitions; numbers are their values.
sub produce
{
	foreach my $partition (0, 1)
	{
		my @records = map { sprintf '{"v": %d, "ts": "2026-01-05T00:%02d:%02dZ"}', $number + $_,
			int(($number + $_) / 60) % 60, ($number + $_) % 60 } 1 .. 20;
		$mock->produce('events', $partition, @records);
		$number += 20;
	}
	return;
}

# All that was produced is counted, once.
sub all_counted
{
	my ($name) = @_;

	wait_for($node, qq(SELECT counted = $number FROM stream_engine.stat_queries));
	is($node->safe_psql('postgres', 'SELECT sum(n), sum(total) FROM per_minute_live'),
		join('|', $number, $number * ($number + 1) / 2), "$name: each record once");
	return;
}

$mock->create('events', 2);
$node->safe_psql('postgres', qq(
	CREATE SERVER mock FOREIGN DATA WRAPPER stream_engine_kafka
		OPTIONS (bootstrap_servers '$bootstrap', fetch_wait_max_ms '10');
	SELECT stream_engine.create_stream('events', server => 'mock', topic => 'events',
		columns => 'v int, ts timestamptz', event_time => 'ts', watermark_delay => '1 hour');
	SELECT stream_engine.create_query('per_minute',
		'SELECT count(*) AS n, sum(v) AS total FROM events GROUP BY tumble(ts, ''1 minute'')')));
produce();
all_counted('at rest');

# NOT_LEADER_FOR_PARTITION and REQUEST_TIMED_OUT in the next fetches
$mock->error(1, 6, 2);
$mock->error(1, 7, 1);
produce();
all_counted('after errors of fetch requests');

$mock->rtt(200);
produce();
all_counted('with slow answers');
$mock->rtt(0);

$mock->leader('events', $_, 2) foreach (0, 1);
produce();
all_counted('after a leader has moved');

$mock->leader('events', 0, 1);
$mock->down(1);
$mock->up(1);
produce();
all_counted('after a broker was down');

$mock->down($_) foreach (1, 2);
wait_for($node, q(SELECT count(*) > 0 FROM stream_engine.stat_workers WHERE message <> ''));
pass('no broker is left: the worker says so');
$mock->up($_) foreach (1, 2);
produce();
all_counted('after all brokers were down');

is($node->safe_psql('postgres', q(SELECT count(*) FROM stream_engine.stat_partitions
	WHERE records + gaps <> next_offset - start_offset
	OR records <> decoded + dead + future + tombstones + skipped)),
	'0', 'the positions account for all');
is($node->safe_psql('postgres', q(SELECT count(*) FROM stream_engine.verify('per_minute'))),
	'0', 'nothing to find for verify');

$mock->end;
done_testing();
