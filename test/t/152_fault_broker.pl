
# What a broker does to a running stream besides going away: other passwords, compaction
# that takes the last record read, records larger than any fetch, a record that cannot be
# had.  Each has a visible state; the stream goes on by itself, or when the operator says.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Orders;
use StreamEngine::Test;

my $node = new_node('main', conf => q(
stream_engine.commit_interval = 20ms
stream_engine.retry_interval = 50ms
));

sub record
{
	my ($key, $second) = @_;
	return sprintf('{"k": "%s", "v": 1, "ts": "2025-01-01T%02d:%02d:%02dZ"}', $key,
		$second / 3600, $second / 60 % 60, $second % 60);
}

sub create
{
	my ($name, $server, $topic) = @_;
	$node->safe_psql('postgres', qq(
		SELECT stream_engine.create_stream('$name', server => '$server', topic => '$topic',
			columns => 'k text, v int, ts timestamptz', event_time => 'ts', watermark_delay => '1 second',
			idle_timeout => '1 hour', staging_retention => '0');
		SELECT stream_engine.create_query('${name}_q', \$\$ SELECT k, count(*) AS n FROM $name
			GROUP BY tumble(ts, '10 seconds'), k \$\$)));
	return;
}

sub counted
{
	my ($name) = @_;
	wait_for_all($node, "${name}_q");
	return $node->safe_psql('postgres', "SELECT counted FROM stream_engine.stat_queries WHERE query = '${name}_q'::regclass");
}

# ---------------------------------------------------------------------------
# Other passwords
# ---------------------------------------------------------------------------

my $secure = broker(security => [ 'sasl_plain', 'reader', 'first' ]);
my $login = $secure->bootstrap;
my $dir = PostgreSQL::Test::Utils::tempdir('passwords');
$secure->topic('t', 1);
$node->safe_psql('postgres', qq(
	CREATE SERVER secure FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (bootstrap_servers '$login',
		security_protocol 'sasl_plaintext', sasl_mechanism 'PLAIN', reconnect_backoff_max_ms '200');
	CREATE USER MAPPING FOR postgres SERVER secure OPTIONS (sasl_username 'reader', sasl_password 'first')));
create('secured', 'secure', 't');
$secure->produce('t', 0, map { record('a', $_) } 1 .. 10);
is(counted('secured'), 10, 'a stream with a login is read');

sub change_password
{
	my ($from, $to) = @_;
	my $file = "$secure->{dir}/server.properties";
	my $properties = slurp_file($file);
	$properties =~ s/(user_reader=\\*"?)$from/$1$to/ or die "no password $from in $file";
	open(my $out, '>', $file) or die "$file: $!";
	print $out $properties;
	close($out);
	$secure->restart;
	wait_for($node, q(SELECT count(*) > 0 FROM stream_engine.stat_workers WHERE kind = 'reader' AND message LIKE '%refused the login%'));
	is($node->safe_psql('postgres', 'SELECT DISTINCT state FROM stream_engine.queries'), 'running', "$to password: the query waits");
	is($node->safe_psql('postgres', q(SELECT count(*) FROM stream_engine.why('secured_q') WHERE detail LIKE '%refused the login%')),
		'1', "$to password: why() says so");
	return;
}

change_password('first', 'second');
$secure->produce('t', 0, map { record('a', $_) } 11 .. 20);
$node->safe_psql('postgres', "ALTER USER MAPPING FOR postgres SERVER secure OPTIONS (SET sasl_password 'second')");
is(counted('secured'), 20, 'it goes on with the right one by itself');

append_to_file("$dir/password", 'second');
$node->safe_psql('postgres', "ALTER USER MAPPING FOR postgres SERVER secure OPTIONS (DROP sasl_password, ADD sasl_password_file '$dir/password')");
change_password('second', 'third');
$secure->produce('t', 0, map { record('a', $_) } 21 .. 30);
open(my $out, '>', "$dir/password") or die "$dir/password: $!";
print $out 'third';
close($out);
is(counted('secured'), 30, 'a file with the new password is taken up');
is_accounted($node, 'secured_q');
is_verified($node, 'secured_q');
$node->safe_psql('postgres', "SELECT stream_engine.drop_stream('secured', true)");
$secure->stop;

# ---------------------------------------------------------------------------
# Compaction
# ---------------------------------------------------------------------------

my $broker = broker();
my $bootstrap = $broker->bootstrap;
$node->safe_psql('postgres', qq(
	CREATE SERVER kafka FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (bootstrap_servers '$bootstrap',
		fetch_message_max_bytes '10000', fetch_max_bytes '1000000')));
my $compact = $broker->topic_name('compact');
$broker->topic($compact, 1, 'cleanup.policy=compact', 'segment.ms=50', 'min.cleanable.dirty.ratio=0.001',
	'delete.retention.ms=0', 'min.compaction.lag.ms=0');

sub produce_keyed
{
	my (@pairs) = @_;
	my $input = join("\n", map { "$_->[0]|" . record($_->[0], $_->[1]) } @pairs) . "\n";
	my ($o, $e) = ('', '');
	IPC::Run::run([ 'kcat', '-P', '-q', '-b', $broker->admin, '-t', $compact, '-p', '0', '-K', '|' ],
		'<', \$input, '>', \$o, '2>', \$e) or die "kcat: $e";
	return;
}

sub first_offset_from
{
	my ($from) = @_;
	my ($o, $e) = ('', '');
	IPC::Run::run([ 'kcat', '-C', '-q', '-e', '-b', $broker->admin, '-t', $compact, '-p', '0', '-o', $from,
		'-c', '1', '-f', '%o' ], '<', \undef, '>', \$o, '2>', \$e) or die "kcat: $e";
	return $o;
}

create('compact', 'kafka', $compact);
produce_keyed(map { [ 'a', $_ ] } 1 .. 20);
is(counted('compact'), 20, 'a topic that will be compacted is read');
$node->safe_psql('postgres', "SELECT stream_engine.pause('compact')");
wait_for_processes($node, 0, '%reader%');
my $second = 20;
wait_until($node, sub { produce_keyed([ 'a', ++$second ]); first_offset_from(19) > 19 }, 'the last record read is compacted away');
$node->safe_psql('postgres', "SELECT stream_engine.resume('compact')");
wait_for_all($node, 'compact_q');
is($node->safe_psql('postgres', "SELECT problem IS NULL, records > 20 FROM stream_engine.stat_partitions WHERE query = 'compact_q'::regclass"),
	't|t', 'it goes on behind the hole');
is_accounted($node, 'compact_q');
$node->safe_psql('postgres', "SELECT stream_engine.drop_stream('compact', true)");

# ---------------------------------------------------------------------------
# Records larger than a fetch
# ---------------------------------------------------------------------------

my $large = $broker->topic_name('large');
$broker->topic($large, 1, 'max.message.bytes=9000000');
create('large', 'kafka', $large);
$broker->produce($large, 0, record('a', 1), record('b', 2) =~ s/\}/, "more": "@{[ 'x' x 5_000_000 ]}"}/r, record('a', 3));
is(counted('large'), 3, 'a record larger than all limits of a fetch is read');
$node->safe_psql('postgres', "SELECT stream_engine.drop_stream('large', true)");

# ---------------------------------------------------------------------------
# A record that cannot be fetched
# ---------------------------------------------------------------------------

my $mock = mockd();
my $address = $mock->bootstrap;
$mock->create('torn', 1);
$node->safe_psql('postgres', qq(
	CREATE SERVER mock FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (bootstrap_servers '$address', fetch_wait_max_ms '10')));
create('torn', 'mock', 'torn');
$mock->produce('torn', 0, map { record('a', $_) } 1 .. 5);
is(counted('torn'), 5, 'a topic is read');
# the answer to the next fetch: CORRUPT_MESSAGE
$mock->error(1, 2, 1);
my $stopped = "SELECT count(*) = 1 FROM stream_engine.stat_partitions WHERE query = 'torn_q'::regclass AND problem LIKE 'the record at offset 5 of partition 0 cannot be fetched:%'";
wait_for($node, $stopped);
$mock->produce('torn', 0, map { record('a', $_) } 6 .. 10);
kill9_server($node);
wait_for_processes($node, 1, '%reader%');
is($node->safe_psql('postgres', $stopped), 't', 'the partition stops, also after a crash');
$node->safe_psql('postgres', "SELECT stream_engine.skip('torn', 0, 5)");
is(counted('torn'), 9, 'skip() steps over it');
is($node->safe_psql('postgres', "SELECT records, skipped, problem FROM stream_engine.stat_partitions WHERE query = 'torn_q'::regclass"), '10|1|', 'and counts it');
is_accounted($node, 'torn_q');
$mock->error(1, 2, 1);
wait_for($node, "SELECT count(*) = 1 FROM stream_engine.stat_partitions WHERE query = 'torn_q'::regclass AND problem IS NOT NULL");
$mock->produce('torn', 0, map { record('a', $_) } 11 .. 15);
$node->safe_psql('postgres', "SELECT stream_engine.resume('torn')");
is(counted('torn'), 14, 'resume() tries it again');
is_accounted($node, 'torn_q');

# One with a hole in front of it, an aborted transaction, that is torn in the broker's own file.
my $holed = $broker->topic_name('holed');
$broker->topic($holed, 1);
$node->safe_psql('postgres', qq(
	CREATE SERVER checked FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (bootstrap_servers '$bootstrap', check_crcs 'true')));
create('holed', 'checked', $holed);
$broker->produce($holed, 0, map { record('a', $_) } 1 .. 3);
is(counted('holed'), 3, 'a topic is read');
$node->safe_psql('postgres', "SELECT stream_engine.pause('holed')");
my $steps = join("\n", (map { 'record ' . record('a', $_) } 4, 5), 'abort', '');
my $answers = '';
IPC::Run::run([ tools_dir() . '/transaction.py', $broker->admin, $holed, 0, "holed-$$" ], '<', \$steps, '>', \$answers) or die "transaction.py: $answers";
# the marker may be written a moment later
wait_until($node, sub { $broker->offsets($holed)->[0][1] == 6 }, 'the transaction has ended');
$broker->produce($holed, 0, record('torn', 6));
$broker->produce($holed, 0, map { record('a', $_) } 7, 8);
my ($segment) = glob "$broker->{dir}/*/$holed-0/00000000000000000000.log";
open(my $log, '+<:raw', $segment) or die "$segment: $!";
my $content = do { local $/; <$log> };
seek($log, index($content, '"torn"'), 0);
print $log '"tern"';
close($log) or die "$segment: $!";
$node->safe_psql('postgres', "SELECT stream_engine.resume('holed')");
wait_for($node, "SELECT count(*) = 1 FROM stream_engine.stat_partitions WHERE query = 'holed_q'::regclass AND problem LIKE 'the record at offset 6 of partition 0 cannot be fetched:%' AND next_offset = 6");
$node->safe_psql('postgres', "SELECT stream_engine.skip('holed', 0, 6)");
is(counted('holed'), 5, 'skip() steps over one that comes behind a hole');
is($node->safe_psql('postgres', "SELECT records, skipped, gaps, problem FROM stream_engine.stat_partitions WHERE query = 'holed_q'::regclass"), '6|1|3|', 'and the hole is counted');
is_accounted($node, 'holed_q');

leaves_nothing($node);
done_testing();
