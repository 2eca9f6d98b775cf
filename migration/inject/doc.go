// Package inject makes one named instant of a migration fail on purpose, so that the ownership law can
// be tested by enumeration: every phase, on each side, with each kind of fault.
//
// It is compiled in and off: only FINELINE_INJECT turns it on, and the cost when off is a comparison a
// point. A build tag was rejected, because then the binary that is tested would not be the binary that
// is shipped.
//
//	FINELINE_INJECT="<side>.<phase>[#<n>]=kill|cut|stall|error[,...]"
//	FINELINE_INJECT="destination.ready=kill,source.batch#3=stall"
//
// A point is passed once or many times; #n is the n-th passing, and without it the first. A plan acts on a
// passing at most once for each of its items.
//
// # Stall
//
// A link that stands still is worse than one that is cut: nobody is told. The connections that the process has
// at that instant carry nothing any more, in either direction, and stay open: closing one on this side does
// not reach the peer. Reads and writes wait for their deadlines. Connections that are made later are good, as
// after a change of route. To make this possible a plan with a stall wraps each connection (Over); what
// stalls is then the plan's and lives until Release.
package inject
