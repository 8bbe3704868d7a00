
# Node.pm
#	A PostgreSQL::Test::Cluster for tests that ask a server that may be down.
#
# NOTES
#	A psql that finds no server ends without reading its input.  IPC::Run dies when
#	it comes to write that only then, as on a busy machine it may ("Broken pipe"):
#	here that is what it is a moment earlier, a connection that was refused.

package StreamEngine::Node;

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;

our @ISA = ('PostgreSQL::Test::Cluster');

# Times that poll_query_until begins anew.
my $attempts = 10;

sub psql
{
	my ($self, $dbname, $sql, %params) = @_;
	my $as_list = wantarray;
	my @result;
	my $asked = eval {
		@result = $as_list ? $self->SUPER::psql($dbname, $sql, %params) : scalar $self->SUPER::psql($dbname, $sql, %params);
		1;
	};

	if (!$asked)
	{
		die $@ if $@ !~ /Broken pipe: write/ || $params{on_error_die};
		@result = $as_list ? (2, '', 'psql: error: the server is gone') : (2);
	}
	return $as_list ? @result : $result[0];
}

sub poll_query_until
{
	my ($self, @arguments) = @_;

	foreach my $attempt (1 .. $attempts)
	{
		my $result;

		return $result if eval { $result = $self->SUPER::poll_query_until(@arguments); 1 };
		die $@ if $@ !~ /Broken pipe: write/ || $attempt == $attempts;
	}
	return;
}

1;
