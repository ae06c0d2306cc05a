# Answers with who runs it. Only what a minimal Perl has.
use strict;
use warnings;
use IO::Socket::INET;

my $listener = IO::Socket::INET->new(LocalPort => $ENV{PORT}, Listen => 16, ReuseAddr => 1) or die "listen: $@";
$| = 1;
print "perl listens\n";
while (1) {
    my $client = $listener->accept or next;
    while (my $line = <$client>) {
        last if $line =~ /^\r?\n$/;
    }
    my %seen;
    my $groups = join(",", sort { $a <=> $b } grep { !$seen{$_}++ } split(" ", $)));
    my $writable = open(my $note, ">", "note") ? "writable" : "not writable: $!";
    my $body = "user $> groups $groups home " . ($ENV{HOME} // "unset") . " directory $writable\n";
    print $client "HTTP/1.1 200 OK\r\ncontent-length: " . length($body) . "\r\nconnection: close\r\n\r\n$body";
    close $client;
}
