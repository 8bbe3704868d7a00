
# why() gives the right answer in each situation in which nothing comes out, on the primary and on
# its standby, which also shows results and open windows of one instant.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

my $primary = new_node('primary', allows_streaming => 1, conf => "stream_engine.commit_interval = 50ms\nstream_engine.retry_interval = 100ms");
$primary->safe_psql('postgres', q(
	CREATE TABLE log (topic text, partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea, PRIMARY KEY (topic, partition, "offset"));
	CREATE SERVER s FOREIGN DATA WRAPPER stream_engine_table OPTIONS ("table" 'public.log', partitions '2');
	CREATE FUNCTION send(topic text, partition int, VARIADIC records text[]) RETURNS void LANGUAGE sql AS $$
		INSERT INTO log SELECT topic, partition, n - 1 + (SELECT count(*) FROM log l WHERE l.topic = send.topic AND l.partition = send.partition), now(), NULL, convert_to(r, 'UTF8')
		FROM unnest(records) WITH ORDINALITY AS u (r, n) $$));
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

# create(NAME, SQL arguments of the stream, window, arguments of the query)
sub create
{
	my ($name, %options) = @_;
	my $stream = $options{stream} // "idle_timeout => '1 hour'";
	my $window = $options{window} // "tumble(ts, '1 minute')";
	my $query = $options{query} ? ", $options{query}" : '';
	my $select = $options{select} // 'count(*) AS n';

	$primary->safe_psql('postgres', qq(
		SELECT stream_engine.create_stream('$name', server => 's', topic => '$name', columns => 'ts timestamptz, v int, k text',
			event_time => 'ts', watermark_delay => '10 s', staging_retention => '0', $stream);
		SELECT stream_engine.create_query('q_$name', \$\$ SELECT $select FROM $name WHERE v >= 0 GROUP BY $window \$\$$query)));
	return;
}

sub record
{
	my ($time, $v) = @_;
	return sprintf q('{"ts": "2026-01-05 %s+00", "v": %s, "k": "a"}'), $time, $v // 1;
}

sub send_to
{
	my ($name, $partition, @records) = @_;
	$primary->safe_psql('postgres', "SELECT send('$name', $partition, " . join(', ', @records) . ')');
	return;
}

sub caught_up
{
	my ($name) = @_;
	$primary->safe_psql('postgres', "CALL stream_engine.wait('q_$name', '2 minutes')");
	wait_for($primary, "SELECT count(*) = 1 FROM stream_engine.stat_workers w WHERE w.pid IS NOT NULL AND w.reader = (SELECT stream_engine.query_reader('q_$name'))");
	return;
}

# Findings in a line each, detail and hint behind them.
sub why
{
	my ($node, $name) = @_;
	return $node->safe_psql('postgres', "SET TimeZone = 'UTC'; SELECT concat_ws(' / ', finding, detail, hint) FROM stream_engine.why('q_$name')");
}

# explains(NAME, REGEXPS...): each matches a finding, and there are no more; the standby says that
# it is one and the same, but for what is about processes.
sub explains
{
	my ($name, $situation, @expected) = @_;
	my $lines;

	my @findings = split /\n/, why($primary, $name);
	$lines = join("\n", @findings);
	is(scalar(@findings), scalar(@expected), "$situation: so many findings") or diag($lines);
	like($findings[$_] // '', $expected[$_], "$situation: finding " . ($_ + 1)) foreach 0 .. $#expected;
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	my @there = grep { !/^this server is a standby/ } split /\n/, why($standby, $name);
	my @here = grep { !/^(?:the worker has a problem|no worker is running|the engine is switched off)/ } @findings;
	is("@there", "@here", "$situation: the standby says the same");
	return;
}

# ---------------------------------------------------------------------------
# Nothing to read, nothing usable
# ---------------------------------------------------------------------------

create('empty');
caught_up('empty');
explains('empty', 'an empty topic', qr{^no record has been read / .* nothing lies behind that / Is anything written to the topic\? SELECT \* FROM empty reads it directly});
like(why($standby, 'empty'), qr{^this server is a standby / its workers run on the primary; what follows is of the commit at .* / Ask the primary}, 'a standby says what it is');

create('bad');
send_to('bad', 0, q('{"ts": null}'), q('no json'));
caught_up('bad');
explains('bad', 'nothing but bad records', qr{^no record could be used / of 2 records 2 were bad, 0 lay in the future, 0 were tombstones, 0 were skipped / .*dead_letters tells why; stream_engine.retry_dead_letters});

create('future');
send_to('future', 0, q('{"ts": "2999-01-01", "v": 1}'));
caught_up('future');
explains('future', 'a record of the future', qr{^no record could be used / of 1 records 0 were bad, 1 lay in the future.*max_future});

create('filtered', stream => "idle_timeout => '200 ms'");
send_to('filtered', 0, record('10:00:00', -1));
caught_up('filtered');
explains('filtered', 'nothing passes WHERE', qr{^no record has come into a window / of 1 records 1 were filtered by WHERE, 0 came late.* / Check the WHERE clause});

# ---------------------------------------------------------------------------
# The watermark
# ---------------------------------------------------------------------------

create('held');
send_to('held', 0, record('10:00:00'), record('10:30:00'));
caught_up('held');
explains('held', 'a partition without a record', qr{^partition 1 has had no good record and holds the watermark / it is left out once it has been quiet for 01:00:00});
send_to('held', 1, record('10:00:59'));
caught_up('held');
explains('held', 'a partition that is behind', qr{^partition 1 holds the watermark at 2026-01-05 10:00:49\+00 / the next window closes when the watermark reaches 2026-01-05 10:01:00\+00: this partition needs a record with event time 2026-01-05 10:01:10\+00 or later \(watermark_delay is 00:00:10\); others have one / It has been read to its end});
# what it asks for is what closes the window, and a microsecond less is not
send_to('held', 1, record('10:01:09.999999'));
caught_up('held');
is($primary->safe_psql('postgres', 'SELECT count(*) FROM q_held'), '0', 'a microsecond less than why() asks for closes nothing');
send_to('held', 1, record('10:01:10'));
caught_up('held');
is($primary->safe_psql('postgres', 'SELECT n FROM q_held'), '2', 'what it asks for closes the window');

create('idle', stream => "idle_timeout => '200 ms'");
send_to('idle', $_, record('10:00:00')) foreach 0, 1;
caught_up('idle');
wait_for($primary, "SELECT bool_and(idle) FROM stream_engine.stat_partitions WHERE query = 'q_idle'::regclass");
explains('idle', 'all idle', qr{^all partitions are idle / the watermark stands at 2026-01-05 09:59:50\+00, the next window ends at 2026-01-05 10:01:00\+00 / A record with event time 2026-01-05 10:01:10\+00 or later closes it; or});
my ($call) = why($primary, 'idle') =~ /(stream_engine\.advance_watermark\(.*?\))/;
my ($rc, $out, $err) = $standby->psql('postgres', "SELECT $call");
like($err, qr/ERROR:  cannot execute .* (?:in a read-only transaction|during recovery)/, 'the call that it gives cannot be made on the standby');
$primary->safe_psql('postgres', "SELECT $call");
wait_for($primary, 'SELECT count(*) = 1 FROM q_idle');
explains('idle', 'all closed', qr{^nothing is held up / 1 windows have closed, the last rows came at .*, and none is open});

# late records, beside which nothing is held up
send_to('idle', 0, record('09:00:00'));
caught_up('idle');
explains('idle', 'late records', qr{^1 records came too late / their windows had closed; the watermark is ahead of partition 0, 1, .* / .*late_events; a larger watermark_delay, idle_timeout}, qr{^nothing is held up});

# ---------------------------------------------------------------------------
# Beginnings, triggers, the clock
# ---------------------------------------------------------------------------

create('began', query => "start => 'latest'", stream => "idle_timeout => '200 ms'");
send_to('began', 0, record('10:00:30'));
caught_up('began');
explains('began', 'records of windows that began before the query', qr{^no record has come into a window / .* 1 belong to windows that began before the query / .*emit_partial});

create('totals', window => 'k', select => 'k, count(*) AS n', query => 'trigger_count => 3');
send_to('totals', 0, record('10:00:00'), record('10:00:01'));
caught_up('totals');
explains('totals', 'a trigger that has not fired', qr{^no trigger has fired yet / a key's row is written with every 3 records of it / SELECT \* FROM q_totals_live shows the totals so far});
is($standby->safe_psql('postgres', 'SELECT k, n FROM q_totals_live'), 'a|2', 'where they can be seen on the standby, too');
send_to('totals', 0, record('10:00:02'));
caught_up('totals');
explains('totals', 'one that has', qr{^nothing is held up / 3 records have been taken});

$primary->safe_psql('postgres', q(
	SELECT stream_engine.create_stream('clock', server => 's', topic => 'clock', columns => 'v int', event_time => 'processing_time', staging_retention => '0');
	SELECT stream_engine.create_query('q_clock', 'SELECT count(*) AS n FROM clock GROUP BY tumble(_processing_time, ''36500 days'', origin => ''2000-01-01+00'')', emit_partial => true)));
send_to('clock', 0, record('10:00:00'));
caught_up('clock');
explains('clock', 'processing time', qr{^the clock closes the next window / it ends at 2099-12-07 00:00:00\+00});

# ---------------------------------------------------------------------------
# It does not run
# ---------------------------------------------------------------------------

$primary->safe_psql('postgres', "SELECT stream_engine.pause('q_totals')");
explains('totals', 'a paused query', qr{^the query is in state paused / SELECT stream_engine.resume\('q_totals'\)});
$primary->safe_psql('postgres', "SELECT stream_engine.resume('q_totals')");

create('fails', select => 'sum(1 / v) AS s');
send_to('fails', 0, record('10:00:00', 1), record('10:00:01', 0));
wait_for($primary, q(SELECT state = 'error' FROM stream_engine.queries WHERE name = 'q_fails'::regclass));
like(why($primary, 'fails'), qr{^the query is in state error / division by zero \(partition 0, offset 1\) / Mend the cause}, 'a query that fails');
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
like(why($standby, 'fails'), qr{^the query is in state error / division by zero \(partition 0, offset 1\)}, 'a query that fails: the standby says the same');

create('stops', stream => "on_error => 'pause'");
send_to('stops', 1, q('no json'));
wait_for($primary, q(SELECT state <> 'running' FROM stream_engine.queries WHERE name = 'q_stops'::regclass));
like(why($primary, 'stops'), qr{^the query is in state error / invalid JSON.* \(partition 1, offset 0\) / Mend the cause, or step over the record by SELECT stream_engine.skip\('stops', 1, 0\); then SELECT stream_engine.resume\('stops'\)\.\z}, 'a stream that stops in front of a bad record');
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
like(why($standby, 'stops'), qr{^the query is in state error / invalid JSON.*skip}, 'a stream that stops: the standby says the same');

$primary->safe_psql('postgres', 'ALTER SYSTEM SET stream_engine.enabled = off; SELECT pg_reload_conf()');
wait_for_processes($primary, 0, '%reader%');
like(why($primary, 'held'), qr{^the engine is switched off / .*pg_reload_conf}, 'switched off');
$primary->safe_psql('postgres', 'ALTER SYSTEM RESET stream_engine.enabled; SELECT pg_reload_conf()');
caught_up('held');

# a record cannot be read: the source is gone
$primary->safe_psql('postgres', 'ALTER TABLE log RENAME TO away');
wait_for($primary, q(SELECT why::text LIKE '%the worker has a problem%away%' OR finding IN ('the worker has a problem', 'the query is in state error') FROM stream_engine.why('q_held') AS why LIMIT 1));
like(why($primary, 'held'), qr{(?:the worker has a problem|the query is in state error) / .*"public.log"}, 'the source is gone');
$primary->safe_psql('postgres', 'ALTER TABLE away RENAME TO log');
$primary->safe_psql('postgres', q(SELECT stream_engine.resume(name) FROM stream_engine.queries WHERE name = 'q_held'::regclass AND state = 'error'));

# ---------------------------------------------------------------------------
# Wrong questions, and promotion
# ---------------------------------------------------------------------------

foreach my $case ([ "'held'", qr/"held" is not a query of yours/ ], [ "'nothing'", qr/relation "nothing" does not exist/ ])
{
	($rc, $out, $err) = $primary->psql('postgres', "SELECT * FROM stream_engine.why($case->[0])");
	like($err, qr/ERROR:  $case->[1]/, "why($case->[0])");
}
caught_up('held');
my $columns = q(SELECT string_agg(w::text || n || is_final, ' ' ORDER BY w) FROM (SELECT window_start AS w, n, is_final FROM q_held_live) d);
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
is($standby->safe_psql('postgres', $columns), $primary->safe_psql('postgres', $columns), 'closed and open windows are the same on both');
$primary->stop('fast');
$standby->promote;
send_to_promoted('held', 0, record('12:00:00'));
send_to_promoted('held', 1, record('12:00:00'));
$standby->safe_psql('postgres', "CALL stream_engine.wait('q_held', '2 minutes')");
like(why($standby, 'held'), qr{^partition 0 holds the watermark at 2026-01-05 11:59:50\+00}, 'after promotion why() is about its own workers');
is($standby->safe_psql('postgres', "SELECT count(*) FROM stream_engine.verify('q_held')"), '0', 'and the results hold');

$standby->stop('fast');
done_testing();

sub send_to_promoted
{
	my ($name, $partition, @records) = @_;
	$standby->safe_psql('postgres', "SELECT send('$name', $partition, " . join(', ', @records) . ')');
	return;
}
