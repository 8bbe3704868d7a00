
# Rule: what <query>_live shows on a standby is of one instant under each snapshot, closed and open
# windows together, while commits, closes and the emptying of segments are being replayed there.  A
# session that keeps a snapshot for all of that time sees in the end what it saw at first, or gets
# "snapshot too old".

use strict;
use warnings FATAL => 'all';

use IPC::Run qw(start);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Segments;
use StreamEngine::Test;

my $batches = long_run() ? 1000 : 100;
my $primary = new_node('primary', allows_streaming => 1, conf => q(
stream_engine.commit_interval = 10ms
stream_engine.state_log_rate = '1GB'
max_wal_size = 2GB
));
create_segments_job($primary);
$primary->safe_psql('postgres', q(
	-- of each query what its windows hold and what it has counted, and rows that are there twice
	CREATE FUNCTION shown() RETURNS text LANGUAGE sql AS $$
		WITH live AS (
			SELECT 'short' AS query, window_start, window_end, k, n FROM short_live
			UNION ALL SELECT 'long', window_start, window_end, k, n FROM long_live
			UNION ALL SELECT 'sessions', window_start, window_end, k, n FROM sessions_live)
		SELECT string_agg(concat_ws(' ', s.query, s.counted, l.n, l.repeated), ', ' ORDER BY s.query::text)
		FROM stream_engine.stat_queries s, LATERAL (SELECT COALESCE(sum(n), 0) AS n,
			count(*) - count(DISTINCT (window_start, window_end, k)) AS repeated FROM live WHERE live.query = s.query::text) l $$;

	-- look until all has been counted; how often it has looked, and how often its snapshot was too old
	CREATE PROCEDURE hammer(records bigint, INOUT looks int, INOUT refused int) LANGUAGE plpgsql AS $$
	DECLARE
		one text;
		two text;
	BEGIN
		LOOP
			COMMIT;
			BEGIN
				one := shown();
				looks := looks + 1;
				IF one !~ '^long (\d+) \1 0, sessions (\d+) \2 0, short (\d+) \3 0$' THEN
					RAISE EXCEPTION '%', one;
				END IF;
				IF current_setting('transaction_isolation') = 'repeatable read' THEN
					two := shown();
					IF one <> two THEN
						RAISE EXCEPTION 'it was %, and is %', one, two;
					END IF;
				END IF;
			EXCEPTION WHEN SQLSTATE '72000' THEN
				refused := refused + 1;
			END;
			EXIT WHEN (SELECT min(counted) = records FROM stream_engine.stat_queries);
		END LOOP;
	END $$;
));
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
# Nobody is cancelled: replay waits for whoever reads, who never reads for long.
$standby->append_conf('postgresql.conf', "hot_standby_feedback = on\nwal_receiver_status_interval = 1s\nmax_standby_streaming_delay = -1");
$standby->start;

$primary->safe_psql('postgres', 'CALL feed(0, 19)');
$primary->safe_psql('postgres', "CALL stream_engine.wait('events', '2 minutes')");
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
my $old = $standby->background_psql('postgres', on_error_stop => 0);
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $first = $old->query_safe('SELECT shown()');
is($first, 'long 40000 40000 0, sessions 40000 40000 0, short 40000 40000 0', 'the standby shows all that was counted');
# The primary knows of that snapshot.
wait_for($primary, "SELECT count(*) = 1 FROM pg_stat_replication WHERE backend_xmin IS NOT NULL");

my $last    = $batches - 1;
my $records = $batches * 2000;
my @clients = map {
	my ($node, $isolation, $sql) = @$_;
	my ($out, $err) = ('', '');
	local $ENV{PGOPTIONS} = "-c default_transaction_isolation=$isolation";
	my $run = start(
		[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-c', $sql ],
		'<', \undef, '>', \$out, '2>', \$err,
		IPC::Run::timeout(10 * $PostgreSQL::Test::Utils::timeout_default));
	{ name => $isolation =~ s/\\//r . ": $sql", run => $run, out => \$out, err => \$err }
} (
	[ $primary, 'read\\ committed', "CALL feed(20, $last)" ],
	[ $standby, 'read\\ committed', "CALL hammer($records, 0, 0)" ],
	[ $standby, 'repeatable\\ read', "CALL hammer($records, 0, 0)" ]);
foreach my $client (@clients)
{
	$client->{run}->finish;
	is(${ $client->{err} }, '', "$client->{name} has found nothing wrong");
	next if $client->{name} !~ /hammer/;
	my ($looks, $refused) = ${ $client->{out} } =~ /^(\d+)\|(\d+)$/m;
	cmp_ok($looks, '>', 3, "$looks looks, $refused refused");
}
my $emptied = $primary->safe_psql('postgres', 'SELECT sum(generation) - 4 FROM stream_engine.state_segment');
cmp_ok($emptied, '>', 0, "segments have been emptied ($emptied times)");

my $answer = $old->query('SELECT shown()');
ok($answer eq $first || $old->{stderr} =~ /snapshot too old/, 'an old snapshot shows what it did, or is refused')
  or diag("$answer, $old->{stderr}");
note($old->{stderr});
$old->{stderr} = '';
$old->query_safe('ROLLBACK');
is($old->query_safe('SELECT shown()'), "long $records $records 0, sessions $records $records 0, short $records $records 0", 'a new one sees all');
$old->quit;

$standby->promote;
wait_for($standby, 'SELECT NOT pg_is_in_recovery()');
is($standby->safe_psql('postgres', "SELECT * FROM stream_engine.verify('short') LIMIT 5"), '', 'what was promoted is verified');
leaves_nothing($standby);
$primary->stop('fast');
done_testing();
