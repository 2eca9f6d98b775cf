// Package testreport counts the tests of one tier from `go test -json` events and adds the
// tiers up.
//
// A tier writes its Result to a file; Total reads the files of all tiers, so that a tier that
// died or never ran is a failure and not a silence. The event stream is the source and not the
// printed text, because a console can be cut and mixed.
//
// Subtests count. A package that ended badly without a failed test of its own (it did not
// build, it panicked) is one failure, and so is a command that failed with nothing to show for
// it. A skip is printed with its reason.
//
// Rejected: gotestsum (a dependency for two hundred lines), and `go test` without -json (its
// text can't be counted).
package testreport
