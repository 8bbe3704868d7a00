
# Topics change under a query: retention passes its position, partitions are added,
# fall silent and return, the topic is made anew.  The partition concerned stops
# with a reason, the operator decides, every offset is accounted for.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Orders;
use StreamEngine::Test;

my $broker = broker();
my $node   = new_node('main', conf => 'stream_engine.commit_interval = 50ms');
create_server($node, $broker);

sub record
{
	my ($key, $second) = @_;
	return sprintf('{"k": "%s", "v": 1, "ts": "2025-01-01T%02d:%02d:%02dZ"}', $key,
		$second / 3600, $second / 60 % 60, $second % 60);
}

# A stream and a query of the same name but for the ending.
sub create
{
	my ($name, $topic, $idle) = @_;
	$node->safe_psql('postgres', qq(
		SELECT stream_engine.create_stream('$name', server => 'kafka', topic => '$topic',
			columns => 'k text, v int, ts timestamptz', event_time => 'ts', watermark_delay => '1 second',
			idle_timeout => '$idle');
		SELECT stream_engine.create_query('${name}_q', \$\$ SELECT k, count(*) AS n FROM $name
			GROUP BY tumble(ts, '10 seconds'), k \$\$)));
	return;
}

sub results
{
	my ($name) = @_;
	return $node->safe_psql('postgres',
		"SELECT to_char(window_start AT TIME ZONE 'UTC', 'HH24:MI:SS'), k, n FROM ${name}_q ORDER BY 1, 2");
}

sub problem
{
	my ($name) = @_;
	return "SELECT string_agg(problem, ';') FROM stream_engine.stat_partitions WHERE query = '${name}_q'::regclass";
}

# ---------------------------------------------------------------------------
# Retention passes the position
# ---------------------------------------------------------------------------

my $lost = $broker->topic_name('lost');
$broker->topic($lost, 2);
create('lost', $lost, '1 hour');
$broker->produce($lost, $_, map { record('a', $_) } 1 .. 20) foreach 0, 1;
wait_for_all($node, 'lost_q');
is(results('lost'), '00:00:00|a|18', 'a query runs');
$node->safe_psql('postgres', "SELECT stream_engine.pause('lost')");
wait_for_processes($node, 0, '%reader%');
$broker->produce($lost, $_, map { record('a', $_) } 21 .. 60) foreach 0, 1;
$broker->delete_records($lost, 0, 45);
$node->safe_psql('postgres', "SELECT stream_engine.resume('lost')");
wait_for($node, "SELECT count(*) = 1 FROM stream_engine.stat_partitions WHERE query = 'lost_q'::regclass AND partition = 0 AND problem LIKE '%offset 20 of partition 0 is not in the topic%'");
wait_for($node, "SELECT next_offset = 60 FROM stream_engine.stat_partitions WHERE query = 'lost_q'::regclass AND partition = 1");
is(results('lost'), '00:00:00|a|18', 'the other partition is read, and the stopped one holds the watermark');
is($node->safe_psql('postgres', "SELECT count(*) FROM stream_engine.why('lost_q') WHERE finding = 'partition 0 has stopped'"), '1', 'why() says so');
kill9_server($node);
wait_for($node, "SELECT problem IS NOT NULL FROM stream_engine.stat_partitions WHERE query = 'lost_q'::regclass AND partition = 0");
is($node->safe_psql('postgres', "SELECT next_offset FROM stream_engine.stat_partitions WHERE query = 'lost_q'::regclass AND partition = 0"), '20', 'it stays so after a crash');
my ($rc, $out, $err) = $node->psql('postgres', "SELECT stream_engine.resume('lost', start => 'somewhere')");
like($err, qr/invalid input syntax/, 'resume() checks the start');
$node->safe_psql('postgres', "SELECT stream_engine.resume('lost', start => 'earliest')");
wait_for_all($node, 'lost_q');
is($node->safe_psql('postgres', "SELECT records, gaps, start_offset, next_offset, problem IS NULL FROM stream_engine.stat_partitions WHERE query = 'lost_q'::regclass AND partition = 0"),
	'35|25|0|60|t', 'the operator lets it go on, what was lost is a gap');
is(results('lost'), "00:00:00|a|18\n00:00:10|a|20\n00:00:20|a|11\n00:00:30|a|10\n00:00:40|a|14", 'windows close again');
is_accounted($node, 'lost_q');
($rc, $out, $err) = $node->psql('postgres', "SELECT * FROM stream_engine.verify('lost_q')");
like($err, qr/ERROR:  query .* cannot be verified: its first records are not in the topic any more/, 'verify() says that it cannot');

# ---------------------------------------------------------------------------
# Partitions are added
# ---------------------------------------------------------------------------

my $grown = $broker->topic_name('grown');
$broker->topic($grown, 1);
create('grown', $grown, '1 hour');
$broker->produce($grown, 0, map { record('a', $_) } 1 .. 15);
wait_for_all($node, 'grown_q');
$broker->add_partitions($grown, 3);
$broker->produce($grown, 2, map { record('b', $_) } 12 .. 25);
$broker->produce($grown, 0, map { record('a', $_) } 16 .. 35);
wait_for_all($node, 'grown_q');
is($node->safe_psql('postgres', "SELECT string_agg(records::text, ',' ORDER BY partition) FROM stream_engine.stat_partitions WHERE query = 'grown_q'::regclass"),
	'35,0,14', 'new partitions are read');
$broker->produce($grown, 1, record('c', 16));
wait_for_all($node, 'grown_q');
$broker->produce($grown, 1, record('c', 26));
wait_for_all($node, 'grown_q');
is_accounted($node, 'grown_q');
is_verified($node, 'grown_q');
like(results('grown'), qr/^00:00:00\|a\|9\n/, 'results are there');
is($node->safe_psql('postgres', "SELECT sum(n) FROM grown_q_live") + $node->safe_psql('postgres', "SELECT late FROM stream_engine.stat_queries WHERE query = 'grown_q'::regclass"),
	51, 'each record is counted or late');

# ---------------------------------------------------------------------------
# Silent partitions
# ---------------------------------------------------------------------------

my $idle = $broker->topic_name('idle');
$broker->topic($idle, 2);
create('idle', $idle, '1 second');
$broker->produce($idle, 0, map { record('a', $_) } 1 .. 5);
# if both fell idle at once, nothing would close by itself
wait_for($node, "SELECT idle FROM stream_engine.stat_partitions WHERE query = 'idle_q'::regclass AND partition = 0");
$broker->produce($idle, 1, map { record('a', $_) } 1 .. 35);
wait_for($node, "SELECT count(*) = 3 FROM idle_q");
is(results('idle'), "00:00:00|a|14\n00:00:10|a|10\n00:00:20|a|10", 'a silent partition does not hold the watermark for ever');
is($node->safe_psql('postgres', "SELECT count(*) > 0 FROM stream_engine.stat_partitions WHERE query = 'idle_q'::regclass AND partition = 0 AND idle"), 't', 'it is shown as idle');
$broker->produce($idle, 0, record('a', 15), record('a', 33));
wait_for_all($node, 'idle_q');
is($node->safe_psql('postgres', "SELECT partition, to_char(event_time AT TIME ZONE 'UTC', 'SS') FROM stream_engine.late_events WHERE query = 'idle_q'::regclass"),
	'0|15', 'its return does not move the watermark back');
# All idle: nothing closes by itself.
wait_for($node, "SELECT bool_and(idle) FROM stream_engine.stat_partitions WHERE query = 'idle_q'::regclass");
is(results('idle'), "00:00:00|a|14\n00:00:10|a|10\n00:00:20|a|10", 'when all are silent no window closes');
is($node->safe_psql('postgres', "SELECT finding FROM stream_engine.why('idle_q') LIMIT 1"), 'all partitions are idle', 'why() says so');
is_accounted($node, 'idle_q');
is_verified($node, 'idle_q');

# ---------------------------------------------------------------------------
# A topic of the same name
# ---------------------------------------------------------------------------

# One that is shorter: the position is behind its end.
my $anew = $broker->topic_name('anew');
$broker->topic($anew, 1);
create('anew', $anew, '1 hour');
$broker->produce($anew, 0, map { record('a', $_) } 1 .. 20);
wait_for_all($node, 'anew_q');
$node->safe_psql('postgres', "SELECT stream_engine.pause('anew')");
wait_for($node, "SELECT NOT EXISTS (SELECT FROM stream_engine.stat_workers w JOIN stream_engine.stat_partitions p USING (reader) WHERE p.stream = 'anew'::regclass AND w.pid IS NOT NULL)");
$broker->delete_topic($anew);
$broker->topic($anew, 1);
$broker->produce($anew, 0, map { record('b', $_) } 101 .. 115);
$node->safe_psql('postgres', "SELECT stream_engine.resume('anew')");
wait_for($node, 'SELECT (' . problem('anew') . ') IS NOT NULL');
is(results('anew'), '00:00:00|a|9', 'records of another topic of the same name are not taken for its continuation');
$node->safe_psql('postgres', "SELECT stream_engine.resume('anew', start => 'earliest')");
wait_for_all($node, 'anew_q');
is(results('anew'), "00:00:00|a|9\n00:00:10|a|10\n00:00:20|a|1\n00:01:40|b|9", 'it goes on where the operator says');

# One with fewer partitions: those that are not there any more are given up, for as long as they are not.
my $fewer = $broker->topic_name('fewer');
$broker->topic($fewer, 3);
create('fewer', $fewer, '1 hour');
$broker->produce($fewer, $_, map { record('a', $_) } 1 .. 20) foreach 0 .. 2;
wait_for_all($node, 'fewer_q');
$broker->delete_topic($fewer);
$broker->topic($fewer, 1);
$broker->produce($fewer, 0, map { record('b', $_) } 101 .. 115);
wait_for($node, "SELECT count(problem) = 3 FROM stream_engine.stat_partitions WHERE query = 'fewer_q'::regclass");
is($node->safe_psql('postgres', "SELECT problem FROM stream_engine.stat_partitions WHERE query = 'fewer_q'::regclass AND partition = 2"),
	'partition 2 is not in the topic any more, which has 1: the topic was made anew', 'a partition that is not there any more is told');
is(results('fewer'), '00:00:00|a|27', 'and holds the watermark');
$node->safe_psql('postgres', "SELECT stream_engine.resume('fewer', start => 'earliest')");
wait_for_all($node, 'fewer_q');
wait_for($node, 'SELECT count(*) = 4 FROM fewer_q');
is(results('fewer'), "00:00:00|a|27\n00:00:10|a|30\n00:00:20|a|3\n00:01:40|b|9", 'the stream goes on without it when the operator says so');
is($node->safe_psql('postgres', "SELECT string_agg(partition || ' ' || idle || ' ' || (problem IS NULL) || ' ' || (records + gaps = next_offset - start_offset), ', ' ORDER BY partition)
	FROM stream_engine.stat_partitions WHERE query = 'fewer_q'::regclass"), '0 false true true, 1 true true true, 2 true true true', 'all are accounted for');
$broker->add_partitions($fewer, 2);
$broker->produce($fewer, 1, map { record('c', $_) } 111 .. 125);
wait_for($node, "SELECT problem LIKE '%is in the topic again%' FROM stream_engine.stat_partitions WHERE query = 'fewer_q'::regclass AND partition = 1");
$node->safe_psql('postgres', "SELECT stream_engine.resume('fewer', start => 'earliest')");
wait_for_all($node, 'fewer_q');
$broker->produce($fewer, $_, record('d', 200)) foreach 0, 1;
wait_for($node, "SELECT count(*) = 7 FROM fewer_q");
is(results('fewer'), "00:00:00|a|27\n00:00:10|a|30\n00:00:20|a|3\n00:01:40|b|9\n00:01:50|b|6\n00:01:50|c|9\n00:02:00|c|6", 'and with it again');

leaves_nothing($node);
done_testing();
