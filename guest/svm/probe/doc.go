// Package probe holds only tests: they check, inside the emulated machine, what
// every other test there relies on (KVM, SVM with nested paging, the clock, the
// files of the Linux guest). Elsewhere they skip.
package probe
