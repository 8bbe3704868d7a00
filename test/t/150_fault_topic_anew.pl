
# A topic that was deleted and made again under the same name, whatever its length,
# is not taken for the continuation of the one that was read: the partition stops, in
# every reader, and the operator decides.  A last record that is gone, as compaction
# and retention may do, is no reason to stop.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Orders;
use StreamEngine::Test;

my $broker = broker();
my $node   = new_node('main', conf => q(
stream_engine.commit_interval = 20ms
stream_engine.retry_interval = 50ms
));
create_server($node, $broker);

my $columns = q(columns => 'k text, v int, ts timestamptz', event_time => 'ts', watermark_delay => '1 second',
	idle_timeout => '1 hour');

sub record
{
	my ($key, $second) = @_;
	return sprintf('{"k": "%s", "v": 1, "ts": "2025-01-01T%02d:%02d:%02dZ"}', $key,
		$second / 3600, $second / 60 % 60, $second % 60);
}

sub create_query
{
	my ($name) = @_;
	$node->safe_psql('postgres', qq(
		SELECT stream_engine.create_query('${name}_q', \$\$ SELECT k, count(*) AS n FROM $name
			GROUP BY tumble(ts, '10 seconds'), k \$\$)));
	return;
}

sub create
{
	my ($name, $topic) = @_;
	$node->safe_psql('postgres', qq(
		SELECT stream_engine.create_stream('$name', server => 'kafka', topic => '$topic', $columns)));
	create_query($name);
	return;
}

# A topic with 20 records that have all been read.
sub create_and_read
{
	my ($name) = @_;
	my $topic = $broker->topic_name($name);
	$broker->topic($topic, 1);
	create($name, $topic);
	$broker->produce($topic, 0, map { record('a', $_) } 1 .. 20);
	wait_for_all($node, $_) foreach $name, "${name}_q";
	return $topic;
}

sub make_anew
{
	my ($topic, $count) = @_;
	$broker->delete_topic($topic);
	$broker->topic($topic, 1);
	$broker->produce($topic, 0, map { record('b', 100 + $_) } 1 .. $count);
	return;
}

sub results
{
	my ($name) = @_;
	return $node->safe_psql('postgres',
		"SELECT to_char(window_start AT TIME ZONE 'UTC', 'HH24:MI:SS'), k, n FROM ${name}_q ORDER BY 1, 2");
}

sub pause
{
	my ($name) = @_;
	$node->safe_psql('postgres', "SELECT stream_engine.pause('$name')");
	wait_for($node, "SELECT count(*) = 0 FROM stream_engine.stat_workers w JOIN stream_engine.reader r ON r.id = w.reader
		JOIN stream_engine.stream s ON s.id = r.stream WHERE s.relation = '$name'::regclass AND w.pid IS NOT NULL");
	return;
}

sub resume
{
	my ($name, $start) = @_;
	$node->safe_psql('postgres', "SELECT stream_engine.resume('$name'" . ($start ? ", start => '$start'" : '') . ')');
	return;
}

# Both readers, the query's and the one that stages, have stopped at their positions.
sub has_stopped
{
	my ($name, $when) = @_;
	my $problem = '%before offset 20 are not those that were read%';
	wait_for($node, "SELECT count(*) = 2 AND bool_and(COALESCE(problem, '') LIKE '$problem') FROM stream_engine.stat_partitions WHERE stream = '$name'::regclass");
	is($node->safe_psql('postgres', "SELECT DISTINCT next_offset, records FROM stream_engine.stat_partitions WHERE stream = '$name'::regclass"),
		'20|20', "$when: nothing of it has been read");
	is(results($name), '00:00:00|a|9', "$when: the results are as they were");
	return;
}

# After resume(start => 'earliest') all of the new topic is read.
sub goes_on
{
	my ($name, $when, $count) = @_;
	resume($name, 'earliest');
	wait_for_all($node, $_) foreach $name, "${name}_q";
	is($node->safe_psql('postgres', "SELECT DISTINCT records, next_offset, problem FROM stream_engine.stat_partitions WHERE stream = '$name'::regclass"),
		(20 + $count) . "|$count|", "$when: it goes on where the operator says");
	is_accounted($node, "${name}_q");
	return;
}

# ---------------------------------------------------------------------------
# While nobody reads
# ---------------------------------------------------------------------------

# As long, and longer, is noticed by the last record alone.
foreach my $count (15, 20, 60)
{
	my $name = "paused$count";
	my $topic = create_and_read($name);
	pause($name);
	make_anew($topic, $count);
	resume($name);
	has_stopped($name, "made anew with $count records");
	if ($count == 60)
	{
		is($node->safe_psql('postgres', "SELECT detail LIKE '%the topic was made anew%', hint LIKE '%resume(%' FROM stream_engine.why('${name}_q') WHERE finding = 'partition 0 has stopped'"),
			't|t', 'why() says so, and what to do');
		my ($rc, $out, $err) = $node->psql('postgres', "CALL stream_engine.wait('${name}_q', '1 minute')");
		like($err, qr/made anew/, 'wait() says so');
		kill9_server($node);
		has_stopped($name, 'after a crash');
		resume($name);
		has_stopped($name, 'resumed without a position');
	}
	elsif ($count == 15)
	{
		# A stopped partition is not taken up again because the topic has grown.
		$broker->produce($topic, 0, map { record('b', 100 + $_) } 16 .. 60);
		$node->restart;
		has_stopped($name, 'it has grown');
		resume($name);
		has_stopped($name, 'it has grown, and was resumed');
	}
	goes_on($name, "made anew with $count records", $count == 15 ? 60 : $count);
	$node->safe_psql('postgres', "SELECT stream_engine.drop_stream('$name', true)");
}

# ---------------------------------------------------------------------------
# Under a running query
# ---------------------------------------------------------------------------

# While the consumers are connected, and as fast as it can be done.
foreach my $round (1 .. (long_run() ? 50 : 4))
{
	my $name = "running$round";
	my $topic = create_and_read($name);
	make_anew($topic, 60);
	has_stopped($name, "made anew while it was read ($round)");
	goes_on($name, "made anew while it was read ($round)", 60);
	$node->safe_psql('postgres', "SELECT stream_engine.drop_stream('$name', true)");
}

# ---------------------------------------------------------------------------
# The last record is gone, the log is the same
# ---------------------------------------------------------------------------

my $topic = create_and_read('retained');
pause('retained');
$broker->produce($topic, 0, map { record('a', $_) } 21 .. 30);
$broker->delete_records($topic, 0, 20);
resume('retained');
wait_for_all($node, 'retained_q');
is($node->safe_psql('postgres', "SELECT DISTINCT records, problem FROM stream_engine.stat_partitions WHERE query = 'retained_q'::regclass"),
	'30|', 'retention may take the last record that was read');
is_accounted($node, 'retained_q');

# ---------------------------------------------------------------------------
# The same of a table-backed stream, where timestamps can be chosen
# ---------------------------------------------------------------------------

$node->safe_psql('postgres', qq(
	CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea, PRIMARY KEY (partition, "offset"));
	CREATE SERVER tables FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.log', partitions '1');
	CREATE PROCEDURE fill(k text, "from" int, "to" int) LANGUAGE sql AS \$\$
		INSERT INTO log SELECT 0, n, '2025-01-01 00:00Z', NULL,
			convert_to(json_build_object('k', k, 'ts', timestamptz '2025-01-01 00:00Z' + n * interval '1 second')::text, 'UTF8')
		FROM generate_series("from", "to") AS n \$\$;
	CALL fill('a', 0, 19);
	SELECT stream_engine.create_stream('tabled', server => 'tables', topic => 'log', $columns)));
create_query('tabled');
wait_for_all($node, $_) foreach 'tabled', 'tabled_q';
pause('tabled');
$node->safe_psql('postgres', "DELETE FROM log; CALL fill('b', 0, 59)");
resume('tabled');
wait_for($node, "SELECT count(*) = 2 FROM stream_engine.stat_partitions WHERE stream = 'tabled'::regclass AND problem LIKE '%not those that were read%'");
pass('a record that differs in its bytes alone is another one');
$node->safe_psql('postgres', "TRUNCATE log; CALL fill('a', 0, 18); CALL fill('b', 20, 59)");
resume('tabled');
wait_for_all($node, $_) foreach 'tabled', 'tabled_q';
is($node->safe_psql('postgres', "SELECT DISTINCT next_offset, problem FROM stream_engine.stat_partitions WHERE stream = 'tabled'::regclass"),
	'60|', 'of a record that is gone nothing is said');
is_accounted($node, 'tabled_q');

leaves_nothing($node);
done_testing();
