
# On a real topic of several partitions, without late records, the batch of a query gives row for
# row what the query has written: for tumble, hop and cumulate, in a zone, too, for aggregates of each
# kind over each type that an order has, with and without FILTER and HAVING, across a kill.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Orders;
use StreamEngine::Test;

my $broker = broker();
my $topic  = $broker->topic_name('orders');
my $node   = new_node('main', conf => "stream_engine.commit_interval = 200ms\nstream_engine.retry_interval = 100ms");
my $dir    = PostgreSQL::Test::Utils::tempdir('orders');
my @to     = ('--brokers', $broker->bootstrap, '--topic', $topic, '--partitions', 4, '--rate', 20, '--disorder', 8);

$broker->topic($topic, 4);
create_server($node, $broker);
$node->safe_psql('postgres', qq(
	SELECT stream_engine.create_stream('orders', server => 'kafka', topic => '$topic',
		columns => \$\$ order_id bigint, user_id int PATH '\$.user.id', category text, amount numeric(12,2),
			as_float double precision PATH '\$.amount', as_real real PATH '\$.amount', as_money money PATH '\$.amount',
			small smallint DEFAULT 7, event_time timestamptz PATH '\$.ts', day date PATH '\$.ts', local timestamp PATH '\$.ts' \$\$,
		event_time => 'event_time', watermark_delay => '10 seconds', idle_timeout => '1 hour', staging_retention => '0')));

# Float sums depend on the order of additions; all else is compared to the last character.
my @aggregates = (
	'count(*)', 'count(amount)', 'sum(amount)', 'avg(amount)', 'min(amount)', 'max(amount)', 'variance(amount)', 'stddev_pop(amount)',
	'sum(order_id)', 'avg(order_id)', 'min(order_id)', 'max(order_id)', 'var_samp(order_id)', 'bit_and(order_id)', 'bit_or(order_id)', 'bit_xor(order_id)',
	'sum(user_id)', 'avg(user_id)', 'stddev(user_id)', 'max(user_id)', 'sum(small)', 'avg(small)', 'min(small)',
	'min(as_float)', 'max(as_real)', 'sum(as_money)', 'min(as_money)',
	'min(category)', 'max(category || user_id)', 'bool_and(amount > 1)', 'bool_or(amount > 400)', 'every(user_id >= 0)',
	'max(event_time)', 'min(event_time)', 'max(day)', 'max(local)', 'max(_offset)', 'min(_partition)',
	'range_intersect_agg(int4range(0, user_id + 1))', 'sum(amount) / count(*)', 'max(amount) - min(amount)', 'round(avg(amount), 2)',
	'sum(amount) FILTER (WHERE user_id % 2 = 0)', q(count(*) FILTER (WHERE category = 'books')), 'avg(order_id) FILTER (WHERE amount > 250)',
	'max(category) FILTER (WHERE false)');
my @floats = ('sum(as_float)', 'avg(as_float)', 'stddev(as_float)', 'corr(as_float, user_id)', 'regr_slope(as_float, as_real)', 'covar_pop(as_real, user_id)');
# A real sum keeps fewer digits: verify() compares it.
my @reals = ('sum(as_real)');
my %queries = (
	tumbling       => [ q(tumble(event_time, '30 seconds')), 'category', '' ],
	tumbling_all   => [ q(tumble(event_time, '1 minute')), undef, '' ],
	hopping        => [ q(hop(event_time, '1 minute', every => '20 seconds')), 'category', '' ],
	hopping_uneven => [ q(hop(event_time, '50 seconds', every => '35 seconds')), 'category, user_id % 3', 'HAVING count(*) > 3 AND sum(amount) > 100' ],
	growing        => [ q(cumulate(event_time, '4 minutes', step => '30 seconds')), 'category', '' ],
	growing_zone   => [ q(cumulate(event_time, '1 hour', step => '10 minutes', time_zone => 'Asia/Kathmandu')), '_partition', '' ],
	monthly        => [ q(hop(event_time, '3 months', every => '1 month', time_zone => 'America/New_York')), 'category', '' ],
	filtered       => [ q(tumble(event_time, '1 minute', origin => '2025-01-01 00:00:07+00')), 'user_id % 10', '', 'WHERE amount > 100 AND category IS NOT NULL' ]);

foreach my $query (sort keys %queries)
{
	my ($window, $keys, $having, $where) = @{ $queries{$query} };
	my @keys = $keys ? split(/, /, $keys) : ();
	my $n = 0;
	my $select = join(', ', (map { "$keys[$_] AS k$_" } 0 .. $#keys), map { "$_ AS a" . $n++ } @aggregates, @floats, @reals);
	my $group = join(', ', $window, @keys);
	$where //= '';
	$node->safe_psql('postgres', "SELECT stream_engine.create_query('$query', \$select\$ SELECT $select FROM orders $where GROUP BY $group $having \$select\$)");
}

make_orders("$dir/1.tsv", '--count', 6000, '--seed', 1, @to);
wait_for_all($node, $_) foreach sort keys %queries;
kill9_worker($node, 'stream_engine reader%');
make_orders("$dir/2.tsv", '--first', 6000, '--count', 6000, '--seed', 2, '--end-marker', 60, @to);
wait_for_all($node, $_) foreach sort keys %queries;
is($node->safe_psql('postgres', 'SELECT sum(late), bool_and(decoded = counted + filtered), min(decoded) FROM stream_engine.stat_queries'), '0|t|12004', 'all is counted, and nothing came late');
# all windows close, also those of months
$node->safe_psql('postgres', "SELECT stream_engine.advance_watermark('orders', '2025-06-01+00')");
wait_for($node, "SELECT min(watermark) = '2025-06-01+00' FROM stream_engine.stat_queries");

foreach my $query (sort keys %queries)
{
	my ($window, $keys) = @{ $queries{$query} };
	my @columns = ('window_start', 'window_end', map { "k$_" } 0 .. ($keys ? scalar(split /, /, $keys) - 1 : -1));
	my $exact  = join(', ', @columns, map { "a${_}::text" } 0 .. $#aggregates);
	my $nearly = join(', ', @columns, map { "a${_}::real::text" } scalar(@aggregates) .. $#aggregates + @floats);
	foreach my $kind ([ 'exactly', $exact ], [ 'but for the last digits of floats', $nearly ])
	{
		is($node->safe_psql('postgres', qq(
			CREATE TEMP TABLE batch AS TABLE ${query}_batch;
			SELECT (SELECT count(*) FROM batch) > 0,
				(SELECT count(*) FROM (SELECT $kind->[1] FROM batch EXCEPT ALL SELECT $kind->[1] FROM $query WHERE is_final) d),
				(SELECT count(*) FROM (SELECT $kind->[1] FROM $query WHERE is_final EXCEPT ALL SELECT $kind->[1] FROM batch) d))),
			't|0|0', "$query: the batch is the result, $kind->[0]");
	}
	is_accounted($node, $query);
	is_verified($node, $query);
}

$node->stop('fast');
done_testing();
