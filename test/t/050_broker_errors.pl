
# What goes wrong at the broker's side is said clearly and soon, and passes by
# itself when its cause does: an unreachable broker, an unknown topic, a refused
# login, a broker that goes away under a running query.  NULL payloads, large
# records, aborted transactions and markers are accounted for.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use StreamEngine::Orders;
use StreamEngine::Test;

my $node = new_node('main', conf => q(
stream_engine.commit_interval = 50ms
stream_engine.retry_interval = 100ms
));
my $broker    = broker(private => 1);
my $bootstrap = $broker->bootstrap;
my $dir       = PostgreSQL::Test::Utils::tempdir('orders');

sub create_stream
{
	my ($name, $server, $topic, $more) = @_;
	$more //= '';
	return qq(SELECT stream_engine.create_stream('$name', server => '$server', topic => '$topic',
		columns => 'k text, v text, ts timestamptz', event_time => 'ts', watermark_delay => '1 second',
		idle_timeout => '1 hour'$more));
}

# The statement fails with this error, soon.
sub fails_soon
{
	my ($sql, $error, $name) = @_;
	my $start = time;
	my ($rc, $out, $err) = $node->psql('postgres', $sql);
	my $took = time - $start;

	ok($rc != 0 && $err =~ $error, $name) or diag("$rc: $out$err");
	cmp_ok($took, '<', 15, 'within seconds');
	return;
}

# ---------------------------------------------------------------------------
# At creation
# ---------------------------------------------------------------------------

# A port that was free a moment ago.
my $free = StreamEngine::Mockd->new(tools_dir() . '/mockd');
my $nobody = $free->bootstrap;
$free->end;
$node->safe_psql('postgres', qq(
	CREATE SERVER kafka FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (bootstrap_servers '$bootstrap');
	CREATE SERVER nobody FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (bootstrap_servers '$nobody')));

fails_soon(create_stream('s', 'nobody', 't'),
	qr/ERROR:  could not reach Kafka at "\Q$nobody\E".*DETAIL: .*HINT:  Check the server's option bootstrap_servers/s,
	'an unreachable broker is named');
fails_soon(create_stream('s', 'kafka', 'no_such_topic'),
	qr/ERROR:  topic "no_such_topic" does not exist.*HINT:  Create the topic first/s, 'an unknown topic is named');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_class WHERE relname LIKE 's%' AND relkind = 'f' AND relnamespace = 'public'::regnamespace"),
	'0', 'a stream that failed leaves no table');
is($node->safe_psql('postgres', 'SELECT count(*) FROM stream_engine.stream'), '0', 'nor a row');

# Without the check the stream is made, and waits for what is missing.
$node->safe_psql('postgres', create_stream('later', 'kafka', 'later', q(, options => '{"defer_check": true}')));
wait_for($node, q(SELECT count(*) > 0 FROM stream_engine.stat_workers WHERE message LIKE 'topic "later" does not exist%'));
$broker->topic('later', 1);
$broker->produce('later', 0, '{"k": "a", "v": "x", "ts": "2025-01-01T00:00:00Z"}');
wait_for_all($node, 'later');
is($node->safe_psql('postgres', 'SELECT k, v FROM later_recent'), 'a|x', 'it goes on by itself when the topic is there');
is($node->safe_psql('postgres', q(SELECT count(*) FROM stream_engine.stat_workers WHERE message <> '')), '0', 'and complains no more');
$node->safe_psql('postgres', "SELECT stream_engine.drop_stream('later')");

# ---------------------------------------------------------------------------
# Logins
# ---------------------------------------------------------------------------

my $secure = broker(security => [ 'sasl_plain', 'reader', 'pass"word' ]);
my $login  = $secure->bootstrap;
$secure->topic('t', 1);
$secure->produce('t', 0, '{"k": "a", "v": "x", "ts": "2025-01-01T00:00:00Z"}');
$node->safe_psql('postgres', qq(
	CREATE SERVER secure FOREIGN DATA WRAPPER stream_engine_kafka
		OPTIONS (bootstrap_servers '$login', security_protocol 'sasl_plaintext', sasl_mechanism 'PLAIN');
	CREATE USER MAPPING FOR postgres SERVER secure OPTIONS (sasl_username 'reader', sasl_password 'secret wrong one')));
fails_soon(create_stream('s', 'secure', 't'), qr/ERROR:  Kafka at "\Q$login\E" refused the login/, 'a refused login is told');
$node->safe_psql('postgres', q(ALTER USER MAPPING FOR postgres SERVER secure OPTIONS (SET sasl_password 'pass"word')));
$node->safe_psql('postgres', create_stream('s', 'secure', 't'));
wait_for_all($node, 's');
is($node->safe_psql('postgres', 'SELECT k, v FROM s_recent'), 'a|x', 'a stream with the right password is read');
is($node->safe_psql('postgres', 'SELECT k, v FROM s'), 'a|x', 'and scanned');
my ($rc, $out, $err) = $node->psql('postgres',
	"CREATE SERVER plain FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (bootstrap_servers '$login'); "
	  . create_stream('p', 'plain', 't'));
ok($rc != 0 && $err =~ /ERROR:  (?:could not reach Kafka|Kafka at .* refused)/, 'one that does not log in is refused') or diag($err);
$node->safe_psql('postgres', "SELECT stream_engine.drop_stream('s')");
$secure->stop;

# ---------------------------------------------------------------------------
# A broker that goes away and comes back
# ---------------------------------------------------------------------------

my @to = ('--brokers', $bootstrap, '--topic', 'orders', '--partitions', 2, '--late', 0.01,
	'--late-by', 30, '--bad', 0.01, '--tombstones', 0.01);
$broker->topic('orders', 2);
create_orders($node, 'orders', 'orders', "idle_timeout => '1 hour'");
create_sales($node, 'sales', 'orders');
make_orders("$dir/0.tsv", '--count', 20_000, @to);
wait_for_all($node, 'sales');

my $i = 0;
foreach my $how (qw(stop kill))
{
	# In the midst of reading, if the machine is not too quick.
	make_orders("$dir/" . ++$i . '.tsv', '--first', $i * 20_000, '--count', 20_000, '--seed', $i, @to);
	$how eq 'stop' ? $broker->stop : $broker->kill;
	wait_for($node, q(SELECT count(*) > 0 FROM stream_engine.stat_workers WHERE kind = 'reader' AND message <> ''));
	is($node->safe_psql('postgres', q(SELECT count(*) > 0 FROM stream_engine.why('sales') WHERE finding = 'the worker has a problem')),
		't', "$how: why() tells that the broker is away");
	is($node->safe_psql('postgres', q(SELECT string_agg(DISTINCT state, ',') FROM (SELECT state FROM stream_engine.queries UNION ALL SELECT state FROM stream_engine.streams) s)),
		'running', "$how: that is no reason to stop the query");
	fails_soon('SELECT count(*) FROM orders', qr/ERROR:  could not reach Kafka at/, "$how: a scan fails");
	# A worker that is new while the broker is away waits for it as well.
	kill9_worker($node, 'stream_engine reader%') if $how eq 'kill';
	$broker->restart;
	make_orders("$dir/" . ++$i . '.tsv', '--first', $i * 20_000, '--count', 20_000, '--seed', $i, @to);
	wait_for_all($node, 'sales');
	is($node->safe_psql('postgres', q(SELECT count(*) FROM stream_engine.stat_workers WHERE message <> '')), '0', "$how: the workers go on by themselves");
}

is_computed($node, 'sales', [ map { "$dir/$_.tsv" } 0 .. $i ]);
is_accounted($node, 'sales');

# ---------------------------------------------------------------------------
# Transactions
# ---------------------------------------------------------------------------

# Aborted records are not seen; they and the markers are gaps.
my $aborted = make_orders("$dir/t.tsv", '--brokers', $bootstrap, '--topic', 'orders', '--partitions', 2,
	'--first', 100_000, '--count', 20_000, '--seed', 9, '--transaction', 500, '--abort', 0.3);
wait_for_all($node, 'sales');
is($node->safe_psql('postgres', q(SELECT sum(lag), sum(gaps) > 5000 FROM stream_engine.stat_partitions WHERE query IS NOT NULL)),
	'0|t', 'a topic that ends in markers is read to its end, aborted records are gaps');
make_orders("$dir/e.tsv", '--brokers', $bootstrap, '--topic', 'orders', '--partitions', 2,
	'--first', 120_000, '--count', 1_000, '--end-marker', 60);
wait_for_all($node, 'sales');
is_accounted($node, 'sales');
is_verified($node, 'sales');
is($node->safe_psql('postgres', q(SET client_min_messages = error;
	SELECT (SELECT count(*) FROM orders) = sum(decoded + future) FROM stream_engine.stat_partitions WHERE query IS NOT NULL)),
	't', 'a scan sees the same records');

# ---------------------------------------------------------------------------
# Odd records
# ---------------------------------------------------------------------------

my $big = 1_000_000;
$broker->topic('odd', 1);
$broker->produce('odd', 0, undef, '{"k": "a", "v": "' . 'x' x $big . '", "ts": "2025-01-01T00:00:01Z"}', undef,
	'not json', '{"k": "b", "v": "' . 'y' x $big . '", "ts": "2025-01-01T00:00:02"', '[]', '{}',
	'{"k": null, "v": null, "ts": "2025-01-01T00:01:00Z"}', undef);
$node->safe_psql('postgres', create_stream('odd', 'kafka', 'odd'));
$node->safe_psql('postgres', q(
	SELECT stream_engine.create_query('sizes', $$
		SELECT k, max(length(v)) AS longest, max(v) AS v, count(*) AS n FROM odd GROUP BY tumble(ts, '10 seconds'), k $$)));
wait_for_all($node, 'sizes');
wait_for_all($node, 'odd');
is($node->safe_psql('postgres', 'SELECT k, longest, length(v), n FROM sizes'), "a|$big|$big|1", 'a record of a megabyte counts');
is($node->safe_psql('postgres', 'SELECT k, longest, n FROM sizes_open'), '||1', 'a row of NULLs too');
is($node->safe_psql('postgres', q(SELECT "offset", sqlstate IS NOT NULL, length(payload) FROM stream_engine.dead_letters WHERE stream = 'odd'::regclass ORDER BY 1)),
	join("\n", '3|t|8', '4|t|' . ($big + 47), '5|t|2', '6|t|2'), 'bad records are kept with their bytes');
is($node->safe_psql('postgres', q(SELECT records, tombstones, dead, decoded FROM stream_engine.stat_partitions WHERE query = 'sizes'::regclass)),
	'9|3|4|2', 'NULL payloads are counted');
is_accounted($node, 'sizes');
is_verified($node, 'sizes');

# ---------------------------------------------------------------------------
# Bad records that stop the stream, and the end of their partition behind them
# ---------------------------------------------------------------------------

sub good
{
	return map { sprintf '{"k": "a", "v": "x", "ts": "2025-01-01T00:%02d:%02dZ"}', $_ / 60, $_ % 60 } @_;
}

# The stream stands in front of a record, and no record of any partition has been passed over.
sub has_stopped
{
	my ($partition, $offset, $error) = @_;
	wait_for($node, "SELECT state = 'error' FROM stream_engine.streams WHERE name = 'stops'::regclass");
	like($node->safe_psql('postgres', "SELECT error_partition, error_offset, error FROM stream_engine.streams WHERE name = 'stops'::regclass"),
		qr/^$partition\|$offset\|$error/, "the stream stops in front of offset $offset of partition $partition");
	wait_for($node, q(SELECT count(*) = 0 FROM stream_engine.stat_workers w JOIN stream_engine.reader r ON r.id = w.reader
		JOIN stream_engine.stream s ON s.id = r.stream WHERE s.relation = 'stops'::regclass AND w.pid IS NOT NULL));
	is($node->safe_psql('postgres', "SELECT count(*) FROM stream_engine.stat_partitions WHERE stream = 'stops'::regclass
			AND (records + gaps <> next_offset OR partition = $partition AND (next_offset > $offset OR gaps <> 0))"),
		'0', 'nothing is passed over');
	return;
}

sub resume
{
	$node->safe_psql('postgres', "SELECT stream_engine.resume('stops')");
	return;
}

# What was there before is brought by one fetch, with the ends.
$broker->topic('stops', 2);
$broker->produce('stops', 0, good(1 .. 3), 'bad', good(5 .. 10));
$broker->produce('stops', 1, good(1 .. 10));
$node->safe_psql('postgres', create_stream('stops', 'kafka', 'stops', ", on_error => 'pause'"));
$node->safe_psql('postgres', q(
	SELECT stream_engine.create_query('stopped', $$ SELECT k, count(*) AS n FROM stops GROUP BY tumble(ts, '10 seconds'), k $$)));
has_stopped(0, 3, 'invalid JSON');
resume();
has_stopped(0, 3, 'invalid JSON');
kill9_server($node);
has_stopped(0, 3, 'invalid JSON');
$node->safe_psql('postgres', "SELECT stream_engine.skip('stops', 0, 3)");
resume();
wait_for_all($node, $_) foreach qw(stops stopped);
is($node->safe_psql('postgres', 'SELECT sum(n) FROM stopped_live'), '19', 'what lay behind it is read');

# The bad record is the last one; or it has nothing but an aborted transaction behind it.
$broker->produce('stops', 1, good(11 .. 15), 'bad');
has_stopped(1, 15, 'invalid JSON');
make_orders("$dir/s.tsv", '--brokers', $bootstrap, '--topic', 'stops', '--partitions', 2, '--count', 200, '--transaction', 100, '--abort', 1);
resume();
has_stopped(1, 15, 'invalid JSON');
$node->safe_psql('postgres', "SELECT stream_engine.skip('stops', 1, 15)");
resume();
wait_for_all($node, $_) foreach qw(stops stopped);
is($node->safe_psql('postgres', "SELECT sum(lag), sum(skipped), sum(gaps) > 200 FROM stream_engine.stat_partitions WHERE query = 'stopped'::regclass"),
	'0|2|t', 'the end is reached behind an aborted transaction');
is_accounted($node, 'stopped');
is_verified($node, 'stopped');

leaves_nothing($node);
done_testing();
