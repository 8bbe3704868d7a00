
# Orders.pm
#	The main job as tests drive it: orders into a topic, a tumbling query over
#	them, and judges that share no code with the engine.
#
# NOTES
#	The judges are test/tools/orders_oracle.py, which computes results, late
#	records and dead letters from a copy of the orders, the accounting identities,
#	and verify(), which reads the topic again.

package StreamEngine::Orders;

use strict;
use warnings FATAL => 'all';

use Carp;
use Exporter 'import';
use IPC::Run;
use JSON::PP ();
use PostgreSQL::Test::Utils;
use StreamEngine::Test;
use Test::More;

our @EXPORT = qw(
  make_orders start_orders finish_orders create_server create_orders
  create_sales wait_for_all sales_rows is_computed is_accounted is_verified
);

# Size of windows and watermark_delay, in seconds, unless told otherwise.
my %default = (size => 10, delay => 5);

# make_orders(FILE, ARGUMENTS...): runs test/tools/orders to its end, the orders
# also go into FILE.  Returns its summary.
sub make_orders
{
	my ($file, @arguments) = @_;
	return finish_orders(start_orders($file, @arguments));
}

# start_orders(FILE, ARGUMENTS...): the same in the background; give what it
# returns to finish_orders.
sub start_orders
{
	my ($file, @arguments) = @_;
	my $self = { out => '', err => '', file => $file };

	$self->{run} = IPC::Run::start(
		[ tools_dir() . '/orders', '--file', $file, '--summary', '-', @arguments ],
		'<', \undef, '>', \$self->{out}, '2>', \$self->{err});
	return $self;
}

sub finish_orders
{
	my ($self) = @_;

	$self->{run}->finish or croak "orders: $self->{err}";
	return JSON::PP::decode_json($self->{out});
}

# create_server(NODE, BROKER [, OPTIONS]): a server called kafka.
sub create_server
{
	my ($node, $broker, $options) = @_;
	my $bootstrap = $broker->bootstrap;

	$node->safe_psql('postgres',
		"CREATE SERVER kafka FOREIGN DATA WRAPPER stream_engine_kafka
		 OPTIONS (bootstrap_servers '$bootstrap'" . ($options ? ", $options" : '') . ')');
	return;
}

# create_orders(NODE, NAME, TOPIC [, ARGUMENTS]): the stream over a topic of
# orders; ARGUMENTS are more ones of create_stream.
sub create_orders
{
	my ($node, $name, $topic, $arguments) = @_;
	$arguments = $arguments ? ", $arguments" : '';
	$arguments .= ", watermark_delay => '$default{delay} seconds'"
	  unless $arguments =~ /watermark_delay/;

	$node->safe_psql('postgres', qq(
		SELECT stream_engine.create_stream('$name', server => 'kafka', topic => '$topic',
			columns => \$\$ order_id bigint, user_id bigint PATH '\$.user.id', category text,
				amount numeric CHECK (amount >= 0), event_time timestamptz PATH '\$.ts' \$\$,
			event_time => 'event_time'$arguments)));
	return;
}

# create_sales(NODE, NAME, STREAM [, ARGUMENTS]): the query that the oracle
# answers; ARGUMENTS are more ones of create_query.
sub create_sales
{
	my ($node, $name, $stream, $arguments) = @_;
	$arguments = $arguments ? ", $arguments" : '';

	$node->safe_psql('postgres', qq(
		SELECT stream_engine.create_query('$name', \$\$
			SELECT category, sum(amount) AS total, count(*) AS orders, min(amount) AS low,
				max(amount) AS high, avg(amount) AS mean
			FROM $stream GROUP BY tumble(event_time, '$default{size} seconds'), category \$\$$arguments)));
	return;
}

# wait_for_all(NODE, NAME): until all that is in the topic is committed.  The server may be
# coming up again.
sub wait_for_all
{
	my ($node, $name) = @_;
	my $seconds = $PostgreSQL::Test::Utils::timeout_default;
	my ($rc, $out, $err);

	# 2: the connection could not be made, or was lost
	wait_until(
		$node,
		sub {
			($rc, $out, $err) = $node->psql('postgres', "CALL stream_engine.wait('$name', '$seconds seconds')");
			return $rc != 2;
		},
		"the server tells whether all of $name is committed");
	return if $rc == 0;
	report_state($node);
	croak "waited in vain for $name: $err";
}

# sales_rows(NODE, QUERY [, CONDITION]): result rows as the oracle prints them.
sub sales_rows
{
	my ($node, $query, $condition) = @_;
	$condition //= 'true';
	return $node->safe_psql('postgres', qq(
		SET TimeZone = 'UTC';
		COPY (SELECT window_start, category, total, orders, low, high, mean FROM $query
			WHERE $condition ORDER BY window_start, category COLLATE "C") TO STDOUT (FORMAT csv)));
}

# is_computed(NODE, QUERY, FILES, OPTIONS): results, late records and dead letters
# are those that the oracle computes from files with the topic's orders, in their
# order, and from the ledger.
#	size, delay    of the query and its stream, in seconds
sub is_computed
{
	my ($node, $query, $files, %options) = @_;
	my $dir  = PostgreSQL::Test::Utils::tempdir('oracle');
	my $size  = $options{size}  // $default{size};
	my $delay = $options{delay} // $default{delay};
	my ($out, $err) = ('', '');

	append_to_file(
		"$dir/ledger.csv",
		$node->safe_psql('postgres', qq(
			SET TimeZone = 'UTC';
			COPY (SELECT l.seq, l.watermark, p.partition, p.next_offset, p.watermark, p.idle
				FROM stream_engine.query_ledger l,
				LATERAL ROWS FROM (unnest(l.partitions), unnest(l.next_offsets), unnest(l.watermarks),
					unnest(l.idle)) AS p(partition, next_offset, watermark, idle)
				WHERE l.query = '$query'::regclass ORDER BY 1, 3) TO STDOUT (FORMAT csv))) . "\n");
	my $file = $files->[0];
	if (@$files > 1)
	{
		$file = "$dir/orders.tsv";
		IPC::Run::run([ 'cat', @$files ], '>', $file) or croak "cannot write $file";
	}
	my $agrees = IPC::Run::run(
		[
			tools_dir() . '/orders_oracle.py', $file,
			'--size', $size, '--delay', $delay, '--late', 'ledger', '--ledger', "$dir/ledger.csv",
			'--dead', "$dir/dead.csv", '--late-out', "$dir/late.csv"
		],
		'>', \$out, '2>', \$err);
	ok($agrees, "$query: watermarks and lateness are what the ledger and the orders say")
	  or diag($err);

	$out =~ s/^.*\n//;
	_same_lines(sales_rows($node, $query), $out, "$query: results");
	_same_lines(
		$node->safe_psql('postgres', qq(
			COPY (SELECT partition, "offset" FROM stream_engine.late_events
				WHERE query = '$query'::regclass ORDER BY 1, 2) TO STDOUT (FORMAT csv))),
		_sorted("$dir/late.csv"),
		"$query: late records");
	_same_lines(
		$node->safe_psql('postgres', qq(
			COPY (SELECT d.partition, d."offset", d.reason FROM stream_engine.dead_letters d
				JOIN stream_engine.queries q ON q.stream = d.stream
				WHERE q.name = '$query'::regclass ORDER BY 1, 2) TO STDOUT (FORMAT csv))),
		_sorted("$dir/dead.csv"),
		"$query: dead letters");
	return;
}

# is_accounted(NODE, QUERY): the identities hold for each partition, and the
# counters are as many as the rows that they count.
sub is_accounted
{
	my ($node, $query) = @_;

	is( $node->safe_psql('postgres', qq(
			SELECT p.partition, p.records, p.gaps, p.next_offset - p.start_offset AS distance,
				p.decoded, p.dead, p.future, p.tombstones, p.skipped,
				k.counted, k.filtered, k.late, k.before_start, k.failed
			FROM stream_engine.query q
			JOIN stream_engine.stat_partitions p ON p.query = q.result
			LEFT JOIN stream_engine.query_partition k ON k.query = q.id AND k.partition = p.partition
			WHERE q.result = '$query'::regclass
			AND (p.records + p.gaps <> p.next_offset - p.start_offset
				OR p.records <> p.decoded + p.dead + p.future + p.tombstones + p.skipped
				OR p.decoded <> COALESCE(k.counted + k.filtered + k.late + k.before_start + k.failed, 0))
			ORDER BY 1)),
		'', "$query: every record is accounted for");
	is( $node->safe_psql('postgres', qq(
			SELECT k.late = (SELECT count(*) FROM stream_engine.late_event l WHERE l.query = q.id AND NOT l.partly),
				p.dead = (SELECT count(*) FROM stream_engine.dead_letter d
					WHERE d.stream = q.stream AND d.reason = 'bad' AND d."offset" >= p.low),
				p.future = (SELECT count(*) FROM stream_engine.dead_letter d
					WHERE d.stream = q.stream AND d.reason = 'future' AND d."offset" >= p.low)
			FROM stream_engine.query q,
				LATERAL (SELECT sum(late) AS late FROM stream_engine.query_partition WHERE query = q.id) k,
				LATERAL (SELECT sum(r.dead) AS dead, sum(r.future) AS future, min(r.start_offset) AS low
					FROM stream_engine.stat_partitions r WHERE r.query = q.result) p
			WHERE q.result = '$query'::regclass AND q.start = 'earliest')),
		't|t|t', "$query: late records and dead letters are rows")
	  if $node->safe_psql('postgres', "SELECT start = 'earliest' FROM stream_engine.queries WHERE name = '$query'::regclass") eq 't';
	return;
}

# is_verified(NODE, QUERY): reading the topic again gives the same results.
sub is_verified
{
	my ($node, $query) = @_;

	is( $node->safe_psql('postgres', "SELECT * FROM stream_engine.verify('$query') LIMIT 10"),
		'', "$query: verify() finds nothing");
	return;
}

# Lines "partition,offset..." of a file in order of both.
sub _sorted
{
	my ($path) = @_;
	my @rows = map { [ /^(\d+),(\d+)/, $_ ] } split /\n/, slurp_file($path);

	return join("\n",
		map { $_->[2] } sort { $a->[0] <=> $b->[0] || $a->[1] <=> $b->[1] } @rows);
}

# A comparison of many lines that shows the first few that differ.
sub _same_lines
{
	my ($got, $expected, $name) = @_;
	my @got      = split /\n/, $got;
	my @expected = split /\n/, $expected;

	if (ok("@got" eq "@expected", "$name (" . @expected . ' rows) are as computed'))
	{
		return;
	}
	my %in_got      = map { $_ => 1 } @got;
	my %in_expected = map { $_ => 1 } @expected;
	my @missing = grep { !$in_got{$_} } @expected;
	my @extra   = grep { !$in_expected{$_} } @got;
	diag(@got . ' rows, expected ' . @expected);
	diag("missing: $_") foreach splice(@missing, 0, 10);
	diag("not expected: $_") foreach splice(@extra, 0, 10);
	return;
}

1;
