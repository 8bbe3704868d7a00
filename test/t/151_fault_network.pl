
# The network between server and broker is cut, becomes a black hole for longer than
# any time-out, loses the answers, crawls, resets connections, while orders come: the
# reason is shown, the worker stays responsive, and when the fault is over all goes on
# by itself and no record is lost or counted twice.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use StreamEngine::Orders;
use StreamEngine::Test;

my $node = new_node('main', conf => q(
stream_engine.commit_interval = 20ms
stream_engine.retry_interval = 50ms
));
my $proxy = proxy();
my ($port) = $proxy->bootstrap =~ /:(\d+)$/;
my $broker = broker(security => [ 'proxied', $port ]);
my $dir = PostgreSQL::Test::Utils::tempdir('orders');
$proxy->to($broker->bootstrap);

my $address = $proxy->bootstrap;
$broker->topic('orders', 2);
# No answer for so long is a time-out of each kind; a slow line must get an answer through in it.
$node->safe_psql('postgres', qq(
	CREATE SERVER kafka FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (bootstrap_servers '$address',
		socket_timeout_ms '1000', socket_connection_setup_timeout_ms '1000', reconnect_backoff_max_ms '200',
		fetch_message_max_bytes '50000')));
create_orders($node, 'orders', 'orders', "idle_timeout => '1 hour', staging_retention => '0'");
create_sales($node, 'sales', 'orders');

my @files;
my $chunk = 10_000;

# The next orders, through the listener that has no proxy.
sub start_more
{
	my (@more) = @_;
	my $i = @files;
	push @files, "$dir/$i.tsv";
	return start_orders($files[-1], '--brokers', $broker->admin, '--topic', 'orders', '--partitions', 2,
		'--first', $i * $chunk, '--count', $chunk, '--seed', $i, '--rate', 100,
		'--late', 0.01, '--late-by', 30, '--bad', 0.005, @more);
}

sub committed
{
	return $node->safe_psql('postgres', 'SELECT COALESCE(sum(next_offset), 0) FROM stream_engine.reader_partition');
}

my $trouble = q(SELECT count(*) > 0 FROM stream_engine.stat_workers WHERE kind = 'reader' AND message <> '');

finish_orders(start_more());
wait_for_all($node, 'sales');

foreach my $fault ('cut', 'stall', 'half')
{
	my $orders = start_more('--throttle', $chunk);
	my $from = committed();
	wait_for($node, "SELECT sum(next_offset) > $from + 1000 FROM stream_engine.reader_partition");
	$proxy->command($fault);
	finish_orders($orders);
	wait_for($node, $trouble);
	is($node->safe_psql('postgres', q(SELECT string_agg(DISTINCT state, ',') FROM (SELECT state FROM stream_engine.queries UNION ALL SELECT state FROM stream_engine.streams) s)),
		'running', "$fault: that is no reason to stop");
	is($node->safe_psql('postgres', q(SELECT count(*) FROM stream_engine.why('sales') WHERE finding = 'the worker has a problem')),
		'1', "$fault: why() tells");
	my $start = time;
	my ($rc, $out, $err) = $node->psql('postgres', 'SELECT count(*) FROM orders');
	like($err, qr/ERROR:  could not (?:reach Kafka|read topic)/, "$fault: a scan fails");
	cmp_ok(time - $start, '<', 20, "$fault: within seconds");

	# Workers come and go while nobody answers.
	$start = time;
	$node->safe_psql('postgres', "SELECT stream_engine.pause('sales')");
	wait_for_processes($node, 0, '%reader%');
	# what had come before the fault has been committed by now
	$from = committed();
	$node->safe_psql('postgres', "SELECT stream_engine.resume('sales')");
	wait_for_processes($node, 1, '%reader%');
	$node->stop('fast');
	$node->start;
	wait_for_processes($node, 1, '%reader%');
	kill9_worker($node, 'stream_engine reader%');
	wait_for($node, $trouble);
	cmp_ok(time - $start, '<', 60, "$fault: pause, stop and kill do not wait for the network");
	is(committed(), $from, "$fault: nothing has been committed meanwhile");

	$proxy->command('on');
	wait_for_all($node, 'sales');
	is($node->safe_psql('postgres', "SELECT NOT ($trouble)"), 't', "$fault: it goes on by itself");
}

# Connections are reset again and again, and the line is slow.
my $orders = start_more('--throttle', $chunk);
foreach my $i (1 .. 20)
{
	my $from = committed();
	$proxy->drop;
	wait_for($node, "SELECT sum(next_offset) > $from OR sum(next_offset) >= @{[@files * $chunk]} FROM stream_engine.reader_partition");
}
finish_orders($orders);
wait_for_all($node, 'sales');
$proxy->command('slow 200000');
finish_orders(start_more('--end-marker', 60));
wait_for_all($node, 'sales');
$proxy->command('on');

is_computed($node, 'sales', \@files);
is_accounted($node, 'sales');
is_verified($node, 'sales');
unlike(log_since($node, 0), qr/PANIC|TRAP|signal (?!9:)/, 'the log has no crash but those that were made');

leaves_nothing($node);
$proxy->end;
done_testing();
