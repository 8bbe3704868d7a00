
# A tumbling query over a million orders in four partitions, out of order, some
# late, some bad, on a real broker: results, late records and dead letters are
# those of an independent computation, every record is accounted for, and reading
# the topic again gives the same results, wherever the query began.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Orders;
use StreamEngine::Test;

my $count      = 1_000_000;
my $partitions = 4;
my @trouble    = (
	'--late', 0.003, '--late-by', 60, '--bad', 0.002, '--future', 0.0005,
	'--tombstones', 0.0005);

my $broker = broker();
my $topic  = $broker->topic_name('orders');
my $node   = new_node('main');
my $dir    = PostgreSQL::Test::Utils::tempdir('orders');
my @to     = ('--brokers', $broker->bootstrap, '--topic', $topic, '--partitions', $partitions);

$broker->topic($topic, $partitions);
create_server($node, $broker);
create_orders($node, 'orders', $topic, "idle_timeout => '1 hour'");

# Half of the orders are there before the query, half come while it runs.
my $half = make_orders("$dir/1.tsv", '--count', $count / 2, '--seed', 1, @trouble, @to);
create_sales($node, 'sales', 'orders');
my $rest = make_orders("$dir/2.tsv", '--first', $count / 2, '--count', $count / 2,
	'--seed', 2, '--end-marker', 60, @trouble, @to);
wait_for_all($node, 'sales');

is($half->{records} + $rest->{records}, $count + $partitions, 'all orders were produced');
cmp_ok($half->{late} + $rest->{late}, '>', $count / 500, 'some were late');
cmp_ok($half->{bad} + $rest->{bad}, '>', $count / 1000, 'some were bad');
is_computed($node, 'sales', [ "$dir/1.tsv", "$dir/2.tsv" ]);
is_accounted($node, 'sales');
is_verified($node, 'sales');
is( $node->safe_psql(
		'postgres', 'SELECT sum(records), sum(lag) FROM stream_engine.stat_partitions WHERE query IS NOT NULL'),
	$count + $partitions . '|0', 'the query has read all records');
cmp_ok($node->safe_psql('postgres', 'SELECT late FROM stream_engine.stat_queries'),
	'>', 0, 'it found late ones');
is( $node->safe_psql(
		'postgres', q(SELECT count(*) FROM stream_engine.late_events WHERE NOT upper(windows[1]) <= watermark
		OR NOT event_time <@ windows[1] OR (record::jsonb ->> 'ts')::timestamptz <> event_time)),
	'0', 'a late record is kept with its window and the watermark that had passed it');
is( $node->safe_psql(
		'postgres', q(SELECT (SELECT sum(orders) FROM sales_live) = counted, (SELECT bool_or(NOT is_final) FROM sales_live)
		FROM stream_engine.stat_queries)),
	't|t', 'closed and open windows hold the orders that were counted');

# ---------------------------------------------------------------------------
# Scans of the topic
# ---------------------------------------------------------------------------

my $good =
  $node->safe_psql('postgres', 'SELECT sum(decoded + future) FROM stream_engine.stat_partitions WHERE query IS NOT NULL');
my ($out, $err);
($out, $err) = ('', '');
$node->psql('postgres', 'SELECT count(*) FROM orders', stdout => \$out, stderr => \$err);
is($out, $good, 'a scan of the stream shows the good records');
like($err, qr/^psql:.*WARNING: .*\b(\d+)\b/, 'and says in one warning that there were bad ones');
is(scalar(() = $err =~ /WARNING/g), 1, 'in one only');

my @narrow = (
	'_partition = 2 AND _offset >= 1000 AND _offset < 3000',
	'_partition IN (0, 3) AND _offset BETWEEN 200000 AND 200499',
	'_partition = 1 AND _offset = 77777',
	# Later records may carry earlier timestamps, so only the beginning is narrowed.
	q(_timestamp >= '2025-01-01 00:16:00+00' AND _timestamp < '2025-01-01 00:16:10+00'),
	'_offset < 100', '_partition = 17');
foreach my $condition (@narrow)
{
	# What the condition leaves of a scan of everything; the barrier keeps it out.
	my $expected = $node->safe_psql('postgres', qq(
		SET client_min_messages = error;
		WITH everything AS MATERIALIZED (SELECT _partition, _offset, _timestamp, order_id FROM orders)
		SELECT count(*), sum(order_id) FROM everything WHERE $condition));
	is( $node->safe_psql('postgres', "SET client_min_messages = error; SELECT count(*), sum(order_id) FROM orders WHERE $condition"),
		$expected, "the same rows where $condition");
	my $read = $node->safe_psql('postgres', qq(
		SET client_min_messages = error;
		EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT count(*) FROM orders WHERE $condition));
	$read =~ /Records Read: (\d+)/;
	cmp_ok($1, '<', $count / 10, 'and only a part of the topic is read');
}

# ---------------------------------------------------------------------------
# Other beginnings
# ---------------------------------------------------------------------------

my $before = $broker->offsets($topic);
my $middle = '2025-01-01 00:08:00+00';
create_sales($node, 'from_latest', 'orders', "start => 'latest'");
create_sales($node, 'from_time',   'orders', "start => '$middle'");
create_sales($node, 'from_offsets', 'orders', q(start => '{"0": 100000, "1": 150000, "3": 0}'));
# Nothing in the tail comes late, so that the results do not depend on who reads.
make_orders("$dir/3.tsv", '--first', $count + 100_000, '--count', 100_000, '--seed', 3,
	'--end-marker', 60, @to);
wait_for_all($node, $_) foreach qw(sales from_latest from_time from_offsets);

sub starts
{
	my ($query) = @_;
	return $node->safe_psql('postgres',
		"SELECT string_agg(start_offset::text, ' ' ORDER BY partition) FROM stream_engine.stat_partitions WHERE query = '$query'::regclass"
	);
}
is(starts('from_latest'), join(' ', map { $_->[1] } @$before), 'latest is the end of each partition');
is(starts('from_offsets'), '100000 150000 0 0', 'offsets are taken as given, others begin at the beginning');
is( starts('from_time'),
	$node->safe_psql('postgres', qq(
		SELECT string_agg(o::text, ' ' ORDER BY p) FROM (
			SELECT (r->>0)::int AS p, (r->>1)::bigint AS o
			FROM jsonb_array_elements('@{[first_offsets("$dir/1.tsv", '2025-01-01T00:08:00')]}') r) x)),
	'a time is the first record of that time in each partition');

foreach my $query (qw(from_latest from_time from_offsets))
{
	is_accounted($node, $query);
	is_verified($node, $query);
	cmp_ok($node->safe_psql('postgres', "SELECT count(*) FROM $query"), '>', 0, "$query has results");
}
is_computed($node, 'sales', [ map { "$dir/$_.tsv" } 1 .. 3 ]);

# A window is complete iff it starts no earlier than each partition's first event
# time and the delay.
my $first = $node->safe_psql('postgres', qq(
	SET client_min_messages = error;
	SELECT max(t) + interval '5 seconds' FROM (
		SELECT DISTINCT ON (_partition) event_time AS t FROM orders
		WHERE @{[join(' OR ', map { "_partition = $_ AND _offset >= $before->[$_][1]" } 0 .. 3)]}
		ORDER BY _partition, _offset) f));
is( $node->safe_psql('postgres', "SELECT min(window_start) >= '$first', min(window_start) - interval '10 seconds' < '$first' FROM from_latest"),
	't|t', 'the first window is the first complete one');
is( sales_rows($node, 'from_latest'),
	sales_rows($node, 'sales', "window_start >= '$first'"),
	'its windows are those of the query that began at the beginning');
is( $node->safe_psql('postgres', q(
		SELECT q.query, sum(p.records) FROM stream_engine.stat_queries q
		JOIN stream_engine.stat_partitions p USING (query)
		WHERE q.before_start = 0 AND q.windows_incomplete = 0 AND q.query <> 'sales'::regclass GROUP BY 1)),
	'', 'what was read before it is counted apart');

is(scalar(grep { /PANIC|TRAP|ERROR/ } split /\n/, log_since($node, 0)), 0, 'the log has no error');
$node->stop('fast');
done_testing();

# [[partition, offset], ...] as JSON: the first record of each partition whose
# Kafka timestamp is not before an ISO time, by the file of orders.
sub first_offsets
{
	my ($file, $time) = @_;
	my ($hour, $minute, $second) = $time =~ /T(\d+):(\d+):(\d+)/;
	# 2025-01-01 is day 20089.
	my $ms = (20089 * 86400 + $hour * 3600 + $minute * 60 + $second) * 1000;
	my (%next, %first);

	open(my $in, '<:raw', $file) or die "$file: $!";
	while (<$in>)
	{
		my ($partition, $timestamp) = split /\t/, $_, 3;
		my $offset = $next{$partition}++ // 0;
		$first{$partition} //= $offset if $timestamp >= $ms;
	}
	close($in);
	return '[' . join(',', map { "[$_,$first{$_}]" } sort keys %first) . ']';
}
