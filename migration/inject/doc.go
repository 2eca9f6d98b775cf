// Package inject makes one named phase of a migration fail on purpose, so that the ownership law can
// be tested by enumeration: every journalled phase, on each side, with each kind of fault.
//
// It is compiled in and off: only FINELINE_INJECT turns it on, and the cost when off is one map
// lookup a phase, of which a migration has about ten. A build tag was rejected, because then the
// binary that is tested would not be the binary that is shipped.
//
//	FINELINE_INJECT="<side>.<phase>=kill|cut|error[,...]"
//	FINELINE_INJECT="destination.ready=kill,source.commit-sent=cut"
package inject
