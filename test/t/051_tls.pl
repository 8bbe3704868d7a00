
# Kafka over TLS: with a login, and with a certificate of the client.  A certificate that is not
# trusted, has expired, is of another host or is missing is refused with the reason and what to set;
# a query goes on by itself when the broker's is good again.  Processes that end amidst it take
# nothing down.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Orders;
use StreamEngine::Test;

my $node = new_node('main', conf => q(
stream_engine.commit_interval = 20ms
stream_engine.retry_interval = 100ms
));
my $certs = PostgreSQL::Test::Utils::tempdir('certs');

# ---------------------------------------------------------------------------
# Certificates
# ---------------------------------------------------------------------------

sub openssl
{
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'openssl', @_ ], '<', \undef, '>', \$out, '2>', \$err) or die "openssl @_: $err";
	return;
}

# An authority of its own: NAME.pem and NAME.key.
sub authority
{
	my ($name) = @_;

	openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', 30, '-subj', "/CN=$name",
		'-keyout', "$certs/$name.key", '-out', "$certs/$name.pem");
	return;
}

# certificate(NAME, AUTHORITY, HOSTS, DAYS): NAME.pem and NAME.key, valid for so many days.
sub certificate
{
	my ($name, $authority, $hosts, $days) = @_;

	append_to_file("$certs/$name.ext", "subjectAltName=$hosts\n");
	openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', "/CN=$name", '-keyout', "$certs/$name.key",
		'-out', "$certs/$name.csr");
	openssl('x509', '-req', '-in', "$certs/$name.csr", '-CA', "$certs/$authority.pem", '-CAkey', "$certs/$authority.key", '-CAcreateserial',
		'-days', $days, '-extfile', "$certs/$name.ext", '-out', "$certs/$name.pem");
	return;
}

my $here = 'IP:127.0.0.1,DNS:localhost';
authority($_) foreach qw(ca stranger);
certificate('good', 'ca', $here, 30);
certificate('expired', 'ca', $here, -1);
certificate('elsewhere', 'ca', 'DNS:kafka.example', 30);
certificate('client', 'ca', 'DNS:client.example', 30);
certificate('client_foreign', 'stranger', 'DNS:client.example', 30);
openssl('pkcs8', '-topk8', '-in', "$certs/client.key", '-passout', 'pass:of the key', '-out', "$certs/client_locked.key");
my %pem = map { ($_ => slurp_file("$certs/$_")) } qw(ca.pem stranger.pem client.pem client.key client_locked.key client_foreign.pem client_foreign.key);

# The broker's certificate, from its next start on.
sub broker_has
{
	my ($name) = @_;

	unlink "$certs/broker.pem";
	append_to_file("$certs/broker.pem", slurp_file("$certs/$name.key") . slurp_file("$certs/$name.pem"));
	return;
}

broker_has('good');
my $broker = broker(security => [ 'tls', 'reader', 'pass"word', $certs ]);
$broker->topic('t', 1);
my $second = 0;
my $sent = 0;

sub produce
{
	my ($n) = @_;
	$broker->produce('t', 0, map { sprintf '{"k": "a", "ts": "2026-01-01T00:%02d:%02dZ"}', int($second / 60), $second++ % 60 } 1 .. $n);
	$sent += $n;
	return;
}

# ---------------------------------------------------------------------------
# Servers, and what is said when they do not fit
# ---------------------------------------------------------------------------

my $number = 0;

# A server and what a user needs for it; returns the error of a stream that uses it.
sub refusal
{
	my ($where, $server, $user) = @_;
	my $name = 'server' . ++$number;

	$node->safe_psql('postgres', qq(
		CREATE SERVER $name FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (bootstrap_servers '$where'$server);
		CREATE USER MAPPING FOR postgres SERVER $name ) . ($user && "OPTIONS ($user)"));
	my ($rc, $out, $err) = $node->psql('postgres', qq(SELECT stream_engine.create_stream('s$number', server => '$name', topic => 't',
		columns => 'k text, ts timestamptz', event_time => 'ts', watermark_delay => '0 s')));
	return $rc == 0 ? '' : $err;
}

my $login = "sasl_username 'reader', sasl_password 'pass\"word'";
my $sasl = ", security_protocol 'sasl_ssl', sasl_mechanism 'PLAIN'";
my $trusts = ", ssl_ca_pem '$pem{'ca.pem'}'";
my $mine = "ssl_certificate_pem '$pem{'client.pem'}', ssl_key_pem '$pem{'client.key'}'";

# refused(SITUATION, ERROR, arguments of refusal)
sub refused
{
	my ($situation, $error, @arguments) = @_;
	like(refusal(@arguments), $error, "$situation is refused, and why");
	return;
}

my $untrusted = qr/ERROR:  could not reach Kafka.*certificate verify failed.*HINT:  The broker's certificate must be valid now, name its host, and come from/s;
my $wants = qr/ERROR:  could not reach Kafka.*certificate.*HINT:  The broker wants a certificate that it trusts: set/s;
my $protocol = qr/ERROR:  could not reach Kafka.*HINT:  .* that it speaks the server's security_protocol/s;
my ($ssl, $other) = (", security_protocol 'ssl'", "ssl_certificate_pem '$pem{'client_foreign.pem'}', ssl_key_pem '$pem{'client_foreign.key'}'");

refused('a broker that this machine does not trust', $untrusted, $broker->bootstrap, $sasl, $login);
refused('one whose authority is another', $untrusted, $broker->bootstrap, "$sasl, ssl_ca_pem '$pem{'stranger.pem'}'", $login);
refused('a wrong password', qr/ERROR:  Kafka at .* refused the login/, $broker->bootstrap, "$sasl$trusts", "sasl_username 'reader', sasl_password 'another'");
refused('a broker with TLS that is asked without', $protocol, $broker->bootstrap, ", security_protocol 'plaintext'", '');
refused('one with a login that is asked without', $protocol, $broker->bootstrap, "$ssl$trusts", '');
refused('one without TLS that is asked with it', $protocol, $broker->admin, "$sasl$trusts", $login);
refused('a client without a certificate', $wants, $broker->mutual, "$ssl$trusts", '');
refused('a client that the broker does not trust', $wants, $broker->mutual, "$ssl$trusts", $other);
refused('a key of another certificate', qr/could not open a Kafka consumer.*ssl\.key\.pem failed.*mismatch/s,
	$broker->mutual, "$ssl$trusts", "ssl_certificate_pem '$pem{'client.pem'}', ssl_key_pem '$pem{'client_foreign.key'}'");
refused('a locked key without a password', qr/could not open a Kafka consumer.*ssl\.key\.pem failed.*password/s,
	$broker->mutual, "$ssl$trusts", "ssl_certificate_pem '$pem{'client.pem'}', ssl_key_pem '$pem{'client_locked.key'}'");
refused('a certificate that is none', qr/could not open a Kafka consumer.*ssl\.certificate\.pem failed: not in PEM format/s,
	$broker->mutual, "$ssl$trusts", "ssl_certificate_pem 'x', ssl_key_pem 'x'");
refused('an authority that is none', qr/could not open a Kafka consumer.*ssl\.ca\.pem: not in PEM format/s, $broker->mutual, "$ssl, ssl_ca_pem 'x'", $mine);

# ---------------------------------------------------------------------------
# What fits
# ---------------------------------------------------------------------------

produce(100);
my %streams;

# accepted(SITUATION, arguments of refusal): a stream, which is scanned and counted.
sub accepted
{
	my ($situation, @arguments) = @_;

	is(refusal(@arguments), '', "$situation is accepted");
	$node->safe_psql('postgres', qq(
		SELECT stream_engine.create_query('q$number', 'SELECT count(*) AS n FROM s$number GROUP BY tumble(ts, ''1 minute'')')));
	wait_for_all($node, "q$number");
	is($node->safe_psql('postgres', "SELECT count(*) FROM s$number"), $sent, "$situation: the stream is scanned");
	$streams{$number} = $situation;
	return;
}

accepted('a login over TLS', $broker->bootstrap, "$sasl$trusts", $login);
accepted('a certificate of the client', $broker->mutual, "$ssl$trusts", $mine);
accepted('one with a locked key', $broker->mutual, "$ssl$trusts",
	"ssl_certificate_pem '$pem{'client.pem'}', ssl_key_pem '$pem{'client_locked.key'}', ssl_key_password 'of the key'");
# Files are read by the server.
chmod(0755, $certs) or die $!;
chmod(0644, glob "$certs/*") or die $!;
append_to_file("$certs/password", "of the key\n");
accepted('all of it in files', $broker->mutual, "$ssl, ssl_ca_location '$certs/ca.pem'",
	"ssl_certificate_file '$certs/client.pem', ssl_key_file '$certs/client_locked.key', ssl_key_password_file '$certs/password'");

sub counted
{
	my ($situation) = @_;

	produce(100);
	wait_for_all($node, "q$_") foreach keys %streams;
	is($node->safe_psql('postgres', 'SELECT string_agg(DISTINCT counted::text, $$,$$) FROM stream_engine.stat_queries'), $sent, "$situation: all is counted");
	return;
}

counted('at first');

# ---------------------------------------------------------------------------
# The broker's certificate changes
# ---------------------------------------------------------------------------

my $complaints = q(FROM stream_engine.stat_workers WHERE kind = 'reader' AND message LIKE '%certificate verify failed%');

foreach my $certificate (qw(expired elsewhere))
{
	broker_has($certificate);
	$broker->restart;
	wait_for($node, "SELECT count(*) = 4 $complaints");
	like($node->safe_psql('postgres', "SELECT finding || ': ' || detail FROM stream_engine.why('q$number') LIMIT 1"),
		qr/^the worker has a problem: .*certificate verify failed/, "$certificate: why() tells");
	is($node->safe_psql('postgres', 'SELECT string_agg(DISTINCT state, $$,$$) FROM stream_engine.queries'), 'running', "$certificate: no query is stopped");
}

# Whoever administers the server may do without the name of the host.
$node->safe_psql('postgres', "ALTER SERVER server$_ OPTIONS (ADD ssl_endpoint_identification_algorithm 'none')") foreach keys %streams;
wait_for($node, "SELECT count(*) = 0 $complaints");
counted('with a certificate of another host, which is allowed');
$node->safe_psql('postgres', "ALTER SERVER server$_ OPTIONS (DROP ssl_endpoint_identification_algorithm)") foreach keys %streams;
wait_for($node, "SELECT count(*) = 4 $complaints");
broker_has('good');
$broker->restart;
counted('with a good one again');

# ---------------------------------------------------------------------------
# Processes that end
# ---------------------------------------------------------------------------

my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my $position = log_position($node);
foreach my $round (1 .. (long_run() ? 100 : 10))
{
	my ($out, $err) = ('', '');
	my $scan = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "SELECT pg_sleep(1000) FROM s$number" ],
		'<', \undef, '>', \$out, '2>', \$err);
	wait_for($node, q(SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'));
	produce(10);
	$node->safe_psql('postgres', q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE wait_event = 'PgSleep' OR backend_type = 'stream_engine reader'));
	$scan->finish;
}
counted('after all that');
unlike(log_since($node, $position), qr/was terminated by signal|reinitializing/, 'no process has crashed');
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $started, 'nor has the server');

$node->stop('fast');
done_testing();
