
# Queries of a stream share a reader: one that begins where the reader stands joins
# it, one that has caught up is merged into it, one that is paused or fails is split
# off and comes back.  No record is counted twice and none is missing, also when a
# process fails or is killed at any step of the hand-over.

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
my $has_failpoints = $node->psql('postgres', 'SHOW stream_engine.failpoints') == 0;

my $partitions = 3;
my $chunk      = 2_000;
my $broker     = broker();
my $topic      = $broker->topic_name('orders');
my $dir        = PostgreSQL::Test::Utils::tempdir('orders');
my @files;
my @queries = qw(sales again late_comer);

$broker->topic($topic, $partitions);
create_server($node, $broker);

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

sub set_failpoints
{
	my ($value) = @_;
	$node->append_conf('postgresql.conf', "stream_engine.failpoints = '" . ($value // '') . "'");
	$node->reload;
	return;
}

# The readers that feed running queries, or are the stream's own.
my $readers = 'SELECT count(*) FROM stream_engine.reader WHERE absorbed_by IS NULL';

# Until the readers are so many; orders keep the stream going, for readers with
# different watermarks wait for the next ones.
sub wait_for_readers
{
	my ($count) = @_;
	my $looks = 0;

	wait_until(
		$node,
		sub {
			# The server may be recovering.
			my ($rc, $out) = try_sql($node, $readers);
			return 1 if $rc == 0 && $out eq $count;
			more_orders() if ++$looks % 100 == 0 && $looks < 1000;
			return 0;
		},
		"there are $count readers");
	return;
}

# ---------------------------------------------------------------------------
# Joining, merging
# ---------------------------------------------------------------------------

more_orders();
# In one transaction: the reader has committed nothing when the query begins.
$node->safe_psql('postgres', qq(
	BEGIN;
	SELECT stream_engine.create_stream('orders', server => 'kafka', topic => '$topic',
		columns => \$\$ order_id bigint, user_id bigint PATH '\$.user.id', category text,
			amount numeric CHECK (amount >= 0), event_time timestamptz PATH '\$.ts' \$\$,
		event_time => 'event_time', watermark_delay => '5 seconds', idle_timeout => '1 hour');
	SELECT stream_engine.create_query(name, \$\$
		SELECT category, sum(amount) AS total, count(*) AS orders, min(amount) AS low,
			max(amount) AS high, avg(amount) AS mean
		FROM orders GROUP BY tumble(event_time, '10 seconds'), category \$\$)
	FROM unnest(ARRAY['sales', 'again']) AS name;
	COMMIT));
is($node->safe_psql('postgres', $readers), '1', 'queries that begin where the reader stands join it');
wait_for_all($node, $_) foreach qw(sales again);
wait_for($node, "SELECT count(*) = 1 FROM stream_engine.stat_workers WHERE kind = 'reader'");
is_accounted($node, $_) foreach qw(sales again);

more_orders();
wait_for_all($node, 'sales');
create_sales($node, 'late_comer', 'orders');
wait_for_readers(1);
is($node->safe_psql('postgres', 'SELECT count(*) FROM stream_engine.reader WHERE absorbed_by IS NOT NULL'),
	'1', 'a query that comes later has a reader of its own');
wait_for($node, "SELECT count(*) = 1 FROM stream_engine.stat_workers WHERE kind = 'reader'");
pass('until it has caught up');
more_orders();
foreach my $query (@queries)
{
	wait_for_all($node, $query);
	is_accounted($node, $query);
	is_verified($node, $query);
}
is( $node->safe_psql('postgres', q(
		SELECT query, count(*), min(seq), max(seq) = count(*), count(DISTINCT reader)
		FROM stream_engine.query_ledger WHERE query = 'late_comer'::regclass GROUP BY query)) =~
	  /^late_comer\|\d+\|1\|t\|2$/, 1, 'its commits are numbered without a gap, from one reader to the other');

# A query that begins at the end, and so has read less than the reader that it joins.
my $before = $node->safe_psql('postgres', q(SELECT sum(next_offset) FROM stream_engine.stat_partitions WHERE query = 'sales'::regclass));
create_sales($node, 'newest', 'orders', "start => 'latest'");
push @queries, 'newest';
more_orders();
wait_for_readers(1);
more_orders();
wait_for_all($node, 'newest');
is_accounted($node, 'newest');
is_verified($node, 'newest');
is( $node->safe_psql('postgres', q(SELECT sum(start_offset) FROM stream_engine.stat_partitions WHERE query = 'newest'::regclass)),
	$before, 'it is shown with its own start');
cmp_ok($node->safe_psql('postgres', q(SELECT decoded FROM stream_engine.stat_queries WHERE query = 'newest'::regclass)),
	'<', $node->safe_psql('postgres', q(SELECT decoded FROM stream_engine.stat_queries WHERE query = 'sales'::regclass)),
	'and with its own counters');

# ---------------------------------------------------------------------------
# Splitting: paused, failed, dropped
# ---------------------------------------------------------------------------

$node->safe_psql('postgres', "SELECT stream_engine.pause('again')");
is($node->safe_psql('postgres', $readers), '2', 'a query that is paused is split off');
my $stands_at = $node->safe_psql('postgres', q(SELECT sum(next_offset) FROM stream_engine.stat_partitions WHERE query = 'again'::regclass));
more_orders();
wait_for_all($node, 'sales');
is($node->safe_psql('postgres', q(SELECT sum(next_offset) FROM stream_engine.stat_partitions WHERE query = 'again'::regclass)),
	$stands_at, 'and stands still while the others go on');
$node->safe_psql('postgres', "SELECT stream_engine.resume('again')");
wait_for_readers(1);
wait_for_all($node, 'again');
is_accounted($node, 'again');
is_verified($node, 'again');

$node->safe_psql('postgres', q(
	SELECT stream_engine.create_query('fragile', $$
		SELECT category, 1 / (100000 - min(order_id)) AS n, count(*) AS orders FROM orders
		GROUP BY tumble(event_time, '10 seconds'), category $$)));
wait_for_readers(1);
# the result table refuses what comes next
$node->safe_psql('postgres', 'ALTER TABLE fragile ADD CHECK (orders < 0) NOT VALID');
more_orders();
wait_for($node, q(SELECT state = 'error' FROM stream_engine.queries WHERE name = 'fragile'::regclass));
is($node->safe_psql('postgres', $readers), '2', 'a query that fails is split off');
wait_for_all($node, $_) foreach @queries;
is($node->safe_psql('postgres', q(SELECT count(*) FROM stream_engine.queries WHERE state = 'running')), scalar @queries, 'the others go on');
$node->safe_psql('postgres', q(
	ALTER TABLE fragile DROP CONSTRAINT fragile_orders_check;
	SELECT stream_engine.resume('fragile')));
wait_for_readers(1);
wait_for_all($node, 'fragile');
is_accounted($node, 'fragile');
is_verified($node, 'fragile');
$node->safe_psql('postgres', q(SELECT stream_engine.drop_query('fragile')));
more_orders();
wait_for_all($node, 'sales');
is($node->safe_psql('postgres', $readers), '1', 'a query that is dropped leaves the reader to the others');

# ---------------------------------------------------------------------------
# Failures in the hand-over
# ---------------------------------------------------------------------------

my %log = (
	error => sub { qr/failpoint "\Q$_[0]\E" reached/ },
	kill  => sub { qr/was terminated by signal 9.*database system is ready to accept connections/s });
my @points = map { "merge.$_" } qw(follow before_lock after_lock before_commit);
push @points, map { "merge.step\@$_" } (1 .. 9);

foreach my $place ($has_failpoints ? @points : ())
{
	my ($point, $passing) = split /@/, $place;
	foreach my $action (qw(error kill))
	{
		next if $passing && $passing % 3 != 1 && $action eq 'kill';
		$node->safe_psql('postgres', "SELECT stream_engine.pause('late_comer')");
		more_orders();
		my $position = log_position($node);
		set_failpoints("$point=$action" . ($passing ? "\@$passing" : ''));
		$node->safe_psql('postgres', "SELECT stream_engine.resume('late_comer')");
		wait_for_log($node, $log{$action}->($point), $position);
		set_failpoints();
		wait_for_readers(1);
		wait_for_all($node, $_) foreach @queries;
		pass("$place=$action");
	}
}
if ($has_failpoints)
{
	# the reader that is followed has one query only, and that is paused: nobody is merged into it
	$node->safe_psql('postgres', q(
		CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea);
		CREATE SERVER log_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.log', partitions '1');
		CREATE FUNCTION send(first int, last int) RETURNS void LANGUAGE sql AS $$
			INSERT INTO log SELECT 0, n, NULL, NULL, convert_to(json_build_object('t', timestamptz '2026-01-05 00:00+00' + n * interval '1 s')::text, 'UTF8')
			FROM generate_series(first, last) AS n $$;
		SELECT send(0, 99);
		DO $$ BEGIN PERFORM stream_engine.create_stream('seconds', server => 'log_server', topic => 't', columns => 't timestamptz',
			event_time => 't', staging_retention => '0'); END $$;
		DO $$ BEGIN PERFORM stream_engine.create_query('first', 'SELECT count(*) AS n FROM seconds GROUP BY tumble(t, ''10 s'')'); END $$));
	wait_for_all($node, 'first');
	my $position = log_position($node);
	set_failpoints('merge.follow=sleep:2000');
	$node->safe_psql('postgres', q(DO $$ BEGIN PERFORM stream_engine.create_query('second', 'SELECT count(*) AS n FROM seconds GROUP BY tumble(t, ''20 s'')'); END $$));
	wait_for_log($node, qr/failpoint "merge.follow" sleeps/, $position);
	$node->safe_psql('postgres', "SELECT stream_engine.pause('first')");
	$node->safe_psql('postgres', 'SELECT send(100, 199)');
	wait_for_all($node, 'second');
	set_failpoints();
	is($node->safe_psql('postgres', q(SELECT DISTINCT next_offset FROM stream_engine.stat_partitions WHERE query = 'first'::regclass)),
		'100', 'the position of a paused query stays');
	$node->safe_psql('postgres', "SELECT stream_engine.resume('first')");
	$node->safe_psql('postgres', 'SELECT send(200, 299)');
	wait_for_all($node, 'first');
	foreach my $query (qw(first second))
	{
		is_accounted($node, $query);
		is_verified($node, $query);
	}
	$node->safe_psql('postgres', "SELECT stream_engine.drop_stream('seconds', cascade => true)");

	# the session that pauses fails: nothing has changed
	foreach my $passing (1, 4, 7)
	{
		$node->psql('postgres', "SET stream_engine.failpoints = 'split.step=error\@$passing'; SELECT stream_engine.pause('late_comer')");
		is($node->safe_psql('postgres', $readers), '1', "split.step\@$passing=error");
	}
}
$node->stop('immediate');
$node->start;
more_orders('--end-marker', 60);
wait_for_all($node, $_) foreach @queries;
is_computed($node, $_, \@files) foreach qw(sales again late_comer);
foreach my $query (@queries)
{
	is_accounted($node, $query);
	is_verified($node, $query);
}
is( $node->safe_psql('postgres', q(SELECT count(*) FROM stream_engine.stat_partitions WHERE records + gaps <> next_offset - start_offset
	OR records <> decoded + dead + future + tombstones + skipped)),
	'0', "the reader's own accounts are right");
is($node->safe_psql('postgres', 'SELECT count(*) FROM orders_recent WHERE order_id < 0'), '0', 'staging goes on');

$node->stop('fast');
done_testing();
