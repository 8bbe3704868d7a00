
# Watermarks on a real broker: what holds them, what lets them go, and that why() says so.
# Partitions without a record, hours apart, silent and back; all idle, idle_close,
# advance_watermark; records of the future; ends of partitions that are no records; Kafka's own
# times as event time, and the clock.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Orders;
use StreamEngine::Test;

my $broker = broker();
my $transactions = 0;
my $node   = new_node('main', conf => 'stream_engine.commit_interval = 50ms');
create_server($node, $broker);

sub record
{
	my ($time, $v) = @_;
	return sprintf '{"v": %d, "ts": "2025-01-01T%sZ"}', $v // 1, $time;
}

# A topic, a stream and a tumbling query over it, all of one name (the query's ends in _q).
# OPTIONS: partitions, stream (more arguments), window, config (of the topic).
sub create
{
	my ($name, %options) = @_;
	my $topic = $broker->topic_name($name);
	my $stream = join(', ', "columns => 'v int, ts timestamptz'",
		$options{stream} // "event_time => 'ts', watermark_delay => '5 seconds', idle_timeout => '1 hour'");
	my $window = $options{window} // "tumble(ts, '10 minutes')";

	$broker->topic($topic, $options{partitions} // 2, @{ $options{config} // [] });
	$broker->produce($topic, @$_) foreach @{ $options{records} // [] };
	$node->safe_psql('postgres', qq(
		SELECT stream_engine.create_stream('$name', server => 'kafka', topic => '$topic', staging_retention => '0', $stream);
		SELECT stream_engine.create_query('${name}_q', \$\$ SELECT count(*) AS n, sum(v) AS total FROM $name GROUP BY $window \$\$)));
	return $topic;
}

sub results
{
	my ($name) = @_;
	return $node->safe_psql('postgres',
		"SELECT string_agg(to_char(window_start AT TIME ZONE 'UTC', 'HH24:MI') || '=' || n, ' ' ORDER BY window_start) FROM ${name}_q WHERE is_final");
}

sub partitions
{
	my ($name) = @_;
	return "(SELECT string_agg(partition || CASE WHEN idle THEN ' idle' WHEN holds_watermark THEN ' holds' ELSE '' END, ', ' ORDER BY partition)"
	  . " FROM stream_engine.stat_partitions WHERE query = '${name}_q'::regclass)";
}

sub why
{
	my ($name) = @_;
	return $node->safe_psql('postgres', "SET TimeZone = 'UTC'; SELECT concat_ws(' / ', finding, detail, hint) FROM stream_engine.why('${name}_q')");
}

sub counters
{
	my ($name) = @_;
	return $node->safe_psql('postgres', "SELECT counted, late, late_assignments FROM stream_engine.stat_queries WHERE query = '${name}_q'::regclass");
}

sub columns
{
	my ($name, $columns) = @_;
	return $node->safe_psql('postgres',
		"SELECT $columns FROM stream_engine.stat_partitions WHERE query = '${name}_q'::regclass ORDER BY partition");
}

# A compacted topic; the cleaner takes its time, and its section comes last.
my $compact = $broker->topic_name('compact');
$broker->topic($compact, 1, 'cleanup.policy=compact', 'segment.ms=100', 'min.cleanable.dirty.ratio=0.01',
	'min.compaction.lag.ms=0', 'max.compaction.lag.ms=100', 'delete.retention.ms=0');
produce_keyed($compact, map { [ 'key', record(sprintf('00:00:%02d', $_)) ] } 1 .. 40);

# ---------------------------------------------------------------------------
# A partition that never gets a record
# ---------------------------------------------------------------------------

my $never = create('never', partitions => 3, records => [ [ 0, record('00:05:00'), record('00:31:00') ], [ 1, record('00:32:00') ] ]);
wait_for_all($node, 'never_q');
is(results('never'), '', 'a partition without a record holds the watermark');
like(why('never'), qr{^partition 2 has had no good record and holds the watermark / .* / Lower idle_timeout if partitions may stay empty}, 'and why() names it');
is($node->safe_psql('postgres', 'SELECT ' . partitions('never')), '0, 1, 2 holds', 'so does stat_partitions');
$node->safe_psql('postgres', "ALTER FOREIGN TABLE never OPTIONS (SET idle_timeout '1 second')");
wait_for($node, 'SELECT ' . partitions('never') . " LIKE '%2 idle'");
$broker->produce($never, 0, record('00:36:00'));
$broker->produce($never, 1, record('00:37:00'));
wait_for($node, "SELECT count(*) = 1 FROM never_q");
is(results('never'), '00:00=1', 'until it has been silent for idle_timeout');
# its first record comes after all, late and not late
$node->safe_psql('postgres', "ALTER FOREIGN TABLE never OPTIONS (SET idle_timeout '1 hour')");
$broker->produce($never, 2, record('00:01:00'), record('00:52:00'));
wait_for_all($node, 'never_q');
is(counters('never'), '6|1|1', 'its first records are judged by the watermark that went on without it');
is_accounted($node, 'never_q');
is_verified($node, 'never_q');

# ---------------------------------------------------------------------------
# Hours apart
# ---------------------------------------------------------------------------

# All is there before the query is: partition 1 is six hours ahead.  The slower one decides.
my $skew = create('skew', records => [
	[ 0, map { record(sprintf('00:%02d:%02d', $_ / 60, $_ % 60)) } map { $_ * 12 } 0 .. 290 ],
	[ 1, map { record(sprintf('06:%02d:%02d', $_ / 60, $_ % 60)) } map { $_ * 12 } 0 .. 290 ] ]);
wait_for_all($node, 'skew_q');
is(counters('skew'), '582|0|0', 'partitions that are hours apart make nothing late while a query catches up');
is(results('skew'), join(' ', map { "00:${_}0=50" } 0 .. 4), 'the watermark is that of the slower one');
like(why('skew'), qr{^partition 0 holds the watermark at 2025-01-01 00:57:55\+00 / .* 2025-01-01 01:00:00\+00: this partition needs a record with event time 2025-01-01 01:00:05\+00 or later}, 'why() tells what it needs');
$broker->produce($skew, 0, record('03:00:00'));
wait_for_all($node, 'skew_q');
is(counters('skew'), '583|0|0', 'nor when it follows slowly');
is(results('skew'), join(' ', map({ "00:${_}0=50" } 0 .. 4), '00:50=41'), 'windows close as it does');
# it falls silent: the faster one decides alone, and what the slower one sends then is late
$node->safe_psql('postgres', "ALTER FOREIGN TABLE skew OPTIONS (SET idle_timeout '1 second')");
wait_for($node, 'SELECT ' . partitions('skew') . " LIKE '0 idle%'");
$node->safe_psql('postgres', "ALTER FOREIGN TABLE skew OPTIONS (SET idle_timeout '1 hour')");
$broker->produce($skew, 1, record('07:00:05'));
wait_for($node, "SELECT watermark = '2025-01-01 07:00:00+00' FROM stream_engine.stat_queries WHERE query = 'skew_q'::regclass");
$broker->produce($skew, 0, record('03:30:00'), record('06:59:59'), record('07:00:00'));
wait_for_all($node, 'skew_q');
is(counters('skew'), '585|2|2', 'a partition that comes back hours behind is late, but for its last record');
is($node->safe_psql('postgres', "SELECT min(to_char(watermark AT TIME ZONE 'UTC', 'HH24:MI:SS')), string_agg(to_char(event_time AT TIME ZONE 'UTC', 'HH24:MI:SS'), ' ' ORDER BY \"offset\") FROM stream_engine.late_events WHERE query = 'skew_q'::regclass"),
	'07:00:00|03:30:00 06:59:59', 'and is kept with the watermark that judged it');
is_accounted($node, 'skew_q');
is_verified($node, 'skew_q');

# ---------------------------------------------------------------------------
# Partitions that are added, all idle, idle_close, advance_watermark
# ---------------------------------------------------------------------------

my $quiet = create('quiet', partitions => 1, records => [ [ 0, record('00:01:00'), record('00:12:00') ] ],
	stream => "event_time => 'ts', watermark_delay => '5 seconds', idle_timeout => '1 second'");
wait_for($node, 'SELECT ' . partitions('quiet') . " = '0 idle'");
is(results('quiet'), '00:00=1', 'all idle: nothing closes by itself');
like(why('quiet'), qr{^all partitions are idle / the watermark stands at 2025-01-01 00:11:55\+00, the next window ends at 2025-01-01 00:20:00\+00 / .*advance_watermark\('quiet', '2025-01-01 00:20:00\+00'\)}, 'why() gives the call that closes the window');
my ($call) = why('quiet') =~ /(stream_engine\.advance_watermark\(.*?\))/;
$node->safe_psql('postgres', "SELECT $call");
wait_for($node, "SELECT count(*) = 2 FROM quiet_q");
is(results('quiet'), '00:00=1 00:10=1', 'which it does');
$broker->produce($quiet, 0, record('00:19:59'), record('00:21:00'));
wait_for_all($node, 'quiet_q');
is(counters('quiet'), '3|1|1', 'what comes before that moment after all is late');
# added while it runs: read from the beginning, and it holds the watermark like any other
$node->safe_psql('postgres', "ALTER FOREIGN TABLE quiet OPTIONS (SET idle_timeout '1 hour')");
$broker->add_partitions($quiet, 2);
$broker->produce($quiet, 1, record('00:22:00'));
wait_for($node, "SELECT count(*) = 2 FROM stream_engine.stat_partitions WHERE query = 'quiet_q'::regclass AND lag = 0");
wait_for_all($node, 'quiet_q');
$broker->produce($quiet, 0, record('01:00:00'));
wait_for_all($node, 'quiet_q');
is(results('quiet'), '00:00=1 00:10=1', 'a partition that was added holds the watermark');
like(why('quiet'), qr{^partition 1 holds the watermark at 2025-01-01 00:21:55\+00}, 'and why() names it');
# idle_close: the open windows close when all have been silent for so long
$node->safe_psql('postgres', "ALTER FOREIGN TABLE quiet OPTIONS (SET idle_timeout '500 ms', ADD idle_close '1 second')");
wait_for($node, "SELECT count(*) = 4 FROM quiet_q");
is(results('quiet'), '00:00=1 00:10=1 00:20=2 01:00=1', 'idle_close closes them all');
like(why('quiet'), qr{^nothing is held up / 4 windows have closed}m, 'and nothing is held up');
is_accounted($node, 'quiet_q');
is_verified($node, 'quiet_q');

# ---------------------------------------------------------------------------
# Records of the future
# ---------------------------------------------------------------------------

my $future = create('future', partitions => 1, records => [ [ 0, record('00:01:00'), '{"v": 1, "ts": "2199-01-01T00:00:00Z"}', record('00:02:00'), '{"v": 1, "ts": "infinity"}' ] ]);
wait_for_all($node, 'future_q');
is(results('future'), '', 'a record of the future closes nothing');
is(columns('future', 'decoded, dead, future, max_event_time = \'2025-01-01 00:02:00+00\''), '2|1|1|t', 'it is a dead letter, infinity is a bad record, and neither moves the watermark');
like(why('future'), qr{^some records could not be used / of 4 records 1 were bad, 1 lay in the future.*dead_letters}, 'why() mentions them');
# what is allowed to lie in the future does
$node->safe_psql('postgres', "ALTER FOREIGN TABLE future OPTIONS (SET max_future '100000 days')");
wait_for($node, "SELECT count(*) = 1 FROM stream_engine.stat_workers w WHERE w.kind = 'reader' AND w.pid IS NOT NULL AND w.reader = (SELECT stream_engine.query_reader('future_q'))");
wait_for_all($node, 'future_q');
$broker->produce($future, 0, '{"v": 1, "ts": "2199-01-01T00:00:00Z"}');
wait_for_all($node, 'future_q');
is(results('future'), '00:00=2', 'max_future can be raised');
is_accounted($node, 'future_q');

# ---------------------------------------------------------------------------
# Ends that are no records
# ---------------------------------------------------------------------------

# Partition 0 ends with the marker of a transaction, partition 1 with an aborted one: the last
# offsets are no records, and still the end is seen, wait() returns, and both become idle.
my $ends = create('ends', partitions => 3, stream => "event_time => 'ts', watermark_delay => '0', idle_timeout => '1 hour'");
transaction($ends, 0, 'commit', record('00:01:00'), record('00:02:00'));
transaction($ends, 1, 'commit', record('00:03:00'));
transaction($ends, 1, 'abort', record('05:00:00'), record('05:00:01'));
$broker->produce($ends, 2, record('00:03:00'));
wait_for_all($node, 'ends_q');
my $offsets = $broker->offsets($ends);
is(columns('ends', 'records, gaps, next_offset, lag'), join("\n", "2|1|$offsets->[0][1]|0", "1|4|$offsets->[1][1]|0", "1|0|$offsets->[2][1]|0"),
	'wait() returns behind markers and aborted records');
is(counters('ends'), '4|0|0', 'which are not counted');
is($node->safe_psql('postgres', "SELECT max(v.max_event_time) FROM stream_engine.stat_partitions v WHERE query = 'ends_q'::regclass AND max_event_time > '2025-01-01 01:00Z'"), '', 'nor do they move a watermark');
$node->safe_psql('postgres', "ALTER FOREIGN TABLE ends OPTIONS (SET idle_timeout '500 ms')");
wait_for($node, 'SELECT ' . partitions('ends') . " = '0 idle, 1 idle, 2 idle'");
pass('an end without a record counts as an end: the partitions become idle');
# an open transaction: what lies behind it cannot be read yet, and nobody waits for it
$node->safe_psql('postgres', "ALTER FOREIGN TABLE ends OPTIONS (SET idle_timeout '1 hour')");
my $open = open_transaction($ends, 2, record('00:30:00'));
$broker->produce($ends, 2, record('00:31:00'));
wait_for_all($node, 'ends_q');
is(counters('ends'), '4|0|0', 'records behind an open transaction are not read');
$node->safe_psql('postgres', "ALTER FOREIGN TABLE ends OPTIONS (SET idle_timeout '500 ms')");
wait_until($node, sub { why('ends') =~ /cannot be read yet/ }, 'why() knows of them');
like(why('ends'), qr{^the last 2 offsets of partition 2 cannot be read yet / as a rule they lie behind a transaction of a producer that is still open / They are read when it ends}, 'why() tells of a transaction that is open');
is(columns('ends', 'lag'), "0\n0\n2", 'what lies behind it is lag');
end_transaction($open, 'commit');
wait_for($node, "SELECT counted = 6 FROM stream_engine.stat_queries WHERE query = 'ends_q'::regclass");
wait_for_all($node, 'ends_q');
unlike(why('ends'), qr/cannot be read yet/, 'why() forgets it when it has ended');
is_accounted($node, 'ends_q');
is_verified($node, 'ends_q');

# All records have been deleted: there is nothing in front of the end.
my $emptied = $broker->topic_name('emptied');
$broker->topic($emptied, 1);
$broker->produce($emptied, 0, map { record('00:00:00') } 1 .. 10);
$broker->delete_records($emptied, 0, -1);
$node->safe_psql('postgres', qq(
	SELECT stream_engine.create_stream('emptied', server => 'kafka', topic => '$emptied', staging_retention => '0',
		columns => 'v int, ts timestamptz', event_time => 'ts', watermark_delay => '0', idle_timeout => '500 ms');
	SELECT stream_engine.create_query('emptied_q', 'SELECT count(*) AS n FROM emptied GROUP BY tumble(ts, ''10 minutes'')')));
wait_for_all($node, 'emptied_q');
is(columns('emptied', 'records, start_offset, next_offset, lag'), '0|10|10|0', 'wait() returns at the end of a topic whose records are all gone');
wait_for($node, 'SELECT ' . partitions('emptied') . " = '0 idle'");
like(why('emptied'), qr{^no record has been read}, 'why() says that there is none');

# ---------------------------------------------------------------------------
# Kafka's time, and the clock
# ---------------------------------------------------------------------------

# The producer's time: the orders of this tool have one of their own, other than their event time.
my $dir = PostgreSQL::Test::Utils::tempdir('orders');
my $created = $broker->topic_name('created');
$broker->topic($created, 2, 'message.timestamp.before.max.ms=9223372036854775807');
make_orders("$dir/created.tsv", '--count', 3000, '--rate', 10, '--disorder', 5, '--brokers', $broker->bootstrap, '--topic', $created, '--partitions', 2);
my %expected;
foreach my $line (split /\n/, slurp_file("$dir/created.tsv"))
{
	my ($partition, $ms) = split /\t/, $line;
	$expected{ int($ms / 60_000) }++;
}
my $last = (sort { $a <=> $b } keys %expected)[-1];
$node->safe_psql('postgres', qq(
	SELECT stream_engine.create_stream('created', server => 'kafka', topic => '$created', staging_retention => '0',
		columns => 'order_id bigint', event_time => '_timestamp', watermark_delay => '1 second', idle_timeout => '1 hour');
	SELECT stream_engine.create_query('created_q', 'SELECT count(*) AS n FROM created GROUP BY tumble(_timestamp, ''1 minute'')')));
wait_for_all($node, 'created_q');
is($node->safe_psql('postgres', "SELECT extract(epoch FROM window_start)::bigint / 60, n FROM created_q ORDER BY 1"),
	join("\n", map { "$_|$expected{$_}" } sort { $a <=> $b } grep { $_ < $last } keys %expected), "the producer's time as event time");
is_accounted($node, 'created_q');
is_verified($node, 'created_q');

# The broker's time, whatever the producer says: of today, and never late.
my $appended = $broker->topic_name('appended');
$broker->topic($appended, 1, 'message.timestamp.type=LogAppendTime');
make_orders("$dir/appended.tsv", '--count', 500, '--brokers', $broker->bootstrap, '--topic', $appended, '--partitions', 1);
$node->safe_psql('postgres', qq(
	SELECT stream_engine.create_stream('appended', server => 'kafka', topic => '$appended', staging_retention => '0',
		columns => 'order_id bigint', watermark_delay => '0', idle_timeout => '500 ms', idle_close => '500 ms');
	SELECT stream_engine.create_query('appended_q', 'SELECT count(*) AS n, max(_timestamp) AS last FROM appended GROUP BY tumble(_timestamp, ''1 second'')')));
wait_for($node, "SELECT sum(n) = 500 FROM appended_q");
is($node->safe_psql('postgres', "SELECT min(window_start) > now() - interval '1 hour', max(last) <= clock_timestamp() FROM appended_q"), 't|t', "the broker's time is the default event time");
is(counters('appended'), '500|0|0', 'and nothing is late by it');
is_verified($node, 'appended_q');

# The clock: windows close without records, and a reader that was away takes what it finds.
my $clock = create('clock', partitions => 2, stream => "event_time => 'processing_time'", window => "tumble(_processing_time, '1 second')");
wait_for_all($node, 'clock_q');
wait_for($node, "SELECT clock_timestamp() > w.complete_from + interval '1 second' FROM stream_engine.query_progress w JOIN stream_engine.query q ON q.id = w.query WHERE q.result = 'clock_q'::regclass");
$broker->produce($clock, 0, map { record('00:00:00') } 1 .. 7);
wait_for($node, 'SELECT sum(n) = 7 FROM clock_q');
kill9_worker($node, 'stream_engine reader%');
$broker->produce($clock, 1, map { record('00:00:00') } 1 .. 5);
wait_for($node, 'SELECT sum(n) = 12 FROM clock_q');
is(counters('clock'), '12|0|0', 'processing time: every record counts once, also after a kill');
like(why('clock'), qr{^(?:nothing is held up|the clock closes the next window)}, 'why() knows that no partition holds the clock');
is_accounted($node, 'clock_q');

# ---------------------------------------------------------------------------
# Compaction
# ---------------------------------------------------------------------------

# A new segment makes the old one ready for the cleaner; it leaves gaps before the end, and an
# aborted transaction leaves one at the end.
produce_keyed($compact, [ 'other', record('00:20:00') ]);
transaction($compact, 0, 'abort', record('09:00:00'));
wait_until($node, sub { kept($compact, 0) <= 2 }, 'the cleaner has run');
$node->safe_psql('postgres', qq(
	SELECT stream_engine.create_stream('compact', server => 'kafka', topic => '$compact', staging_retention => '0',
		columns => 'v int, ts timestamptz', event_time => 'ts', watermark_delay => '0', idle_timeout => '500 ms');
	SELECT stream_engine.create_query('compact_q', 'SELECT count(*) AS n FROM compact GROUP BY tumble(ts, ''10 minutes'')')));
wait_for_all($node, 'compact_q');
$offsets = $broker->offsets($compact);
is(columns('compact', 'records, records + gaps = next_offset - start_offset, next_offset, lag'), "2|t|$offsets->[0][1]|0", 'offsets that compaction has taken are gaps, and wait() returns');
is(results('compact'), '00:00=1', 'what is left is counted');
wait_for($node, 'SELECT ' . partitions('compact') . " = '0 idle'");
is_accounted($node, 'compact_q');
is_verified($node, 'compact_q');

$node->stop('fast');
done_testing();

# ---------------------------------------------------------------------------
# Producers
# ---------------------------------------------------------------------------

sub kcat
{
	my ($topic, $partition, @more) = @_;
	return ('kcat', '-P', '-q', '-b', $broker->admin, '-t', $topic, '-p', $partition, '-X', 'acks=all', @more);
}

# [key, value]...
sub produce_keyed
{
	my ($topic, @records) = @_;
	my $input = join('', map { "$_->[0]\x1f$_->[1]\n" } @records);

	IPC::Run::run([ kcat($topic, 0, '-K', "\x1f") ], '<', \$input) or die 'kcat cannot produce';
	return;
}

# How many records a reader finds in a partition.
sub kept
{
	my ($topic, $partition, @more) = @_;
	my $out = '';

	IPC::Run::run([ 'kcat', '-C', '-q', '-e', @more, '-b', $broker->admin, '-t', $topic, '-p', $partition, '-o', 'beginning', '-f', "%o\n" ], '>', \$out)
	  or die 'kcat cannot consume';
	return scalar(() = $out =~ /\n/g);
}

# A transaction of its own, which ends as said.
sub transaction
{
	my ($topic, $partition, $how, @records) = @_;

	end_transaction(open_transaction($topic, $partition, @records), $how);
	return;
}

# Returns when the records are in the log; they are not committed.
sub open_transaction
{
	my ($topic, $partition, @records) = @_;
	my $self = { in => '', out => '', err => '', timeout => IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default) };

	$self->{run} = IPC::Run::start(
		[ tools_dir() . '/transaction.py', $broker->admin, $topic, $partition, 't' . ++$transactions . "-$$" ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err}, $self->{timeout});
	say_to($self, "record $_") foreach @records;
	return $self;
}

sub end_transaction
{
	my ($self, $how) = @_;

	say_to($self, $how);
	$self->{run}->finish or die "transaction.py: $self->{err}";
	return;
}

sub say_to
{
	my ($self, $command) = @_;

	$self->{in} .= "$command\n";
	pump_until($self->{run}, $self->{timeout}, \$self->{out}, qr/ok\n/) or die "transaction.py: $command: $self->{err}";
	$self->{out} = '';
	return;
}
